"""Named architectures: from a few arguments to a list of layer records."""

from __future__ import annotations

from nnopt.architecture.layers import (
    GELU,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNorm,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Tanh,
    parse_layers,
)
from nnopt.architecture.network import Architecture, Shape, place
from nnopt.schema import ArchitectureVariant, LayersConfig, MlpConfig, RegularizerConfig

ACTIVATIONS: dict[str, Layer] = {
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(),
    "gelu": GELU(),
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
    "silu": SiLU(),
}

NORMS: dict[str, tuple[Layer, ...]] = {
    "none": (),
    "batch": (BatchNorm(),),
    "layer": (LayerNorm(),),
}


def mlp(config: MlpConfig, regularizer: RegularizerConfig) -> tuple[Layer, ...]:
    """[dense, norm, activation, dropout] for each hidden size, then dense to the classes.

    A dense layer that batch norm follows has no bias, which the norm would subtract again. Layer
    norm would not: it subtracts one mean over all units, and without a bias the first one would
    see only the direction of a sample, not its length.
    """
    norm, bias = NORMS[regularizer.norm], regularizer.norm != "batch"
    dropout = (Dropout(regularizer.dropout),) if regularizer.dropout else ()
    layers: list[Layer] = [Flatten()]
    for units in config.hidden:
        layers += [Dense(units, bias), *norm, ACTIVATIONS[config.activation], *dropout]
    return (*layers, Dense("classes"))


def build(
    config: ArchitectureVariant, regularizer: RegularizerConfig, input_shape: Shape, classes: int
) -> Architecture:
    """The configured network for samples of ``input_shape`` ((C, H, W) or (D,)).

    Raises ConfigError naming the layer at fault.
    """
    if isinstance(config, LayersConfig):
        layers = parse_layers(config.layers)
    else:
        layers = mlp(config, regularizer)
    if len(input_shape) == 1:  # flat samples need no flattening
        layers = tuple(layer for layer in layers if not isinstance(layer, Flatten))
    return place(layers, input_shape, classes)
