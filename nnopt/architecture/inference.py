"""What one layer makes of its input: output shape, parameters and FLOPs, or why it cannot take it.

Shapes are of one sample, without the batch axis: (D,) or (C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnopt.architecture.layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    SpatialDropout,
    Tanh,
)
from nnopt.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Inferred:
    """What follows from a layer's record and its input's shape; see ``PlacedLayer``."""

    output_shape: Shape
    flops: int = 0
    parameters: dict[str, Shape] = field(default_factory=dict)
    statistics: dict[str, Shape] = field(default_factory=dict)


def infer(record: Layer, name: str, shape: Shape, classes: int) -> Inferred:
    """Output shape, FLOPs and arrays of any layer but a residual one.

    Raises ConfigError naming the layer and the two numbers that do not go together.
    """
    size = math.prod(shape)
    match record:
        case Dense():
            return _dense(record, name, shape, classes)
        case Conv2d():
            return _conv2d(record, name, shape, classes)
        case MaxPool2d() | AvgPool2d():
            return _pool2d(record, name, shape)
        case GlobalAvgPool():
            _need_images(name, shape)
            return Inferred(shape[:1], size)  # as many additions
        case Flatten():
            return Inferred((size,))
        case BatchNorm() | LayerNorm() | GroupNorm() | InstanceNorm():
            return _norm(record, name, shape)
        case SpatialDropout():
            _need_images(name, shape)
            return Inferred(shape, size)
        case ReLU() | LeakyReLU() | Dropout():
            return Inferred(shape, size)
        case Tanh() | Sigmoid() | SiLU() | GELU():
            return Inferred(shape, 8 * size)  # an exponential counts as a handful of operations
    raise TypeError(f"no shape rule for {type(record).__name__}")


def show(shape: Sequence[int]) -> str:
    """As people write it: 3x32x32."""
    return "x".join(map(str, shape))


def _dense(record: Dense, name: str, shape: Shape, classes: int) -> Inferred:
    if len(shape) != 1:
        raise ConfigError(
            f"layer {name}: takes flat samples (D,), but its input is {show(shape)}; "
            "put 'flatten' before it"
        )
    units = classes if record.units == "classes" else record.units
    parameters: dict[str, Shape] = {"weight": (units, *shape)}
    if record.bias:
        parameters["bias"] = (units,)
    flops = 2 * units * shape[0] + (units if record.bias else 0)
    return Inferred((units,), flops, parameters)


def _conv2d(record: Conv2d, name: str, shape: Shape, classes: int) -> Inferred:
    """Each output number is a scalar product of C / groups · kernel² numbers."""
    _need_images(name, shape)
    inputs, *image = shape
    outputs = classes if record.channels == "classes" else record.channels
    kernel, pad, groups = record.kernel, record.pad, record.groups
    if record.padding == "same" and kernel % 2 == 0:
        raise ConfigError(
            f"layer {name}: padding 'same' adds as much on every side and needs an odd kernel, got "
            f"{kernel}; set its padding to a number"
        )
    for channels, kind in ((inputs, "input"), (outputs, "output")):
        _need_divisible(name, channels, f"{kind} channels", groups)
    if kernel > min(image) + 2 * pad:
        raise ConfigError(
            f"layer {name}: its kernel of {kernel}x{kernel} is larger than its input of "
            f"{show(image)} with a padding of {pad}, {show([n + 2 * pad for n in image])}"
        )
    output = (outputs, *_windows(image, kernel, record.stride, pad))
    weight = (outputs, inputs // groups, kernel, kernel)
    parameters: dict[str, Shape] = {} if record.frozen else {"weight": weight}
    if record.bias:
        parameters["bias"] = (outputs,)
    flops = math.prod(output) * (2 * math.prod(weight[1:]) + (1 if record.bias else 0))
    return Inferred(output, flops, parameters, {"weight": weight} if record.frozen else {})


def _pool2d(record: MaxPool2d | AvgPool2d, name: str, shape: Shape) -> Inferred:
    """Each output number is the largest, or the mean, of size² numbers."""
    _need_images(name, shape)
    size, pad = record.size, record.padding
    if 2 * pad > size:
        raise ConfigError(
            f"layer {name}: its padding of {pad} is more than half of its window of {size}x{size}; "
            f"at most {size // 2} is allowed"
        )
    output = (shape[0], *_windows(shape[1:], size, record.step, pad))
    if 0 in output:
        raise ConfigError(
            f"layer {name}: its window of {size}x{size} is larger than its input of "
            f"{show(shape[1:])}{f' with a padding of {pad}' if pad else ''}, which leaves "
            f"{show(output[1:])}; take a pool out, or a dataset of larger images"
        )
    return Inferred(output, math.prod(output) * size**2)


def _windows(image: Sequence[int], window: int, stride: int, pad: int) -> list[int]:
    """How many windows fit along each side; what is left over at the end is not looked at."""
    return [max((n + 2 * pad - window) // stride + 1, 0) for n in image]


def _norm(
    record: BatchNorm | LayerNorm | GroupNorm | InstanceNorm, name: str, shape: Shape
) -> Inferred:
    """One scale and shift for each feature, or for each channel of images."""
    channels = shape[:1]
    arrays = {"weight": channels, "bias": channels}
    size = math.prod(shape)
    if isinstance(record, BatchNorm):
        return Inferred(
            shape, 4 * size, arrays, {"running_mean": channels, "running_var": channels}
        )
    groups = 1
    if isinstance(record, GroupNorm | InstanceNorm):
        _need_images(name, shape)
        groups = record.groups if isinstance(record, GroupNorm) else shape[0]
        _need_divisible(name, shape[0], "channels", groups)
    if size == groups:
        what = f"{show(shape)} is" if groups == 1 else f"{show(shape)} in {groups} groups is"
        each = "" if groups == 1 else " in each"
        larger = "image is larger" if len(shape) == 3 else "sample has more features"
        raise ConfigError(
            f"layer {name}: its input of {what} one number{each}, which normalization turns into "
            f"0; put it where the {larger}"
        )
    return Inferred(shape, 8 * size, arrays)


def _need_images(name: str, shape: Shape) -> None:
    if len(shape) != 3:
        raise ConfigError(
            f"layer {name}: takes images (C, H, W), but its input is flat, {show(shape)}; choose a "
            "dataset of images, or put the layer before what flattens them"
        )


def _need_divisible(name: str, channels: int, what: str, groups: int) -> None:
    if channels % groups:
        raise ConfigError(
            f"layer {name}: its {channels} {what} cannot be divided into {groups} groups"
        )
