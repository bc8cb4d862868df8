"""The verb ``describe``: the network a configuration builds, layer by layer."""

from __future__ import annotations

import math

from nnopt.compose import compose_config
from nnopt.console import print_table
from nnopt.prepare import prepare

HEADER = ("layer", "output shape", "parameters", "FLOPs")


def main(arguments: list[str]) -> int:
    """Print the table of layers. FLOPs are those of one sample's forward pass, a multiplication and
    an addition counted as two. Raises ConfigError or DataError."""
    architecture = prepare(compose_config(arguments)).architecture
    rows = [("input", "x".join(map(str, architecture.input_shape)), "", "")]
    for layer in architecture.walk():
        count = sum(math.prod(shape) for shape in layer.parameters.values())
        shape = "x".join(map(str, layer.output_shape))
        indent = "  " * layer.name.count(".")
        rows.append((indent + layer.name, shape, f"{count:,}", f"{layer.flops:,}"))
    total = (
        "total",
        "",
        f"{architecture.parameter_count:,}",
        f"{architecture.flops_per_sample:,}",
    )
    print_table(HEADER, [*rows, total], "lrrr")
    return 0
