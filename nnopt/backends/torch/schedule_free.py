"""Schedule-Free SGD and AdamW by the authors' library: averaging replaces the schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn, optim

from nnopt.architecture.network import is_penalized
from nnopt.schema import ScheduleFreeConfig, ScheduleFreeSgdConfig


class ScheduleFree(optim.Optimizer):
    """The Schedule-Free update rule with decoupled weight decay.

        z ← z - lr·g(y);  x ← (1-c)·x + c·z;  y = (1-β)·z + β·x;  c = lrₘ² / Σ lrₘ²

    g(y) is the gradient at y, and β is ``momentum`` or ``beta1``. lrₘ is the largest learning rate
    so far, so the steps of a warm-up have less weight. AdamW scales g like Adam. Weight decay is
    z ← z - lr·λ·y with λ = ``weight_decay``. The network cannot apply weight decay, because the
    parameters hold y, and a change of y does not reach z. Source: Defazio et al. 2024, "The road
    less scheduled", equations 1 to 3 and algorithm 1.

    The parameters are y in training mode and x in evaluation mode. The library converts y to x and
    back with rounding errors. Here, y is saved, so that an evaluation does not change the training.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: ScheduleFreeConfig,
        weight_decay: float,
        decay_norm_and_bias: bool,
    ) -> None:
        import schedulefree

        decayed = [p for p in parameters if is_penalized(tuple(p.shape), decay_norm_and_bias)]
        exempt = [p for p in parameters if not is_penalized(tuple(p.shape), decay_norm_and_bias)]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ]
        self._parameters: list[Tensor] = list(parameters)
        if isinstance(config, ScheduleFreeSgdConfig):
            self.inner = schedulefree.SGDScheduleFree(groups, momentum=config.momentum)
        else:
            betas = (config.beta1, config.beta2)
            self.inner = schedulefree.AdamWScheduleFree(groups, betas=betas, eps=config.epsilon)
        super().__init__(parameters, {})
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        self._y: list[Tensor] | None = None  # the saved y while the parameters are x
        self.train()

    def step(self) -> None:  # type: ignore[override]
        """Perform one update. The library gets copies of the gradients, because it changes them."""
        gradients = [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None if p.grad is None else p.grad.clone()
        self.inner.step()
        for p, gradient in zip(self._parameters, gradients, strict=True):
            p.grad = gradient

    @torch.no_grad()
    def train(self) -> None:
        """Set the parameters to the y of the last step."""
        self.inner.train()
        if self._y is not None:
            torch._foreach_copy_(self._parameters, self._y)
            self._y = None

    @torch.inference_mode(False)
    @torch.no_grad()
    def eval(self) -> None:
        """Set the parameters to x."""
        if self._y is None:
            self._y = [p.detach().clone() for p in self._parameters]
            self.inner.eval()

    def reset(self) -> None:
        """Reset the state, so that x, y and z are the current parameters."""
        self.state.clear()
        for group in self.param_groups:
            group.update(k=0, weight_sum=0.0, lr_max=-1.0)
        self._y = None
