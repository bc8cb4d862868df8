"""The architecture of a whole network, with the shapes of all arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nnopt.architecture.inference import InferredLayer, Layer, Shape, format_shape, infer_layers
from nnopt.architecture.layers import Residual
from nnopt.errors import ConfigError
from nnopt.schema import TorchvisionConfig

MAX_PARAMETERS = 2_000_000_000
BYTES_PER_PARAMETER = 16  # weight, gradient and two optimizer states in float32


@dataclass(frozen=True)
class Architecture:
    """A network that turns a sample of ``input_shape`` into one output per class."""

    input_shape: Shape
    classes: int
    layers: tuple[InferredLayer, ...]

    def walk(self) -> Iterator[InferredLayer]:
        """Iterate over all layers, including inner layers, in the order of computation."""
        for layer in self.layers:
            yield from layer.walk()

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all trained arrays by full name, such as ``dense1.weight``."""
        return {f"{x.name}.{key}": s for x in self.walk() for key, s in x.parameters.items()}

    def statistic_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all untrained arrays, such as ``batch_norm1.running_mean``."""
        return {f"{x.name}.{key}": s for x in self.walk() for key, s in x.statistics.items()}

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    @property
    def flops_per_sample(self) -> int:
        """FLOPs of the forward pass of one sample."""
        return sum(layer.flops for layer in self.layers)

    @property
    def output_layer(self) -> InferredLayer:
        """The layer that returns the logits: the last dense or convolutional layer."""
        return [layer for layer in self.walk() if _has_weight(layer)][-1]

    @property
    def weights(self) -> list[str]:
        """Full names of the matrices and kernels, in the order of computation."""
        return [name for name, shape in self.parameter_shapes().items() if is_weight(name, shape)]


@dataclass(frozen=True)
class ModuleArchitecture(Architecture):
    """A network that torchvision defines and only PyTorch can build.

    ``layers`` describes the modules by name, for tables, statistics and plots. The network is built
    from ``model`` (``backends.torch.modules.build_module``), and torchvision draws the initial
    weights (``backends.models``).
    """

    model: TorchvisionConfig
    free_parameters: dict[str, Shape]  # trained arrays outside of layers, such as "class_token"
    flops: int  # in the forward pass of a sample, including operations between the layers

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all trained arrays by full name."""
        return self.free_parameters | super().parameter_shapes()

    @property
    def flops_per_sample(self) -> int:
        """FLOPs of the forward pass of one sample."""
        return self.flops


def is_penalized(shape: Shape, decay_norm_and_bias: bool) -> bool:
    """Return whether L1, L2 and weight decay act on a parameter of shape ``shape``.

    Biases, norm parameters and slopes of PReLU, which have one axis, are exempt unless
    ``decay_norm_and_bias``.
    """
    return decay_norm_and_bias or len(shape) > 1


def is_weight(name: str, shape: Shape) -> bool:
    """Return whether a parameter is a matrix or kernel that multiplies the input of a layer.

    Other arrays of torchvision's networks can have several axes too, such as position embeddings.
    """
    return name.endswith("weight") and len(shape) > 1


def _has_weight(layer: InferredLayer) -> bool:
    return len(layer.parameters.get("weight", ())) > 1


def infer_shapes(
    layers: Sequence[Layer], input_shape: Shape, classes: int, stochastic_depth: float = 0.0
) -> Architecture:
    """Infer the shapes of all layers and arrays of a network.

    ``stochastic_depth`` is the probability of skipping the last residual branch.

    Raises:
        ConfigError: A layer does not accept its input, the last layer does not return one number
            per class, or the network is too large.
    """
    inferred = infer_layers(layers, input_shape, classes)
    every = [layer for x in inferred for layer in x.walk()]
    if not any(map(_has_weight, every)):
        raise ConfigError("architecture.layers: needs at least one dense or conv2d layer")
    last = inferred[-1]
    if last.output_shape != (classes,):
        raise ConfigError(
            f"architecture: the last layer, {last.name}, has {format_shape(last.output_shape)} "
            f"outputs per sample, but there are {classes} classes; end with "
            f"{'flatten and ' * (len(last.output_shape) > 1)}{{dense: classes}}"
        )
    if stochastic_depth:
        blocks = sum(isinstance(layer.record, Residual) for layer in every)
        rates = (stochastic_depth * (i + 1) / blocks for i in range(blocks))
        inferred = _with_skip_probabilities(inferred, rates)
    architecture = Architecture(input_shape, classes, inferred)
    if (count := architecture.parameter_count) > MAX_PARAMETERS:
        raise ConfigError(
            f"architecture: {count:,} parameters need {count * BYTES_PER_PARAMETER / 1e9:,.0f} GB "
            f"to train; at most {MAX_PARAMETERS:,} are allowed"
        )
    return architecture


def _with_skip_probabilities(
    layers: tuple[InferredLayer, ...], rates: Iterator[float]
) -> tuple[InferredLayer, ...]:
    """Return the layers, with ``rates`` as the skip probabilities of the residual branches.

    Later branches are skipped more often ("linear decay", Huang et al. 2016, section 3). The rates
    are in the order of ``walk``: an outer branch comes before the branches inside it.
    """
    return tuple(
        replace(  # the order of the arguments matters: it is the order of ``walk``
            layer,
            skip_probability=next(rates),
            inner=_with_skip_probabilities(layer.inner, rates),
            shortcut=_with_skip_probabilities(layer.shortcut, rates),
        )
        if isinstance(layer.record, Residual)
        else layer
        for layer in layers
    )
