"""Lion: all elements of an update have the same magnitude; gradients determine their signs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn, optim

from nnopt.schema import LionConfig


class Lion(optim.Optimizer):
    """The update rule of Lion without weight decay, which the network applies before the step.

        c = β₁·m + (1-β₁)·g;  w ← w - lr·sign(c);  m ← β₂·m + (1-β₂)·g

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: LionConfig) -> None:
        super().__init__(parameters, {"beta1": config.beta1, "beta2": config.beta2})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Perform one update with the learning rates in ``param_groups``."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in trained]
            for p in trained:
                if not self.state[p]:
                    self.state[p]["m"] = torch.zeros_like(p)
            momenta = [self.state[p]["m"] for p in trained]
            directions = torch._foreach_lerp(momenta, gradients, 1 - group["beta1"])
            torch._foreach_sign_(directions)
            torch._foreach_add_(trained, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - group["beta2"])
