"""An optimizer: Signum, which follows the sign of the momentum (Bernstein et al. 2018)."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from nnopt import LearningRate, OptimizerConfig, Range, Registry


@dataclass(frozen=True)
class SignumConfig(OptimizerConfig):
    """The keys ``optimizer.lr`` and ``optimizer.momentum``, with their defaults."""

    lr: LearningRate = 1e-3
    momentum: Annotated[float, Range(minimum=0, below=1)] = 0.9


def update(w, g, state, lr, step, config):
    m = state["momentum"]
    m += (1 - config.momentum) * (g - m)
    return lr * np.sign(m)


def build(parameters, config):
    import torch

    class Signum(torch.optim.Optimizer):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    m = state["momentum"].lerp_(p.grad, 1 - config.momentum)
                    p.sub_(group["lr"] * m.sign())

    return Signum(parameters, {})


def register(registry: Registry) -> None:
    registry.optimizer("signum", SignumConfig, numpy=update, state=("momentum",), torch=build)
