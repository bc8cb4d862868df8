"""``nnopt describe``: the configured network, layer by layer."""

from __future__ import annotations

import math
from typing import Any

from nnopt.architecture.network import Architecture
from nnopt.cli.parsers import add_format, overrides_parser
from nnopt.config.compose import compose_config
from nnopt.io.atomic_files import json_text
from nnopt.recipe.prepare import prepare, prepare_without_data
from nnopt.terminal.console import print_table
from nnopt.terminal.safe_stream import standard_output

HEADER = ("layer", "output shape", "parameters", "FLOPs")


def main(arguments: list[str]) -> int:
    """Print the layers, reading no data files except those of a CSV dataset.

    FLOPs are counted for the forward pass of one sample. A multiplication and an addition are two
    FLOPs. ``skipped`` is the rate of stochastic depth.
    """
    parser = overrides_parser("describe", "Print the layers of the configured network.")
    add_format(parser)
    options = parser.parse_intermixed_args(arguments)
    config = compose_config(options.overrides, options.config_dir)
    architecture = (prepare_without_data(config) or prepare(config)).architecture
    if options.format == "json":
        standard_output().write(json_text(_document(architecture)))
    else:
        _print_table(architecture)
    return 0


def _print_table(architecture: Architecture) -> None:
    rows = [("input", "x".join(map(str, architecture.input_shape)), "", "")]
    for layer in architecture.walk():
        count = sum(math.prod(shape) for shape in layer.parameters.values())
        shape = "x".join(map(str, layer.output_shape))
        # A shortcut is indented like the residual branch, so ".shortcut." adds no depth.
        depth = layer.name.count(".") - layer.name.count(".shortcut.")
        skipped = f", skipped {layer.skip_probability:.3g}" if layer.skip_probability else ""
        name = "  " * depth + layer.name + skipped
        rows.append((name, shape, f"{count:,}", f"{layer.flops:,}"))
    rows += [
        (name, "", f"{math.prod(shape):,}", "")
        for name, shape in _parameters_outside_layers(architecture).items()
    ]
    parameters, flops = architecture.parameter_count, architecture.flops_per_sample
    print_table(HEADER, [*rows, ("total", "", f"{parameters:,}", f"{flops:,}")], "lrrr")


def _document(architecture: Architecture) -> dict[str, Any]:
    """Return the values of the table for JSON."""
    return {
        "input_shape": architecture.input_shape,
        "layers": [
            {
                "name": layer.name,
                "output_shape": layer.output_shape,
                "parameters": sum(math.prod(shape) for shape in layer.parameters.values()),
                "parameter_shapes": layer.parameters,
                "flops": layer.flops,
                "skip_probability": layer.skip_probability,
            }
            for layer in architecture.walk()
        ],
        "other_parameter_shapes": _parameters_outside_layers(architecture),
        "parameters": architecture.parameter_count,
        "flops_per_sample": architecture.flops_per_sample,
    }


def _parameters_outside_layers(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters that belong to no layer, as in torchvision's models."""
    inside = {f"{x.name}.{key}" for x in architecture.walk() for key in x.parameters}
    shapes = architecture.parameter_shapes()
    return {name: shape for name, shape in shapes.items() if name not in inside}
