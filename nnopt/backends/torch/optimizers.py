"""The configured update rule as a ``torch.optim`` optimizer, in the fastest implementation.

On a CPU, the fused implementation (one kernel for all parameters) takes 0.35 to 1.06 times as long
as the default, and the foreach implementation is the second fastest. The network sets the learning
rate before every step, and applies decoupled weight decay except for Schedule-Free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from nnopt.backends.torch.muon import Muon
from nnopt.backends.torch.schedule_free import ScheduleFree
from nnopt.schema import (
    AdadeltaConfig,
    AdagradConfig,
    AdamConfig,
    Config,
    LionConfig,
    MomentumConfig,
    MuonConfig,
    NadamConfig,
    RmspropConfig,
    ScheduleFreeConfig,
    SgdConfig,
    weight_decay,
)
from nnopt.schema.tables import filled

Parameters = Sequence[nn.Parameter]


def sgd(parameters: Parameters, config: SgdConfig) -> optim.Optimizer:
    """Return SGD: w ← w - lr·g."""
    return optim.SGD(parameters, fused=True)


def momentum(parameters: Parameters, config: MomentumConfig) -> optim.Optimizer:
    """Return SGD with momentum: v ← μ·v + g;  w ← w - lr·v, or w ← w - lr·(g + μ·v) for Nesterov.

    v is 0 at first, which gives the same steps as PyTorch's initial v = g. PyTorch would leave v
    uninitialized if loss scaling for fp16 skips the first step, as it often does.
    """
    nesterov = config.name == "nesterov"
    optimizer = optim.SGD(parameters, momentum=config.momentum, nesterov=nesterov, fused=True)
    for parameter in parameters if config.momentum else ():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def rmsprop(parameters: Parameters, config: RmspropConfig) -> optim.Optimizer:
    """Return RMSprop: s ← ρ·s + (1-ρ)·g²;  v ← μ·v + g / (√s + ε);  w ← w - lr·v.

    If ``centered``, the variance s - m² replaces s, with the mean m ← ρ·m + (1-ρ)·g.
    """
    return optim.RMSprop(
        parameters,
        alpha=config.rho,
        eps=config.epsilon,
        momentum=config.momentum,
        centered=config.centered,
        foreach=True,
    )


def adagrad(parameters: Parameters, config: AdagradConfig) -> optim.Optimizer:
    """Return Adagrad: s ← s + g²;  w ← w - lr·g / (√s + ε). Only CPUs have a fused kernel."""
    implementation = {"fused": True} if parameters[0].device.type == "cpu" else {"foreach": True}
    return optim.Adagrad(parameters, eps=config.epsilon, **implementation)


def adadelta(parameters: Parameters, config: AdadeltaConfig) -> optim.Optimizer:
    """Return Adadelta: w ← w - lr·d with d = g·√(a + ε) / √(s + ε).

    s and a are the averages of g² and d²: s ← ρ·s + (1-ρ)·g² before d, a ← ρ·a + (1-ρ)·d² after d.
    """
    return optim.Adadelta(parameters, rho=config.rho, eps=config.epsilon, foreach=True)


def adam(parameters: Parameters, config: AdamConfig) -> optim.Optimizer:
    """Return Adam: m ← β₁·m + (1-β₁)·g;  s ← β₂·s + (1-β₂)·g²;  w ← w - lr·m̂ / (√ŝ + ε).

    With ``amsgrad``, ŝ is computed from the largest s so far.
    """
    betas = (config.beta1, config.beta2)
    return optim.Adam(
        parameters, betas=betas, eps=config.epsilon, amsgrad=config.amsgrad, fused=True
    )


def nadam(parameters: Parameters, config: NadamConfig) -> optim.Optimizer:
    """Return NAdam: m, s and ŝ as in Adam;  w ← w - lr·n / (√ŝ + ε).

    n = (1-μₜ)·g / (1-μ₁⋯μₜ) + μₜ₊₁·m / (1-μ₁⋯μₜ₊₁). The product of the momenta is in float64 here.
    PyTorch would compute it in float32, also for parameters in float64.
    """
    optimizer = optim.NAdam(
        parameters,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        momentum_decay=config.momentum_decay,
        foreach=True,
    )
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "mu_product": torch.tensor(1.0, dtype=torch.float64),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


class Lion(optim.Optimizer):
    """Lion: the elements of an update have equal magnitude, and gradients determine their signs.

        c = β₁·m + (1-β₁)·g;  w ← w - lr·sign(c);  m ← β₂·m + (1-β₂)·g

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.
    """

    def __init__(self, parameters: Parameters, config: LionConfig) -> None:
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


OPTIMIZERS: dict[str, Callable[[Parameters, Any], optim.Optimizer]] = filled(
    "optimizer/torch",
    {
        "sgd": sgd,
        "momentum": momentum,
        "nesterov": momentum,
        "rmsprop": rmsprop,
        "adagrad": adagrad,
        "adadelta": adadelta,
        "adam": adam,
        "adamw": adam,  # weight decay is decoupled for every optimizer
        "nadam": nadam,
        "lion": Lion,
    },
)


def build_optimizer(parameters: Parameters, weights: Parameters, config: Config) -> optim.Optimizer:
    """Return the configured optimizer. ``weights``: dense weights and kernels, first to last."""
    if isinstance(config.optimizer, MuonConfig):
        return Muon(parameters, weights, config.optimizer)
    if isinstance(config.optimizer, ScheduleFreeConfig):
        decay, decay_norm_and_bias = weight_decay(config), config.regularizer.decay_norm_and_bias
        return ScheduleFree(parameters, config.optimizer, decay, decay_norm_and_bias)
    return OPTIMIZERS[config.optimizer.name](parameters, config.optimizer)


def mixes_elements(optimizer: optim.Optimizer) -> bool:
    """Return whether the update of an element may depend on other elements."""
    module = type(optimizer).__module__.partition(".")[0]
    return isinstance(optimizer, Muon) or module not in ("torch", "nnopt")


def set_learning_rate(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step. A group's "lr_scale" multiplies the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def state_is_finite(optimizer: optim.Optimizer) -> bool:
    """Return whether the state of the optimizer is finite. Waits for the device."""
    optimizers = [optimizer, optimizer.adam] if isinstance(optimizer, Muon) else [optimizer]
    tensors = [
        value
        for each in optimizers
        for state in each.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim
    ]
    if not tensors:
        return True
    return bool(torch.stack(torch._foreach_norm(tensors, math.inf)).isfinite().all())
