"""Shape inference: layer records placed one after another, with names, shapes, parameters, FLOPs.

This happens once, before a backend is chosen; both backends build what stands here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nnopt.architecture.layers import (
    GELU,
    LAYER_NAMES,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNorm,
    LeakyReLU,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Tanh,
)
from nnopt.errors import ConfigError

Shape = tuple[int, ...]

LARGEST_PARAMETERS = 2_000_000_000


@dataclass(frozen=True)
class PlacedLayer:
    """A layer in its place: its name in the network, and what follows from its input.

    input_shape, output_shape: of one sample, without the batch axis.
    parameters: trained arrays, "weight" -> shape; statistics: "running_mean" -> shape.
    flops: forward, per sample; a multiplication and an addition count as two.
    inner: the placed layers of a residual branch.
    """

    name: str
    record: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: dict[str, Shape]
    statistics: dict[str, Shape]
    flops: int
    inner: tuple[PlacedLayer, ...] = ()

    def walk(self) -> Iterator[PlacedLayer]:
        """This layer and those inside it, in the order of computation."""
        yield self
        for layer in self.inner:
            yield from layer.walk()


@dataclass(frozen=True)
class Architecture:
    """A whole network: from one sample's shape to one output per class."""

    input_shape: Shape
    classes: int
    layers: tuple[PlacedLayer, ...]

    def walk(self) -> Iterator[PlacedLayer]:
        """Every layer, those inside residual branches too, in the order of computation."""
        for layer in self.layers:
            yield from layer.walk()

    def parameter_shapes(self) -> dict[str, Shape]:
        """Full name ("dense1.weight") -> shape, of all trained arrays."""
        return {f"{x.name}.{key}": s for x in self.walk() for key, s in x.parameters.items()}

    def statistic_shapes(self) -> dict[str, Shape]:
        """Full name ("batch_norm1.running_mean") -> shape, of all running statistics."""
        return {f"{x.name}.{key}": s for x in self.walk() for key, s in x.statistics.items()}

    @property
    def parameter_count(self) -> int:
        """The number of trained numbers."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    @property
    def flops_per_sample(self) -> int:
        """Of one forward pass."""
        return sum(layer.flops for layer in self.layers)

    @property
    def output_layer(self) -> PlacedLayer:
        """The last dense layer: the one that gives the logits."""
        return [layer for layer in self.walk() if isinstance(layer.record, Dense)][-1]


def penalized_shape(shape: Shape, decay_all: bool) -> bool:
    """Do L1, L2 and weight decay act on a parameter of this shape? On weights that multiply, which
    have more than one axis; biases and norm parameters are exempt unless ``decay_all``."""
    return decay_all or len(shape) > 1


def penalized(name: str, decay_all: bool) -> bool:
    """The same of a parameter known by its name."""
    layer, _, key = name.rpartition(".")
    return decay_all or (key == "weight" and "_norm" not in layer.rpartition(".")[2])


def place(layers: Sequence[Layer], input_shape: Shape, classes: int) -> Architecture:
    """Infer every shape.

    Raises ConfigError naming the layer that cannot take its input, or whose output is not one
    number per class.
    """
    counts: Counter[str] = Counter()
    placed = _place_all(layers, input_shape, classes, prefix="", counts=counts)
    if not any(isinstance(layer.record, Dense) for x in placed for layer in x.walk()):
        raise ConfigError("architecture.layers: needs at least one dense layer, has none")
    last = placed[-1]
    if last.output_shape != (classes,):
        raise ConfigError(
            f"architecture: the last layer, {last.name}, gives {_show(last.output_shape)} for each "
            f"sample, but the dataset has {classes} classes; end with {{dense: classes}}"
        )
    architecture = Architecture(input_shape, classes, placed)
    if architecture.parameter_count > LARGEST_PARAMETERS:
        raise ConfigError(
            f"architecture: {architecture.parameter_count:,} parameters need "
            f"{architecture.parameter_count * 16 / 1e9:,.0f} GB to train; at most "
            f"{LARGEST_PARAMETERS:,} are allowed"
        )
    return architecture


def _place_all(
    layers: Sequence[Layer], shape: Shape, classes: int, prefix: str, counts: Counter[str]
) -> tuple[PlacedLayer, ...]:
    placed = []
    for record in layers:
        kind = LAYER_NAMES[type(record)]
        counts[kind] += 1
        layer = _place(record, f"{prefix}{kind}{counts[kind]}", shape, classes)
        placed.append(layer)
        shape = layer.output_shape
    return tuple(placed)


def _place(record: Layer, name: str, shape: Shape, classes: int) -> PlacedLayer:
    size = math.prod(shape)
    output, flops = shape, 0
    parameters: dict[str, Shape] = {}
    statistics: dict[str, Shape] = {}
    inner: tuple[PlacedLayer, ...] = ()
    match record:
        case Dense(units, bias):
            _need_flat(name, shape)
            units = classes if units == "classes" else units
            output = (units,)
            parameters = {"weight": (units, size)} | ({"bias": (units,)} if bias else {})
            flops = 2 * units * size + (units if bias else 0)
        case BatchNorm():
            _need_flat(name, shape)
            parameters = {"weight": shape, "bias": shape}
            statistics = {"running_mean": shape, "running_var": shape}
            flops = 4 * size
        case LayerNorm():
            _need_flat(name, shape)
            parameters = {"weight": shape, "bias": shape}
            flops = 8 * size
        case Flatten():
            output = (size,)
        case Residual(layers):
            inner = _place_all(layers, shape, classes, prefix=f"{name}.", counts=Counter())
            if inner[-1].output_shape != shape:
                raise ConfigError(
                    f"layer {name}: its branch turns {_show(shape)} into "
                    f"{_show(inner[-1].output_shape)}, so the two cannot be added; "
                    f"end the branch with {{dense: {size}}}"
                )
            flops = sum(layer.flops for layer in inner) + size
        case ReLU() | LeakyReLU() | Dropout():
            flops = size
        case Tanh() | Sigmoid() | SiLU() | GELU():
            flops = 8 * size  # an exponential is counted as a handful of operations
    return PlacedLayer(name, record, shape, output, parameters, statistics, flops, inner)


def _need_flat(name: str, shape: Shape) -> None:
    if len(shape) != 1:
        raise ConfigError(
            f"layer {name}: takes flat samples (D,), but its input is {_show(shape)}; "
            "put 'flatten' before it"
        )


def _show(shape: Shape) -> str:
    return "x".join(map(str, shape))
