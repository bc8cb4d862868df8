"""Layer records: what a network is made of, as data.

An architecture is a list of these small frozen records. They hold no arrays and know no backend:
``nnopt.architecture.network`` infers their shapes, and each backend has its own rendering of them.

In YAML a layer is its name, its name with its one main argument, or its name with all arguments:
``relu``, ``{dense: 64}``, ``{batch_norm: {momentum: 0.05}}``, ``{residual: [{dense: 64}, tanh]}``.

Shapes are those of PyTorch: samples (N, D) or images (N, C, H, W).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from nnopt.errors import ConfigError


@dataclass(frozen=True)
class Dense:
    """y = x Wᵀ + b with W of shape (units, inputs)."""

    units: int | Literal["classes"]
    bias: bool = True


@dataclass(frozen=True)
class Conv2d:
    """Correlate images with a kernel x kernel window for each output channel.

    Weight (channels, C / groups, kernel, kernel): with several groups, each group of output
    channels sees its own group of input channels alone. Padding adds zeros on every side; "same"
    adds kernel // 2 of them, which at stride 1 keeps the size and needs an odd kernel.
    """

    channels: int | Literal["classes"]
    kernel: int = 3
    stride: int = 1
    padding: int | Literal["same"] = "same"
    groups: int = 1
    bias: bool = True

    @property
    def pad(self) -> int:
        """The zeros added on every side, "same" worked out."""
        return self.kernel // 2 if self.padding == "same" else self.padding


@dataclass(frozen=True)
class _Pool2d:
    """One number for each size x size window. No stride is the size."""

    size: int = 2
    stride: int | None = None
    padding: int = 0

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.size if self.stride is None else self.stride


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The largest number of each window; padding never wins."""


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean of each window, in which padding counts as zeros."""


@dataclass(frozen=True)
class GlobalAvgPool:
    """The mean of each channel: (N, C, H, W) to (N, C) (Lin et al. 2014, section 3.2)."""


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
class SpatialDropout:
    """Dropout of whole channels of an image, since neighbouring pixels know of each other (Tompson
    et al. 2015, section 3.2)."""

    rate: float


@dataclass(frozen=True)
class BatchNorm:
    """Normalize each feature over the batch, or each channel over the batch and its positions
    (Ioffe and Szegedy 2015); momentum as in PyTorch:
    running ← (1 - momentum) · running + momentum · batch."""

    momentum: float = 0.1
    epsilon: float = 1e-5


@dataclass(frozen=True)
class LayerNorm:
    """Normalize each sample over its features (Ba et al. 2016); an image over all its channels and
    positions, with one scale and shift for each channel: group norm with one group."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class GroupNorm:
    """Normalize each image over each group of channels and all positions (Wu and He 2018)."""

    groups: int = 8
    epsilon: float = 1e-5


@dataclass(frozen=True)
class InstanceNorm:
    """Normalize each channel of each image over its positions (Ulyanov et al. 2016), with a scale
    and shift for each channel: group norm with a group for each channel."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Flatten:
    """(N, C, H, W) to (N, C·H·W)."""


@dataclass(frozen=True)
class Residual:
    """layers(x) + shortcut(x) (He et al. 2016); an empty shortcut is x itself."""

    layers: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = (
    Dense
    | Conv2d
    | MaxPool2d
    | AvgPool2d
    | GlobalAvgPool
    | ReLU
    | LeakyReLU
    | GELU
    | Tanh
    | Sigmoid
    | SiLU
    | Dropout
    | SpatialDropout
    | BatchNorm
    | LayerNorm
    | GroupNorm
    | InstanceNorm
    | Flatten
    | Residual
)

LAYERS: dict[str, type[Layer]] = {
    "dense": Dense,
    "conv2d": Conv2d,
    "max_pool2d": MaxPool2d,
    "avg_pool2d": AvgPool2d,
    "global_avg_pool": GlobalAvgPool,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "gelu": GELU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "silu": SiLU,
    "dropout": Dropout,
    "spatial_dropout": SpatialDropout,
    "batch_norm": BatchNorm,
    "layer_norm": LayerNorm,
    "group_norm": GroupNorm,
    "instance_norm": InstanceNorm,
    "flatten": Flatten,
    "residual": Residual,
}
"""The name of a layer in YAML -> its record."""

LAYER_NAMES = {record: name for name, record in LAYERS.items()}

_NUMBERS: dict[str, tuple[str, Any]] = {
    "slope": ("in [0, 1)", lambda v: 0 <= v < 1),
    "rate": ("in [0, 1)", lambda v: 0 <= v < 1),
    "momentum": ("in (0, 1]", lambda v: 0 < v <= 1),
    "epsilon": ("above 0", lambda v: 0 < v < float("inf")),
}
"""Arguments that are any number in a range."""

_LEAST = {
    "units": 1,
    "channels": 1,
    "kernel": 1,
    "size": 1,
    "stride": 1,
    "padding": 0,
    "groups": 1,
}
"""Arguments that are a whole number: the least one."""


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
    known, kinds = {f.name: f for f in fields(record)}, get_type_hints(record)
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
            problems += _problems_of_argument(f"{where}.{key}", key, kinds[key], arguments[key])
        elif spec.default is MISSING:
            problems.append(f"{where}: the argument {key!r} is missing")
    if problems:
        raise ConfigError(problems)
    if record is Residual:
        branches = {key: parse_layers(items, f"{where}.{key}") for key, items in arguments.items()}
        return Residual(**branches)
    return record(**arguments)


def _problems_of_argument(where: str, key: str, kind: Any, value: Any) -> list[str]:
    """Type and range of one argument of a layer."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if key in ("layers", "shortcut"):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if is_list and (value or key == "shortcut"):
            return []
        allowed = "a list of layers" if key == "shortcut" else "a list of at least one layer"
    elif key == "bias":
        if isinstance(value, bool):
            return []
        allowed = "true or false"
    elif key in _LEAST:
        words = _words(kind)
        if (is_whole and value >= _LEAST[key]) or value in words:
            return []
        allowed = f"a whole number of at least {_LEAST[key]}"
        allowed += "".join(f", or {'null' if word is None else repr(word)}" for word in words)
    else:
        interval, holds = _NUMBERS[key]
        if (is_whole or isinstance(value, float)) and holds(value):
            return []
        allowed = f"a number {interval}"
    return [f"{where} = {value!r}: needs {allowed}"]


def _words(kind: Any) -> list[str | None]:
    """What may stand for a whole number: ``int | Literal["same"] | None`` -> "same", None."""
    words: list[str | None] = []
    for alternative in get_args(kind):
        if alternative is NoneType:
            words.append(None)
        words += get_args(alternative)
    return words
