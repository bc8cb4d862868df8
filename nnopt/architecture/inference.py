"""Shape inference for one sample, (D,) or (C, H, W): base class of records, inferred layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, dataclass_transform

from nnopt.errors import ConfigError

Shape = tuple[int, ...]


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Layer:
    """A layer record: the arguments of a layer, and a rule for shapes. A record has no arrays.

    Every subclass becomes a frozen dataclass.
    """

    kind: ClassVar[str]  # the name in YAML, and the stem of layer names such as "conv2d1"
    needs_images: ClassVar[bool] = False

    def __init_subclass__(cls, kind: str = "") -> None:
        cls.kind = kind
        dataclass(frozen=True)(cls)

    def infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        """Infer the shapes of output and arrays. ``name`` is the name of the layer in the network.

        Raises:
            ConfigError: The layer does not accept this input shape.
        """
        if self.needs_images and len(shape) != 3:
            raise ConfigError(
                f"layer {name}: needs images (C, H, W), but its input is flat "
                f"({shape[0]} numbers); use an image dataset, or move the layer before the layer "
                "that flattens the images"
            )
        return self._infer(name, shape, classes)

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        raise NotImplementedError

    def initial_value(self, key: str) -> float:
        """Return the initial value of all entries of an array that no initializer draws."""
        return 1.0 if key in ("weight", "running_var") else 0.0


@dataclass(frozen=True)
class ForeignLayer:
    """A layer of another library that has no record in nnopt."""

    kind: str  # the class name of the layer


@dataclass(frozen=True)
class InferredLayer:
    """A layer of a network, with the properties that follow from the record and the input shape.

    ``parameters`` maps the name of each trained array, such as "weight", to its shape.
    ``statistics`` does the same for all other arrays, such as "running_mean" or a frozen weight.
    """

    name: str  # the full name in the network, such as "residual1.conv2d1"
    record: Layer | ForeignLayer
    input_shape: Shape
    output_shape: Shape
    flops: int = 0  # in the forward pass of one sample; a multiply-add counts as two FLOPs
    parameters: dict[str, Shape] = field(default_factory=dict)
    statistics: dict[str, Shape] = field(default_factory=dict)
    inner: tuple[InferredLayer, ...] = ()  # the layers of a residual layer's branch
    shortcut: tuple[InferredLayer, ...] = ()  # the layers of a residual layer's shortcut
    skip_probability: float = 0.0  # the probability that a training sample skips the branch

    def walk(self) -> Iterator[InferredLayer]:
        """Iterate over this layer and the layers inside it, in the order of computation."""
        yield self
        for layer in (*self.inner, *self.shortcut):
            yield from layer.walk()


def infer_layers(
    layers: Iterable[Layer], shape: Shape, classes: int, prefix: str = ""
) -> tuple[InferredLayer, ...]:
    """Infer the shapes of consecutive layers, and number the layers of each kind."""
    counts: Counter[str] = Counter()
    inferred: list[InferredLayer] = []
    names: set[str] = set()
    for record in layers:
        counts[record.kind] += 1
        name = f"{prefix}{record.kind}{counts[record.kind]}"
        if name in names:  # the layer 1 of the kind dense1, and the layer 11 of the kind dense
            raise ConfigError(
                f"layer {name}: two layers have this name; rename the plug-in's layer whose name "
                "ends with a digit"
            )
        names.add(name)
        layer = record.infer(name, shape, classes)
        inferred.append(layer)
        shape = layer.output_shape
    return tuple(inferred)


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as text, such as ``3x32x32``."""
    return "x".join(map(str, shape))


def count_windows(image: Sequence[int], window: int, stride: int, padding: int) -> list[int]:
    """Return the number of complete windows along each side of an image."""
    return [max((n + 2 * padding - window) // stride + 1, 0) for n in image]


def require_divisible(name: str, channels: int, noun: str, groups: int) -> None:
    """Raise ConfigError unless ``channels`` is a multiple of ``groups``."""
    if channels % groups:
        raise ConfigError(
            f"layer {name}: its {channels} {noun} cannot be divided into {groups} groups"
        )
