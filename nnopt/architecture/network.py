"""Shape inference: layer records placed one after another, with names, shapes, parameters, FLOPs.

This happens once, before a backend is chosen; both backends build what stands here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nnopt.architecture.inference import Shape, infer, show
from nnopt.architecture.layers import LAYER_NAMES, Layer, Residual
from nnopt.errors import ConfigError
from nnopt.schema import TorchvisionConfig

LARGEST_PARAMETERS = 2_000_000_000


@dataclass(frozen=True)
class ForeignLayer:
    """A layer of another library's network that nnopt has no record of: the name of its class."""

    kind: str


@dataclass(frozen=True)
class PlacedLayer:
    """A layer in its place: its name in the network, and what follows from its input.

    input_shape, output_shape: of one sample, without the batch axis.
    parameters: trained arrays, "weight" -> shape; statistics: the others, "running_mean" -> shape,
    among them a weight that is frozen.
    flops: forward, per sample; a multiplication and an addition count as two.
    inner, shortcut: the placed layers of a residual layer's branch and of its shortcut; skipped:
    the probability that a sample in training skips the branch.
    """

    name: str
    record: Layer | ForeignLayer
    input_shape: Shape
    output_shape: Shape
    parameters: dict[str, Shape]
    statistics: dict[str, Shape]
    flops: int
    inner: tuple[PlacedLayer, ...] = ()
    shortcut: tuple[PlacedLayer, ...] = ()
    skipped: float = 0.0

    def walk(self) -> Iterator[PlacedLayer]:
        """This layer and those inside it, in the order of computation."""
        yield self
        for layer in (*self.inner, *self.shortcut):
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
        """Full name ("batch_norm1.running_mean") -> shape, of all arrays that are not trained."""
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
        """The last layer with a weight of more than one axis, dense or convolutional: the one that
        gives the logits."""
        return [layer for layer in self.walk() if _multiplies(layer)][-1]

    @property
    def weights(self) -> list[str]:
        """The full names of the matrices and kernels, in order."""
        return [name for name, shape in self.parameter_shapes().items() if is_weight(name, shape)]


@dataclass(frozen=True)
class ModuleArchitecture(Architecture):
    """A network that torchvision defines whole, and that only PyTorch can build.

    ``layers`` say what is in it, named as its modules are, to be shown, measured and drawn like
    those of any other network; but nobody builds from them: ``model`` is what it is made of, and
    its first arrays are drawn as torchvision draws them. So all but the two places that build and
    draw (``backends.torch.modules.build_module``, ``backends.models``) take it for an
    architecture. A record for the whole in place of the layers would have hidden them from tables,
    statistics and pictures; records for all that torchvision's models are made of would be a second
    torchvision.

    loose: trained arrays that lie in no layer, "class_token" -> shape; flops: of the whole, what is
    computed between the layers included.
    """

    model: TorchvisionConfig
    loose: dict[str, Shape]
    flops: int

    def parameter_shapes(self) -> dict[str, Shape]:
        """Full name -> shape, of all trained arrays."""
        return self.loose | super().parameter_shapes()

    @property
    def flops_per_sample(self) -> int:
        """Of one forward pass."""
        return self.flops


def is_penalized(shape: Shape, decay_all: bool) -> bool:
    """Do L1, L2 and weight decay act on a parameter of this shape? On weights that multiply, which
    have more than one axis; biases and norm parameters are exempt unless ``decay_all``."""
    return decay_all or len(shape) > 1


def is_weight(name: str, shape: Shape) -> bool:
    """Is a parameter a matrix or kernel by which a layer multiplies? Other arrays may have several
    axes too, in torchvision's networks: embeddings of positions, tables of biases, scales."""
    return name.endswith("weight") and len(shape) > 1


def _multiplies(layer: PlacedLayer) -> bool:
    return len(layer.parameters.get("weight", ())) > 1


def place(
    layers: Sequence[Layer], input_shape: Shape, classes: int, stochastic_depth: float = 0.0
) -> Architecture:
    """Infer every shape.

    stochastic_depth: the probability of skipping the last residual branch; see ``_skipping``.

    Raises ConfigError naming the layer that cannot take its input, or whose output is not one
    number per class.
    """
    counts: Counter[str] = Counter()
    placed = _place_all(layers, input_shape, classes, prefix="", counts=counts)
    if not any(_multiplies(layer) for x in placed for layer in x.walk()):
        raise ConfigError("architecture.layers: needs at least one dense or conv2d layer, has none")
    last = placed[-1]
    if last.output_shape != (classes,):
        raise ConfigError(
            f"architecture: the last layer, {last.name}, gives {show(last.output_shape)} for each "
            f"sample, but the dataset has {classes} classes; end with {{dense: classes}}"
        )
    if stochastic_depth:
        blocks = sum(isinstance(layer.record, Residual) for x in placed for layer in x.walk())
        placed = _skipping(placed, (stochastic_depth * (i + 1) / blocks for i in range(blocks)))
    architecture = Architecture(input_shape, classes, placed)
    if architecture.parameter_count > LARGEST_PARAMETERS:
        raise ConfigError(
            f"architecture: {architecture.parameter_count:,} parameters need "
            f"{architecture.parameter_count * 16 / 1e9:,.0f} GB to train; at most "
            f"{LARGEST_PARAMETERS:,} are allowed"
        )
    return architecture


def _skipping(layers: tuple[PlacedLayer, ...], rates: Iterator[float]) -> tuple[PlacedLayer, ...]:
    """The same layers, the l-th of L residual ones skipped with the rate p_L l / L (Huang et al.
    2016, section 3, "linear decay"): early features are what all later layers build on.

    They count in the order of ``walk``, an outer one before those inside it.
    """
    return tuple(
        replace(  # in this order
            layer,
            skipped=next(rates),
            inner=_skipping(layer.inner, rates),
            shortcut=_skipping(layer.shortcut, rates),
        )
        if isinstance(layer.record, Residual)
        else layer
        for layer in layers
    )


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
    if isinstance(record, Residual):
        return _place_residual(record, name, shape, classes)
    found = infer(record, name, shape, classes)
    return PlacedLayer(
        name,
        record,
        shape,
        found.output_shape,
        found.parameters,
        found.statistics,
        found.flops,
    )


def _place_residual(record: Residual, name: str, shape: Shape, classes: int) -> PlacedLayer:
    """Both sides count their own layers: residual1.conv2d1 beside residual1.shortcut.conv2d1."""
    inner, shortcut = (
        _place_all(side, shape, classes, prefix=prefix, counts=Counter())
        for side, prefix in ((record.layers, f"{name}."), (record.shortcut, f"{name}.shortcut."))
    )
    output, beside = inner[-1].output_shape, shortcut[-1].output_shape if shortcut else shape
    if output != beside:
        other = f" and its shortcut into {show(beside)}" if shortcut else ""
        if len(output) == len(shape) == 1:
            mend = f"end the branch with {{dense: {beside[0]}}}"
        else:
            mend = "keep the shape, or give it a shortcut of the same channels and strides"
        raise ConfigError(
            f"layer {name}: its branch turns {show(shape)} into {show(output)}{other}, so the two "
            f"cannot be added; {mend}"
        )
    flops = sum(layer.flops for layer in (*inner, *shortcut)) + math.prod(output)
    return PlacedLayer(name, record, shape, output, {}, {}, flops, inner, shortcut)
