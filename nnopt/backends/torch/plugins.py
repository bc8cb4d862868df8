"""Components of plug-ins as modules, losses and optimizers of the PyTorch backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

from nnopt.architecture.inference import InferredLayer, format_shape
from nnopt.architecture.network import Architecture
from nnopt.architecture.plugins import used_components
from nnopt.backends.torch.losses import LOSSES, Loss, targets
from nnopt.backends.torch.modules import MODULES
from nnopt.backends.torch.optimizers import OPTIMIZERS, set_learning_rate
from nnopt.schema import Config
from nnopt.schema.tables import Component

SAMPLES = 3
"""Number of samples with which a component is tried before training."""


class FunctionLayer(nn.Module):
    """A layer that is a function of its input and of its parameters, which autograd derives."""

    def __init__(self, layer: InferredLayer, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function
        self._names = tuple(layer.parameters)
        self._options = dict(vars(layer.record))
        for name, shape in layer.parameters.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device="meta")))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for (N, D) or (N, C, H, W)."""
        parameters = [getattr(self, name).to(x.dtype) for name in self._names]
        return self._function(x, *parameters, **self._options)


def module_layer(
    component: Component, factory: Callable[..., nn.Module], layer: InferredLayer
) -> nn.Module:
    """Return the module of a layer. ``factory`` gets the input shape and the options."""
    with component.running("module"):
        module = factory(layer.input_shape, **vars(layer.record))
    if not isinstance(module, nn.Module):
        raise component.error(f"returns no torch.nn.Module from module, got {type(module)}")
    found = {name: tuple(x.shape) for name, x in module.named_parameters()}
    if found != layer.parameters:
        raise component.error(
            f"has the parameters {found} in its module, but {layer.parameters} in its record"
        )
    if buffers := [name for name, _ in module.named_buffers()]:
        raise component.error(
            f"has the buffer {buffers[0]!r} in its module; compute constants in forward"
        )
    return module


def build_loss(
    config: Config, function: Callable[[Tensor, Tensor], Tensor], takes_targets: bool
) -> Loss:
    """Return a loss. ``function`` gets labels (N,) or, on request, targets (N, K)."""
    smoothing = config.regularizer.label_smoothing
    if not takes_targets:
        return function
    return lambda logits, y: function(logits, targets(logits, y, smoothing))


def evaluate_loss(
    function: Callable[[Tensor, Tensor], Tensor], takes_targets: bool, logits: Any, labels: Any
) -> float:
    """Return the mean loss in float64, for a loss without a part for NumPy."""
    z, y = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    with torch.no_grad():
        return float(function(z, targets(z, y, 0.0) if takes_targets else y))


def try_components(architecture: Architecture, config: Config) -> None:
    """Compute each configured component of a plug-in once. Raises ConfigError if one is faulty."""
    for component in used_components(config):
        kind, name = component.kind, component.name
        with component.running("PyTorch"):
            if kind == "optimizer":
                _try_optimizer(component, config)
            elif kind == "loss":
                _try_loss(component, LOSSES[name](config), architecture.classes)
            elif kind in ("activation", "layer"):
                for layer in architecture.walk():
                    if layer.record.kind == name:
                        _try_layer(component, layer)


def _try_optimizer(component: Component, config: Config) -> None:
    parameter = nn.Parameter(torch.full((5,), 0.5))
    parameter.grad = torch.full((5,), 0.25)
    optimizer = OPTIMIZERS[component.name]([parameter], config.optimizer)
    if not isinstance(optimizer, optim.Optimizer):
        raise component.error(f"returns no torch.optim.Optimizer, got {type(optimizer)}")
    with torch.no_grad():
        set_learning_rate(optimizer, 0.1)
        optimizer.step()


def _try_loss(component: Component, loss: Loss, classes: int) -> None:
    logits = torch.linspace(-1, 1, SAMPLES * classes, dtype=torch.float64).view(SAMPLES, classes)
    value = loss(logits.requires_grad_(), torch.arange(SAMPLES) % classes)
    if value.shape != ():
        raise component.error(f"returns the shape {tuple(value.shape)}, expected ()")
    value.backward()  # type: ignore[no-untyped-call]


def _try_layer(component: Component, layer: InferredLayer) -> None:
    """Compute a layer once, and compare the shape of its output with that of the record."""
    module = MODULES[type(layer.record)](layer).to_empty(device="cpu").double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    size = SAMPLES * torch.Size(layer.input_shape).numel()
    x = torch.linspace(-1, 1, size, dtype=torch.float64).view(SAMPLES, *layer.input_shape)
    y = module(x.requires_grad_())
    if tuple(y.shape[1:]) != layer.output_shape:
        raise component.error(
            f"returns {format_shape(y.shape[1:]) or 'one number'} for each sample in {layer.name}, "
            f"but its rule for shapes says {format_shape(layer.output_shape)}"
        )
    y.sum().backward()
