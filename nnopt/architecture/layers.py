"""Layer records: what a network is made of, as data.

An architecture is a list of these small frozen records. They hold no arrays and know no backend:
``nnopt.architecture.network`` infers their shapes, and each backend has its own rendering of them.
``nnopt.architecture.parse`` reads them from YAML.

Shapes are those of PyTorch: samples (N, D) or images (N, C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    adds kernel // 2 of them, which at stride 1 keeps the size and needs an odd kernel. A frozen
    weight stays as it began, while the bias is trained.
    """

    channels: int | Literal["classes"]
    kernel: int = 3
    stride: int = 1
    padding: int | Literal["same"] = "same"
    groups: int = 1
    bias: bool = True
    frozen: bool = False

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
