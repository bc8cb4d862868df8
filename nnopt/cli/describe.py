"""The verb ``describe``: the network a configuration builds, layer by layer."""

from __future__ import annotations

import math

from nnopt.config.compose import compose_words
from nnopt.recipe.prepare import prepare, prepare_published
from nnopt.schema import ImageConfig
from nnopt.terminal.console import print_table

HEADER = ("layer", "output shape", "parameters", "FLOPs")


def main(arguments: list[str]) -> int:
    """Print the table of layers. FLOPs are those of one sample's forward pass, a multiplication and
    an addition counted as two; ``skipped`` is the rate of stochastic depth. Raises ConfigError or
    DataError, as a run would; published datasets need no files."""
    config = compose_words("describe", "Print the network a configuration builds.", arguments)
    if isinstance(config.dataset, ImageConfig):
        architecture = prepare_published(config, config.dataset)
    else:
        architecture = prepare(config).architecture
    rows = [("input", "x".join(map(str, architecture.input_shape)), "", "")]
    for layer in architecture.walk():
        count = sum(math.prod(shape) for shape in layer.parameters.values())
        shape = "x".join(map(str, layer.output_shape))
        # A shortcut stands beside its branch, so the word in its layers' names is no level.
        depth = layer.name.count(".") - layer.name.count(".shortcut.")
        skipped = f", skipped {layer.skipped:.3g}" if layer.skipped else ""
        name = "  " * depth + layer.name + skipped
        rows.append((name, shape, f"{count:,}", f"{layer.flops:,}"))
    inside = {f"{x.name}.{key}" for x in architecture.walk() for key in x.parameters}
    for name, size in architecture.parameter_shapes().items():
        if name not in inside:  # a torchvision model's own
            rows.append((name, "", f"{math.prod(size):,}", ""))
    total = (
        "total",
        "",
        f"{architecture.parameter_count:,}",
        f"{architecture.flops_per_sample:,}",
    )
    print_table(HEADER, [*rows, total], "lrrr")
    return 0
