"""Muon: momentum with updates that are nearly orthogonal matrices."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from nnopt.schema import MuonConfig

A, B, C = 3.4445, -4.7750, 2.0315
"""Coefficients of p(σ) = aσ + bσ³ + cσ⁵ by Jordan et al. They maximize the slope at 0, so that
small singular values grow fast. Singular values do not converge to 1, but stay near 1."""


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Return U S' Vᵀ for each matrix U S Vᵀ (..., rows, columns), with singular values S' near 1.

    For a matrix M, the Newton-Schulz iteration starts at X = M / (‖M‖_F + 1e-7) and computes

        X ← a·X + (b·G + c·G²)·X with G = X·Xᵀ

    in each of its ``steps``. A step maps a singular value σ ≤ 1 of X to aσ + bσ³ + cσ⁵,
    independently of other singular values. Five steps map values between 0.002 and 1 to values
    between 0.68 and 1.21, and multiply smaller values by about 485. Source: Jordan et al. 2024,
    "Muon: an optimizer for hidden layers in neural networks".
    """
    rows, columns = matrices.shape[-2:]
    x: Tensor = matrices.mT if rows > columns else matrices  # so that X·Xᵀ is small
    norm = torch.linalg.matrix_norm(x, keepdim=True)
    x = x / (norm.masked_fill(norm.isinf(), math.nan) + 1e-7)  # x / inf would be 0
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * (gram @ gram)) @ x
    return x.mT if rows > columns else x


class Muon(optim.Optimizer):
    """The update rule of Muon. Weight decay is not included: the network applies it before a step.

        m ← μ·m + (1-μ)·g;   u = μ·m + (1-μ)·g;   w ← w - lr·√max(1, rows/columns)·orthogonalize(u)

    The rule applies to each hidden weight; a kernel (out, in, kh, kw) is the matrix (out,
    in·kh·kw). u is the authors' form of Nesterov momentum (Jordan et al. 2024;
    github.com/KellerJordan/Muon). Adam updates all other parameters, such as biases, the output
    layer's weight and, if ``config.input_layer`` is "adam", the first layer's weight. The learning
    rate of Adam is lr · ``adam_lr_ratio``.

    Matrices of the same shape are orthogonalized together. On an accelerator, float32 matrices are
    converted to bfloat16, as in the authors' code. On a CPU, bfloat16 would take twice as long.
    ``torch.optim.Muon`` supports only matrices and always uses bfloat16.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        weights: Sequence[nn.Parameter],
        config: MuonConfig,
    ) -> None:
        """Select the hidden weights among ``weights``, which have the order of the architecture."""
        hidden = weights[1 if config.input_layer == "adam" else 0 : -1]
        chosen = {id(p) for p in hidden}
        rest = [p for p in parameters if id(p) not in chosen]
        defaults = {"momentum": config.momentum, "steps": config.newton_schulz_steps}
        super().__init__(hidden, {"lr_scale": 1.0, **defaults})
        betas = (config.beta1, config.beta2)
        group = {"params": rest, "lr_scale": config.adam_lr_ratio}
        self.adam = optim.Adam([group], betas=betas, eps=config.epsilon, fused=True)
        self.param_groups += self.adam.param_groups  # set_learning_rate also sets Adam's rate

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Perform one update with the learning rates in ``param_groups``."""
        self._step_matrices(self.param_groups[0])
        self.adam.step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        trained = [p for p in group["params"] if p.grad is not None]
        for p in trained:
            if not self.state[p]:
                self.state[p]["m"] = torch.zeros_like(p)
        gradients, momenta = [p.grad for p in trained], [self.state[p]["m"] for p in trained]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, momenta, group["momentum"])
        by_shape = defaultdict(list)
        for p, direction in zip(trained, directions, strict=True):
            by_shape[p.shape].append((p, direction.flatten(1)))
        for shape, pairs in by_shape.items():
            matrices = torch.stack([direction for _, direction in pairs])
            rows, columns = matrices.shape[1:]
            dtype = matrices.dtype
            if dtype == torch.float32 and matrices.device.type != "cpu":
                matrices = matrices.bfloat16()
            updates = orthogonalize(matrices, group["steps"]).to(dtype).reshape(-1, *shape)
            alpha = -group["lr"] * max(1.0, rows / columns) ** 0.5
            torch._foreach_add_([p for p, _ in pairs], list(updates.unbind()), alpha=alpha)
