"""The verb ``describe``: the network a configuration builds, layer by layer."""

from __future__ import annotations

import math

from nnopt.architecture.builders import build
from nnopt.architecture.network import Architecture
from nnopt.compose import compose_words
from nnopt.console import print_table
from nnopt.data.published import PUBLISHED
from nnopt.data.split import chosen_classes
from nnopt.prepare import prepare
from nnopt.schema import Config, ImageConfig

HEADER = ("layer", "output shape", "parameters", "FLOPs")


def _architecture(config: Config) -> Architecture:
    """Published datasets are known well enough to do without their files."""
    dataset = config.dataset
    if not isinstance(dataset, ImageConfig):
        return prepare(config).architecture
    published = PUBLISHED[dataset.name]
    classes = chosen_classes(published.classes, dataset.classes)
    return build(config.architecture, config.regularizer, published.shape, len(classes))


def main(arguments: list[str]) -> int:
    """Print the table of layers. FLOPs are those of one sample's forward pass, a multiplication and
    an addition counted as two. Raises ConfigError or DataError."""
    config = compose_words("describe", "Print the network a configuration builds.", arguments)
    architecture = _architecture(config)
    rows = [("input", "x".join(map(str, architecture.input_shape)), "", "")]
    for layer in architecture.walk():
        count = sum(math.prod(shape) for shape in layer.parameters.values())
        shape = "x".join(map(str, layer.output_shape))
        depth = layer.name.count(".") - layer.name.count(
            ".shortcut."
        )  # one side is beside the other
        indent = "  " * depth
        rows.append((indent + layer.name, shape, f"{count:,}", f"{layer.flops:,}"))
    total = (
        "total",
        "",
        f"{architecture.parameter_count:,}",
        f"{architecture.flops_per_sample:,}",
    )
    print_table(HEADER, [*rows, total], "lrrr")
    return 0
