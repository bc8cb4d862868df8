"""All operations of the NumPy backend, and the activations with PyTorch's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nnopt.architecture.layers import LAYERS
from nnopt.backends.numpy import ops
from nnopt.backends.numpy.modules import ACTIVATIONS
from nnopt.backends.numpy.ops import Op
from nnopt.backends.numpy.ops.activations import LEAKY_RELU
from nnopt.backends.numpy.ops.linear_units import ELU

MODULES = [import_module(f"{ops.__name__}.{file.name}") for file in iter_modules(ops.__path__)]
OPERATIONS: dict[str, tuple[Any, Op]] = {
    name: (module, op)
    for module in MODULES
    for name, op in vars(module).items()
    if isinstance(op, Op) and op.forward.__module__ == module.__name__
}
"""Name of each operation -> its module and the operation."""


@dataclass(frozen=True)
class Activation:
    """An operation without parameters, and the same function of PyTorch."""

    op: Op
    torch: Callable[[Tensor], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    has_kink: bool = False  # at zero


TORCH_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "softplus": lambda x: F.softplus(x, threshold=40),
    "mish": F.mish,
    "hard_swish": F.hardswish,
}
"""Name of an activation without arguments -> function of PyTorch."""

WITH_KINK = {"relu", "selu"}
"""Activations whose derivative is not continuous at zero."""

ACTIVATION_CASES: dict[str, Activation] = {
    "leaky_relu": Activation(
        LEAKY_RELU, lambda x: F.leaky_relu(x, 0.2), {"slope": 0.2}, has_kink=True
    ),
    "elu": Activation(ELU, F.elu, {"alpha": 1.0}),
    "elu, alpha": Activation(ELU, lambda x: F.elu(x, 0.3), {"alpha": 0.3}, has_kink=True),
    **{
        name: Activation(ACTIVATIONS[LAYERS[name]], function, has_kink=name in WITH_KINK)
        for name, function in TORCH_FUNCTIONS.items()
    },
}
"""All activations without parameters."""
