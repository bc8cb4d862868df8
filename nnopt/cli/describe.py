"""``nnopt describe``: the configured network, layer by layer."""

from __future__ import annotations

import math

from nnopt.cli.parsers import overrides_parser
from nnopt.config.compose import compose_config
from nnopt.recipe.prepare import prepare, prepare_published
from nnopt.schema import ImageConfig
from nnopt.terminal.console import print_table

HEADER = ("layer", "output shape", "parameters", "FLOPs")


def main(arguments: list[str]) -> int:
    """Print the table of layers, without reading the files of a published dataset.

    FLOPs are counted for the forward pass of one sample. A multiplication and an addition are two
    FLOPs. ``skipped`` is the rate of stochastic depth.
    """
    parser = overrides_parser("describe", "Print the layers of the configured network.")
    options = parser.parse_intermixed_args(arguments)
    config = compose_config(options.overrides, options.config_dir)
    if isinstance(config.dataset, ImageConfig):
        architecture = prepare_published(config, config.dataset)
    else:
        architecture = prepare(config).architecture
    rows = [("input", "x".join(map(str, architecture.input_shape)), "", "")]
    for layer in architecture.walk():
        count = sum(math.prod(shape) for shape in layer.parameters.values())
        shape = "x".join(map(str, layer.output_shape))
        # A shortcut is indented like the residual branch, so ".shortcut." adds no depth.
        depth = layer.name.count(".") - layer.name.count(".shortcut.")
        skipped = f", skipped {layer.skip_probability:.3g}" if layer.skip_probability else ""
        name = "  " * depth + layer.name + skipped
        rows.append((name, shape, f"{count:,}", f"{layer.flops:,}"))
    inside = {f"{x.name}.{key}" for x in architecture.walk() for key in x.parameters}
    rows += [  # parameters outside of layers, as in torchvision's models
        (name, "", f"{math.prod(shape):,}", "")
        for name, shape in architecture.parameter_shapes().items()
        if name not in inside
    ]
    parameters, flops = architecture.parameter_count, architecture.flops_per_sample
    print_table(HEADER, [*rows, ("total", "", f"{parameters:,}", f"{flops:,}")], "lrrr")
    return 0
