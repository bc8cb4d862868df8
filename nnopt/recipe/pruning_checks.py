"""Checks of pruning before training: the network, and the run with which training starts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nnopt.architecture.network import Architecture
from nnopt.errors import ConfigError, suggest
from nnopt.io.paths import given_path
from nnopt.pruning.masks import kept_count
from nnopt.pruning.unit_pruner import prunable_units
from nnopt.pruning.units import kept_units, removable_units
from nnopt.pruning.weight_pruner import prunable_weights
from nnopt.recipe.trained_model import read_arrays, shape_problems, shapes_of
from nnopt.results.run_folder import check_done, check_run
from nnopt.results.weights import Arrays
from nnopt.schema import (
    NoPruningConfig,
    PruningVariant,
    UnitPruningConfig,
    WeightPruningConfig,
)


def pruning_problems(pruning: PruningVariant, architecture: Architecture) -> Iterator[str]:
    """Yield the reasons why the configured pruning does not fit the network."""
    if isinstance(pruning, NoPruningConfig):
        return
    layers = [name.removesuffix(".weight") for name in architecture.weights]
    for name in pruning.exclude:
        if name not in layers:
            yield f"pruning.exclude contains the unknown layer {name!r}; {suggest(name, layers)}"
    if isinstance(pruning, WeightPruningConfig):
        yield from _weight_problems(pruning, architecture)
    else:
        yield from _unit_problems(pruning, architecture)


def _weight_problems(pruning: WeightPruningConfig, architecture: Architecture) -> Iterator[str]:
    shapes = architecture.parameter_shapes()
    weights = prunable_weights(pruning, architecture.weights)
    if not weights:
        yield (
            f"pruning.name = {pruning.name!r} has no weights to prune, because all layers are "
            "excluded; set pruning.first_layer=true, pruning.last_layer=true or a shorter "
            "pruning.exclude"
        )
    total = sum(math.prod(shapes[name]) for name in weights)
    if pruning.scope == "global" and kept_count(total, pruning.sparsity) < len(weights):
        yield (
            f"pruning.sparsity = {pruning.sparsity} keeps {kept_count(total, pruning.sparsity)} "
            f"of {total:,} weights, so one of the {len(weights)} layers would have none; set at "
            f"most {_below(1 - len(weights) / total)}"
        )
    for name in weights if pruning.scope == "layer" else ():
        size = math.prod(shapes[name])
        if not kept_count(size, pruning.sparsity):
            yield (
                f"pruning.sparsity = {pruning.sparsity} with pruning.scope = 'layer' leaves none "
                f"of the {size:,} weights of {name.removesuffix('.weight')}; set at most "
                f"{_below(1 - 1 / size)}, or leave the layer out with pruning.exclude"
            )


def _below(sparsity: float) -> str:
    """Return a sparsity as text, rounded down to eight digits."""
    return f"{math.floor(sparsity * 1e8) / 1e8:.8g}"


def _unit_problems(pruning: UnitPruningConfig, architecture: Architecture) -> Iterator[str]:
    try:
        _, reasons = removable_units(architecture, pruning.residual)
    except ConfigError as error:
        yield from error.problems
        return
    units = prunable_units(pruning, architecture)
    if not units:
        fixed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        is_added = not pruning.residual and "are added in" in fixed
        advice = "set pruning.residual=true" if is_added else "choose another architecture"
        yield f"pruning.name = 'structured' finds no units that can be removed ({fixed}); {advice}"
    elif pruning.sparsity and all(
        kept_units(x.count, pruning.sparsity, pruning.multiple_of) == x.count for x in units
    ):
        yield (
            f"pruning.sparsity = {pruning.sparsity:g} with pruning.multiple_of = "
            f"{pruning.multiple_of} removes no unit; set a larger sparsity or a smaller multiple"
        )
    for name in pruning.exclude:
        if name in reasons:
            yield (
                f"pruning.exclude contains {name!r}, which has no effect: the units of this layer "
                f"are kept, because {reasons[name]}; remove the name"
            )
    if pruning.residual and not any(x.inner for x in architecture.walk()):
        yield (
            "pruning.residual = true has no effect, because the network has no residual layer; set "
            "pruning.residual=false"
        )
    for each in units if pruning.criterion == "batch_norm" else ():
        for layer, norm in zip(each.layers, each.norms, strict=True):
            if norm is None:
                yield (
                    f"pruning.criterion = 'batch_norm' needs a batch norm after {layer}; set "
                    "regularizer.norm=batch or another criterion, or leave the layer out with "
                    "pruning.exclude"
                )


def trained_weights(pruning: PruningVariant, architecture: Architecture) -> Arrays:
    """Return the best weights of the run ``pruning.from``; {} if the key is null.

    Raises:
        ConfigError: The folder is not that of a trained run, or its network has other arrays.
        ModelError: The weights or their description are damaged.
        DataError: The summary is damaged.
    """
    if isinstance(pruning, NoPruningConfig) or pruning.from_ is None:
        return {}
    folder = given_path(pruning.from_, "pruning.from")
    given = f"pruning.from = {pruning.from_!r}"
    check_run(folder, given)
    check_done(folder, given)
    arrays = read_arrays(folder)
    if problems := shape_problems(arrays, shapes_of(architecture)):
        raise ConfigError(f"{given} has another network: {'; '.join(problems.values())}")
    return arrays
