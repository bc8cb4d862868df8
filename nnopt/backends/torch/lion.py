"""Lion: steps of one length, whose sign is all that the gradients decide."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn, optim

from nnopt.schema import LionConfig


class Lion(optim.Optimizer):
    """c = β₁·m + (1-β₁)·g;  w ← w - lr·sign(c);  m ← β₂·m + (1-β₂)·g

    (Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2, less its weight
    decay, which the network applies before the step, for every optimizer alike.)
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: LionConfig) -> None:
        super().__init__(parameters, {"beta1": config.beta1, "beta2": config.beta2})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in trained]
            for p in trained:
                if not self.state[p]:
                    self.state[p]["m"] = torch.zeros_like(p)
            memories = [self.state[p]["m"] for p in trained]
            directions = torch._foreach_lerp(memories, gradients, 1 - group["beta1"])
            torch._foreach_sign_(directions)
            torch._foreach_add_(trained, directions, alpha=-group["lr"])
            torch._foreach_lerp_(memories, gradients, 1 - group["beta2"])
