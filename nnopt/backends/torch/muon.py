"""Muon: momentum whose matrices are made nearly orthogonal, so that a step goes equally far in all
directions of the weight's range; Adam for what is no matrix, and for the output layer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from nnopt.schema import MuonConfig

A, B, C = 3.4445, -4.7750, 2.0315
"""Jordan et al. chose them for the steepest slope at 0, so that small singular values grow fastest,
rather than for a limit of 1."""


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """U S' Vᵀ of each matrix U S Vᵀ, the singular values S' near 1, by Newton and Schulz:

        X₀ = M / (‖M‖ + 1e-7);   X ← a·X + (b·G + c·G²)·X with G = X·Xᵀ, ``steps`` times

    Each singular value σ ≤ 1 of X₀ goes through σ ← aσ + bσ³ + cσ⁵, whatever the others are. Five
    steps bring all from 0.002 to 1 into 0.68 to 1.21, and smaller ones near 485 times themselves.

    matrices: (..., rows, columns), computed in their own number type.
    (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".)
    """
    rows, columns = matrices.shape[-2:]
    x: Tensor = matrices.mT if rows > columns else matrices  # the Gram matrix of the shorter side
    norm = torch.linalg.matrix_norm(x, keepdim=True)
    x = x / (norm.masked_fill(norm.isinf(), math.nan) + 1e-7)  # x / inf would be a step of 0
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * (gram @ gram)) @ x
    return x.mT if rows > columns else x


class Muon(optim.Optimizer):
    """m ← μ·m + (1-μ)·g;   u = μ·m + (1-μ)·g;   w ← w - lr·√max(1, rows/columns)·orthogonalize(u)

    of each hidden weight, a kernel (out, in, kh, kw) being the matrix (out, in·kh·kw); Nesterov's
    look-ahead in u as the authors have it (Jordan et al. 2024; github.com/KellerJordan/Muon).
    All other parameters and the output layer's weight go to Adam with the learning rate
    lr · ``adam_ratio``, and so does the first layer's weight if ``config.input_layer`` is "adam".

    Matrices of one shape are orthogonalized together. In float32 on an accelerator that is done in
    bfloat16, as the authors do. On a CPU it would take twice as long, so there, and in float64, the
    type is the weights' own. This is why ``torch.optim.Muon``, the same rule, but for two axes only
    and always in bfloat16, is not used but compared with in the tests.

    weights: those of ``parameters`` that are matrices and kernels, in the architecture's order. The
    network applies weight decay, before the step.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        weights: Sequence[nn.Parameter],
        config: MuonConfig,
    ) -> None:
        hidden = weights[1 if config.input_layer == "adam" else 0 : -1]
        chosen = {id(p) for p in hidden}
        rest = [p for p in parameters if id(p) not in chosen]
        defaults = {"momentum": config.momentum, "steps": config.newton_schulz_steps}
        super().__init__(hidden, {"lr_scale": 1.0, **defaults})
        betas = (config.beta1, config.beta2)
        group = {"params": rest, "lr_scale": config.adam_ratio}
        self.adam = optim.Adam([group], betas=betas, eps=config.epsilon, fused=True)
        self.param_groups += self.adam.param_groups  # so that their learning rate is set with ours

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self._step_matrices(self.param_groups[0])
        self.adam.step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        trained = [p for p in group["params"] if p.grad is not None]
        for p in trained:
            if not self.state[p]:
                self.state[p]["m"] = torch.zeros_like(p)
        gradients, memories = [p.grad for p in trained], [self.state[p]["m"] for p in trained]
        torch._foreach_lerp_(memories, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, memories, group["momentum"])
        by_shape = defaultdict(list)
        for p, update in zip(trained, updates, strict=True):
            by_shape[p.shape].append((p, update.flatten(1)))
        for shape, pairs in by_shape.items():
            matrices = torch.stack([update for _, update in pairs])
            rows, columns = matrices.shape[1:]
            kind = matrices.dtype
            if kind == torch.float32 and matrices.device.type != "cpu":
                matrices = matrices.bfloat16()
            nearly = orthogonalize(matrices, group["steps"]).to(kind).reshape(-1, *shape)
            alpha = -group["lr"] * max(1.0, rows / columns) ** 0.5
            torch._foreach_add_([p for p, _ in pairs], list(nearly.unbind()), alpha=alpha)
