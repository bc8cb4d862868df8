"""Layer records: what a network is made of, as data.

An architecture is a list of these small frozen records. They hold no arrays and know no backend:
``nnopt.architecture.network`` infers their shapes, and each backend has its own rendering of them.

In YAML a layer is its name, its name with its one main argument, or its name with all arguments:
``relu``, ``{dense: 64}``, ``{batch_norm: {momentum: 0.05}}``, ``{residual: [{dense: 64}, tanh]}``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from nnopt.errors import ConfigError


@dataclass(frozen=True)
class Dense:
    """y = x Wᵀ + b with W of shape (units, inputs)."""

    units: int | Literal["classes"]
    bias: bool = True


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class LeakyReLU:
    """x where x > 0, else slope · x (Maas et al. 2013)."""

    slope: float = 0.01


@dataclass(frozen=True)
class GELU:
    """x Φ(x), Φ the normal distribution function, exact (Hendrycks and Gimpel 2016)."""


@dataclass(frozen=True)
class Tanh:
    """tanh x."""


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class SiLU:
    """x · sigmoid(x), also known as swish (Elfwing et al. 2018)."""


@dataclass(frozen=True)
class Dropout:
    """Zero with probability ``rate`` in training, the others scaled by 1 / (1 - rate)."""

    rate: float


@dataclass(frozen=True)
class BatchNorm:
    """Normalize each feature over the batch (Ioffe and Szegedy 2015); momentum as in PyTorch:
    running ← (1 - momentum) · running + momentum · batch."""

    momentum: float = 0.1
    epsilon: float = 1e-5


@dataclass(frozen=True)
class LayerNorm:
    """Normalize each sample over its features (Ba et al. 2016)."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Flatten:
    """(N, C, H, W) to (N, C·H·W)."""


@dataclass(frozen=True)
class Residual:
    """x + layers(x) (He et al. 2016); the inner layers keep the shape."""

    layers: tuple[Layer, ...]


Layer = (
    Dense
    | ReLU
    | LeakyReLU
    | GELU
    | Tanh
    | Sigmoid
    | SiLU
    | Dropout
    | BatchNorm
    | LayerNorm
    | Flatten
    | Residual
)

LAYERS: dict[str, type[Layer]] = {
    "dense": Dense,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "gelu": GELU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "silu": SiLU,
    "dropout": Dropout,
    "batch_norm": BatchNorm,
    "layer_norm": LayerNorm,
    "flatten": Flatten,
    "residual": Residual,
}
"""The name of a layer in YAML -> its record."""

LAYER_NAMES = {record: name for name, record in LAYERS.items()}

_RANGES: dict[str, tuple[str, Any]] = {
    "slope": ("in [0, 1)", lambda v: 0 <= v < 1),
    "rate": ("in [0, 1)", lambda v: 0 <= v < 1),
    "momentum": ("in (0, 1]", lambda v: 0 < v <= 1),
    "epsilon": ("above 0", lambda v: 0 < v < float("inf")),
}


def parse_layers(items: Sequence[Any], where: str = "architecture.layers") -> tuple[Layer, ...]:
    """Read a YAML list of layers.

    Raises ConfigError naming every item that is no layer, or has a wrong argument.
    """
    layers, problems = [], []
    for index, item in enumerate(items):
        try:
            layers.append(_parse_layer(item, f"{where}[{index}]"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tuple(layers)


def _parse_layer(item: Any, where: str) -> Layer:
    name, arguments = item, None
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, arguments),) = item.items()
    if not isinstance(name, str):
        raise ConfigError(f"{where}: {item!r} is no layer; write a name or {{name: arguments}}")
    if name not in LAYERS:
        close = difflib.get_close_matches(name, LAYERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known layers: {', '.join(LAYERS)}"
        raise ConfigError(f"{where}: unknown layer {name!r}; {hint}")
    return _make_layer(LAYERS[name], arguments, f"{where}.{name}")


def _make_layer(record: type[Layer], arguments: Any, where: str) -> Layer:
    """Build one record out of nothing, its main (first) argument, or a mapping of arguments."""
    known = {f.name: f for f in fields(record)}
    if arguments is None:
        arguments = {}
    elif not isinstance(arguments, Mapping):
        if not known:
            raise ConfigError(f"{where}: takes no argument, got {arguments!r}")
        arguments = {next(iter(known)): arguments}
    problems = []
    for key in arguments:
        if key not in known:
            allowed = ", ".join(known) or "none"
            problems.append(f"{where}: unknown argument {key!r}; allowed: {allowed}")
    for key, spec in known.items():
        if key in arguments:
            problems += _problems_of_argument(f"{where}.{key}", key, arguments[key])
        elif spec.default is MISSING:
            problems.append(f"{where}: the argument {key!r} is missing")
    if problems:
        raise ConfigError(problems)
    if record is Residual:
        return Residual(parse_layers(arguments["layers"], f"{where}.layers"))
    return record(**arguments)


def _problems_of_argument(where: str, key: str, value: Any) -> list[str]:
    """Type and range of one argument of a layer."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if key == "units":
        if value == "classes" or (is_whole and value >= 1):
            return []
        return [f"{where} = {value!r}: needs a whole number of at least 1, or 'classes'"]
    if key == "bias":
        return [] if isinstance(value, bool) else [f"{where} = {value!r}: needs true or false"]
    if key == "layers":
        return (
            []
            if isinstance(value, Sequence) and not isinstance(value, str) and value
            else [f"{where} = {value!r}: needs a list of at least one layer"]
        )
    allowed, holds = _RANGES[key]
    if (is_whole or isinstance(value, float)) and holds(value):
        return []
    return [f"{where} = {value!r}: needs a number {allowed}"]
