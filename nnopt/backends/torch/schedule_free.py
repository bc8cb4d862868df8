"""Schedule-Free SGD and AdamW, by the authors' library: an average instead of a schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn, optim

from nnopt.architecture.network import is_penalized
from nnopt.schema import ScheduleFreeConfig, ScheduleFreeSgdConfig


class ScheduleFree(optim.Optimizer):
    """z ← z - lr·g(y);  x ← (1-c)·x + c·z;  y = (1-β)·z + β·x;  c = lrₘ² / Σ lrₘ²

    with lrₘ the largest learning rate so far, so that a warm-up's steps count for less (Defazio et
    al. 2024, "The road less scheduled", equations 1 to 3 and algorithm 1). AdamW divides g by
    √ŝ + ε. In both, z decays by y: z ← z - lr·λ·y. So the decoupled weight decay, which the network
    applies for all other optimizers, is this one's own: the parameters hold y, and from there it
    would never reach z.

    The parameters are y between ``train`` and ``eval``, and x otherwise. The library goes from one
    to the other and back by two interpolations, which round; here y is kept meanwhile, so that
    looking at the validation data does not change a bit of the training.

    parameters: of any shapes. weight_decay: λ, of weights, or with ``decay_all`` of all parameters.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: ScheduleFreeConfig,
        weight_decay: float,
        decay_all: bool,
    ) -> None:
        import schedulefree

        decayed = [p for p in parameters if is_penalized(tuple(p.shape), decay_all)]
        exempt = [p for p in parameters if not is_penalized(tuple(p.shape), decay_all)]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": exempt, "weight_decay": 0.0},
        ]
        self._parameters: list[Tensor] = list(parameters)
        if isinstance(config, ScheduleFreeSgdConfig):
            self._inner = schedulefree.SGDScheduleFree(groups, momentum=config.momentum)
        else:
            betas = (config.beta1, config.beta2)
            self._inner = schedulefree.AdamWScheduleFree(groups, betas=betas, eps=config.epsilon)
        super().__init__(parameters, {})
        self.param_groups, self.state = self._inner.param_groups, self._inner.state
        self._y: list[Tensor] | None = None  # to go on with, while the parameters are x
        self.train()

    def step(self) -> None:  # type: ignore[override]
        """One update, in training mode; the gradients stay as they are, which the library, to save
        memory, would overwrite."""
        gradients = [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None if p.grad is None else p.grad.clone()
        self._inner.step()
        for p, gradient in zip(self._parameters, gradients, strict=True):
            p.grad = gradient

    @torch.no_grad()
    def train(self) -> None:
        """The parameters become y, exactly the one that the last step left."""
        self._inner.train()
        if self._y is not None:
            torch._foreach_copy_(self._parameters, self._y)
            self._y = None

    @torch.inference_mode(False)
    @torch.no_grad()
    def eval(self) -> None:
        """The parameters become x."""
        if self._y is None:
            self._y = [p.detach().clone() for p in self._parameters]
            self._inner.eval()

    def restart(self) -> None:
        """Forget all steps: the parameters, as they are now, are x, y and z."""
        self.state.clear()
        for group in self.param_groups:
            group.update(k=0, weight_sum=0.0, lr_max=-1.0)
        self._y = None
