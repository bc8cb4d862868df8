"""Layer records: an architecture is a list of these small frozen dataclasses.

A record has the arguments of a layer, with allowed ranges, and a rule for shapes. From a record,
each backend builds a layer. Arguments and shapes are as in PyTorch: (N, D) or (N, C, H, W).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from nnopt.architecture.activations import ELU as ELU
from nnopt.architecture.activations import GELU as GELU
from nnopt.architecture.activations import SELU as SELU
from nnopt.architecture.activations import Elementwise, Epsilon, Rate
from nnopt.architecture.activations import GELUTanh as GELUTanh
from nnopt.architecture.activations import HardSwish as HardSwish
from nnopt.architecture.activations import LeakyReLU as LeakyReLU
from nnopt.architecture.activations import Mish as Mish
from nnopt.architecture.activations import PReLU as PReLU
from nnopt.architecture.activations import ReLU as ReLU
from nnopt.architecture.activations import Sigmoid as Sigmoid
from nnopt.architecture.activations import SiLU as SiLU
from nnopt.architecture.activations import Softplus as Softplus
from nnopt.architecture.activations import Tanh as Tanh
from nnopt.architecture.inference import (
    InferredLayer,
    Layer,
    Shape,
    count_windows,
    format_shape,
    infer_layers,
    require_divisible,
)
from nnopt.errors import ConfigError
from nnopt.schema.range import Range
from nnopt.schema.tables import filled

Size = Annotated[int, Range(minimum=1)]


class Dense(Layer, kind="dense"):
    """y = x Wᵀ + b with W of shape (units, inputs)."""

    units: Annotated[int | Literal["classes"], Range(minimum=1)]
    bias: bool = True

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        if len(shape) != 1:
            raise ConfigError(
                f"layer {name}: needs flat samples (D,), but its input is {format_shape(shape)}; "
                "put 'flatten' before it"
            )
        units = classes if self.units == "classes" else self.units
        bias: dict[str, Shape] = {"bias": (units,)} if self.bias else {}
        flops = units * (2 * shape[0] + self.bias)
        arrays = {"weight": (units, *shape), **bias}
        return InferredLayer(name, self, shape, (units,), flops, arrays)


class Conv2d(Layer, kind="conv2d"):
    """Cross-correlation of images with a kernel x kernel window for each output channel.

    The weight has the shape (channels, C / groups, kernel, kernel). Padding adds zeros on every
    side; "same" adds kernel // 2. A frozen weight is not trained, but the bias is.
    """

    needs_images = True
    channels: Annotated[int | Literal["classes"], Range(minimum=1)]
    kernel: Size = 3
    stride: Size = 1
    padding: Annotated[int | Literal["same"], Range(minimum=0)] = "same"
    groups: Size = 1
    bias: bool = True
    frozen: bool = False

    @property
    def padding_size(self) -> int:
        """Number of zeros added on every side."""
        return self.kernel // 2 if self.padding == "same" else self.padding

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        inputs, *image = shape
        outputs = classes if self.channels == "classes" else self.channels
        kernel, padding = self.kernel, self.padding_size
        if self.padding == "same" and kernel % 2 == 0:
            raise ConfigError(
                f"layer {name}: padding 'same' needs an odd kernel, got {kernel}; set its padding "
                "to a number"
            )
        for channels, side in ((inputs, "input"), (outputs, "output")):
            require_divisible(name, channels, f"{side} channels", self.groups)
        if kernel > min(image) + 2 * padding:
            padded = format_shape(image) + (f" with a padding of {padding}" if padding else "")
            raise ConfigError(
                f"layer {name}: its kernel of {kernel}x{kernel} is larger than its input of "
                f"{padded}; set a smaller kernel, or use larger images"
            )
        output = (outputs, *count_windows(image, kernel, self.stride, padding))
        weight: dict[str, Shape] = {"weight": (outputs, inputs // self.groups, kernel, kernel)}
        flops = math.prod(output) * (2 * math.prod(weight["weight"][1:]) + self.bias)
        bias: dict[str, Shape] = {"bias": (outputs,)} if self.bias else {}
        trained, frozen = (bias, weight) if self.frozen else ({**weight, **bias}, {})
        return InferredLayer(name, self, shape, output, flops, trained, frozen)


class _Pool2d(Layer):
    """A pooling layer: one number for each size x size window. The default stride is ``size``."""

    needs_images = True
    size: Size = 2
    stride: Annotated[int | None, Range(minimum=1)] = None
    padding: Annotated[int, Range(minimum=0)] = 0

    @property
    def stride_size(self) -> int:
        """Distance between windows, in pixels."""
        return self.size if self.stride is None else self.stride

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        size, padding = self.size, self.padding
        if 2 * padding > size:
            raise ConfigError(
                f"layer {name}: its padding of {padding} is more than half of its window of "
                f"{size}x{size}; at most {size // 2} is allowed"
            )
        output = (shape[0], *count_windows(shape[1:], size, self.stride_size, padding))
        if 0 in output:
            image = format_shape(shape[1:]) + (f" with a padding of {padding}" if padding else "")
            raise ConfigError(
                f"layer {name}: its window of {size}x{size} is larger than its input of {image}, "
                f"so its output is {format_shape(output[1:])}; remove a pool, or use larger images"
            )
        return InferredLayer(name, self, shape, output, math.prod(output) * size**2)


class MaxPool2d(_Pool2d, kind="max_pool2d"):
    """Maximum of each window. Positions in the padding are ignored."""


class AvgPool2d(_Pool2d, kind="avg_pool2d"):
    """Mean of each window. Positions in the padding count as zeros."""


class GlobalAvgPool(Layer, kind="global_avg_pool"):
    """Mean of each channel: (N, C, H, W) to (N, C) (Lin et al. 2014, section 3.2)."""

    needs_images = True

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        return InferredLayer(name, self, shape, shape[:1], math.prod(shape))


class Dropout(Elementwise, kind="dropout"):
    """In training, set numbers to 0 with probability ``rate``; scale the rest by 1 / (1 - rate)."""

    rate: Rate


class SpatialDropout(Elementwise, kind="spatial_dropout"):
    """Dropout of whole channels of images (Tompson et al. 2015, section 3.2)."""

    needs_images = True
    rate: Rate


class BatchNorm(Layer, kind="batch_norm"):
    """Normalization of each feature or channel over the batch (Ioffe and Szegedy 2015).

    The momentum is defined as in PyTorch: running ← (1 - momentum) · running + momentum · batch.
    """

    momentum: Annotated[float, Range(above=0, maximum=1)] = 0.1
    epsilon: Epsilon = 1e-5

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        channels = shape[:1]
        arrays = {"weight": channels, "bias": channels}
        moments = {"running_mean": channels, "running_var": channels}
        return InferredLayer(name, self, shape, shape, 4 * math.prod(shape), arrays, moments)


class _SampleNorm(Layer):
    """Normalization of each sample separately, with one scale and shift for each channel."""

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        groups, size = self.count_groups(name, shape), math.prod(shape)
        if size == groups:
            in_groups = "" if groups == 1 else f" in {groups} groups"
            each = "" if groups == 1 else " per group"
            raise ConfigError(
                f"layer {name}: its input of {format_shape(shape)}{in_groups} has one number{each},"
                " and normalization would return 0; put the layer where its input is larger"
            )
        parameters = {"weight": shape[:1], "bias": shape[:1]}
        return InferredLayer(name, self, shape, shape, 8 * size, parameters)

    def count_groups(self, name: str, shape: Shape) -> int:
        """Return the number of groups that are normalized separately."""
        return 1


class LayerNorm(_SampleNorm, kind="layer_norm"):
    """Normalization of each sample over all numbers of the sample (Ba et al. 2016)."""

    epsilon: Epsilon = 1e-5


class GroupNorm(_SampleNorm, kind="group_norm"):
    """Normalization of each image over each group of channels (Wu and He 2018)."""

    needs_images = True
    groups: Size = 8
    epsilon: Epsilon = 1e-5

    def count_groups(self, name: str, shape: Shape) -> int:
        """Return ``groups``. Raises ConfigError unless it divides the number of channels."""
        require_divisible(name, shape[0], "channels", self.groups)
        return self.groups


class InstanceNorm(_SampleNorm, kind="instance_norm"):
    """Normalization of each channel of each image over its positions (Ulyanov et al. 2016)."""

    needs_images = True
    epsilon: Epsilon = 1e-5

    def count_groups(self, name: str, shape: Shape) -> int:
        """Return the number of channels."""
        return shape[0]


class Flatten(Layer, kind="flatten"):
    """Reshapes (N, C, H, W) to (N, C·H·W)."""

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        return InferredLayer(name, self, shape, (math.prod(shape),))


class Residual(Layer, kind="residual"):
    """Returns layers(x) + shortcut(x) (He et al. 2016). An empty shortcut is the identity."""

    layers: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        branch = infer_layers(self.layers, shape, classes, f"{name}.")
        shortcut = infer_layers(self.shortcut, shape, classes, f"{name}.shortcut.")
        output, other = branch[-1].output_shape, shortcut[-1].output_shape if shortcut else shape
        if output != other:
            with_shortcut = f" and its shortcut into {format_shape(other)}" if shortcut else ""
            if len(output) == len(shape) == 1:
                remedy = f"end the branch with {{dense: {other[0]}}}"
            else:
                remedy = "keep the shape, or give the shortcut the same channels and strides"
            raise ConfigError(
                f"layer {name}: its branch turns {format_shape(shape)} into {format_shape(output)}"
                f"{with_shortcut}, so the two cannot be added; {remedy}"
            )
        flops = sum(layer.flops for layer in (*branch, *shortcut)) + math.prod(output)
        return InferredLayer(name, self, shape, output, flops, inner=branch, shortcut=shortcut)


_RECORDS: tuple[type[Layer], ...] = (
    *(Dense, Conv2d, MaxPool2d, AvgPool2d, GlobalAvgPool),
    *(ReLU, LeakyReLU, PReLU, ELU, SELU, GELU, GELUTanh, Tanh, Sigmoid, SiLU, Softplus),
    *(Mish, HardSwish, Dropout, SpatialDropout),
    *(BatchNorm, LayerNorm, GroupNorm, InstanceNorm, Flatten, Residual),
)

LAYERS: dict[str, type[Layer]] = filled("layer", {record.kind: record for record in _RECORDS})
"""Name of a layer in YAML -> class of the record."""
