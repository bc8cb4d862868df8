"""Pruning in a run: its checks before training, its results, and its files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.architecture.parse import layer_items
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.protocol import Network
from nnopt.config.point import to_yaml
from nnopt.data.dataset import Dataset
from nnopt.errors import ConfigError, join_problems, suggest
from nnopt.io.atomic_files import write_arrays, write_text
from nnopt.io.own_files import SUMMARY
from nnopt.io.paths import given_path
from nnopt.pruning.masks import kept_count
from nnopt.pruning.pruner import Pruner
from nnopt.pruning.unit_pruner import UnitPruner, prunable_units
from nnopt.pruning.units import kept_units, removable_units
from nnopt.pruning.weight_pruner import WeightPruner, prunable_weights
from nnopt.random import generator
from nnopt.results.collect import read_run
from nnopt.results.weights import MAX_COMPRESSED_BYTES, read_weights
from nnopt.schema import (
    Config,
    NoPruningConfig,
    PruningVariant,
    UnitPruningConfig,
    WeightPruningConfig,
)
from nnopt.training.length import Length

PRUNING_METRICS = ("sparsity", "compression_ratio", "theoretical_speedup")
"""Keys of the results that are also metrics of the run."""

MASKS, ARCHITECTURE, BEST_WEIGHTS = "masks.npz", "architecture.yaml", "model_best.npz"


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
            f"pruning.name = {pruning.name!r} has no weights to prune, because the weights of all "
            "layers are left out; set pruning.first_layer=true or pruning.last_layer=true"
        )
    total = sum(math.prod(shapes[name]) for name in weights)
    if pruning.scope == "global" and kept_count(total, pruning.sparsity) < len(weights):
        yield (
            f"pruning.sparsity = {pruning.sparsity:g} keeps {kept_count(total, pruning.sparsity)} "
            f"of {total:,} weights, so one of the {len(weights)} layers would have none; set at "
            f"most {1 - len(weights) / total:.6g}"
        )
    for name in weights if pruning.scope == "layer" else ():
        size = math.prod(shapes[name])
        if not kept_count(size, pruning.sparsity):
            yield (
                f"pruning.sparsity = {pruning.sparsity:g} with pruning.scope = 'layer' leaves none "
                f"of the {size:,} weights of {name.removesuffix('.weight')}; set at most "
                f"{1 - 1 / size:.6g}, or leave the layer out with pruning.exclude"
            )


def _unit_problems(pruning: UnitPruningConfig, architecture: Architecture) -> Iterator[str]:
    try:
        _, reasons = removable_units(architecture, pruning.residual)
    except ConfigError as error:
        yield from error.problems
        return
    units = prunable_units(pruning, architecture)
    if not units:
        fixed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        yield f"pruning.name = 'structured' finds no units that can be removed ({fixed})"
    elif pruning.sparsity and all(
        kept_units(x.count, pruning.sparsity, pruning.multiple_of) == x.count for x in units
    ):
        yield (
            f"pruning.sparsity = {pruning.sparsity:g} with pruning.multiple_of = "
            f"{pruning.multiple_of} removes no unit; set a larger sparsity or a smaller multiple"
        )
    for each in units if pruning.criterion == "batch_norm" else ():
        for layer, norm in zip(each.layers, each.norms, strict=True):
            if norm is None:
                yield (
                    f"pruning.criterion = 'batch_norm' needs a batch norm after {layer}; set "
                    "regularizer.norm=batch or another criterion, or leave the layer out with "
                    "pruning.exclude"
                )


def trained_weights(
    pruning: PruningVariant, architecture: Architecture
) -> dict[str, NDArray[np.floating]]:
    """Return the best weights of the run ``pruning.from``; {} if the key is null.

    Raises:
        ConfigError: The folder is not that of a run, or its network has other arrays.
        DataError: The summary or the weights are damaged.
    """
    if isinstance(pruning, NoPruningConfig) or pruning.from_ is None:
        return {}
    folder = given_path(pruning.from_, "pruning.from")
    given = f"pruning.from = {pruning.from_!r}"
    if not (folder / SUMMARY).is_file() or not (folder / BEST_WEIGHTS).is_file():
        raise ConfigError(
            f"{given} is not the folder of a trained run: it needs {SUMMARY} and {BEST_WEIGHTS}"
        )
    arrays = read_weights(folder / BEST_WEIGHTS, read_run(folder).metrics.get("parameters"))
    shapes = architecture.parameter_shapes() | architecture.statistic_shapes()
    problems = [f"it has no {name}" for name in shapes if name not in arrays]
    problems += [f"{name} is unexpected" for name in arrays if name not in shapes]
    problems += [
        f"{name} is {arrays[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if problems:
        raise ConfigError(f"{given} has another network: {join_problems(problems, '; ')}")
    return arrays


def build_pruner(
    config: Config, architecture: Architecture, dataset: Dataset, network: Network, length: Length
) -> WeightPruner | UnitPruner | None:
    """Return the pruner of a run, or None if the configuration prunes nothing."""

    def new_weights(architecture: Architecture) -> Mapping[str, NDArray[np.floating]]:
        seed = int(generator(config.seed, "pruning/new weights").integers(2**62))
        return initial_arrays(architecture, config.initializer, seed, dataset)

    def build(architecture: Architecture, arrays: Mapping[str, NDArray[Any]]) -> Network:
        smaller = load_backend(config.backend.name).build_network(architecture, config)
        smaller.load(arrays)
        return smaller

    lengths = length.epochs, length.steps_per_epoch
    match config.pruning:
        case WeightPruningConfig():
            return WeightPruner(network, config, *lengths, lambda: new_weights(architecture))
        case UnitPruningConfig():
            return UnitPruner(network, config, *lengths, architecture, build, new_weights)
    return None


def pruning_results(
    pruner: WeightPruner | UnitPruner,
    config: Config,
    architecture: Architecture,
    retrained: float | None,
) -> dict[str, Any]:
    """Return the results of pruning for ``summary.json``.

    ``architecture`` is the network before pruning, and ``retrained`` the validation accuracy of the
    best epoch. FLOPs are those of the forward pass of a sample;
    the products with pruned weights are left out. The theoretical speed-up is the ratio of the
    FLOPs. A program that multiplies by zeros is not faster.
    """
    assert not isinstance(config.pruning, NoPruningConfig)
    dense, flops = architecture.parameter_count, architecture.flops_per_sample
    masks = pruner.masks_by_layer
    if isinstance(pruner, UnitPruner):
        parameters = pruner.architecture.parameter_count
        remaining = pruner.architecture.flops_per_sample
    else:
        pruned = {name: int(np.count_nonzero(~mask)) for name, mask in masks.items()}
        parameters = dense - sum(pruned.values())
        remaining = flops - sum(
            2 * pruned.get(layer.name, 0) * math.prod(layer.output_shape[1:])
            for layer in architecture.walk()
        )
    return {
        "requested": config.pruning.sparsity,
        "sparsity": pruner.sparsity,
        "sparsity_of_all_parameters": 1 - parameters / dense,
        "compression_ratio": dense / parameters,
        "flops_before": flops,
        "flops_after": remaining,
        "theoretical_speedup": flops / remaining,
        "kept_by_layer": {name: float(np.mean(mask)) for name, mask in masks.items()},
        "validation_accuracy": {
            "before": pruner.records[0].accuracy_before if pruner.records else None,
            "pruned": pruner.records[-1].accuracy_after if pruner.records else None,
            "retrained": retrained,
        },
        "prunings": [asdict(record) for record in pruner.records],
    }


def is_compressed(pruner: Pruner | None, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the weights of a run are compressed: they contain zeros of a pruning."""
    size = sum(array.nbytes for array in arrays.values())
    return isinstance(pruner, WeightPruner) and size <= MAX_COMPRESSED_BYTES


def write_pruning(pruner: WeightPruner | UnitPruner, directory: Path) -> None:
    """Write the masks, or the layers of the smaller network. Raises OutputError.

    ``masks.npz`` contains the bits of each mask in C order, packed into bytes, and its shape.
    ``architecture.yaml`` is a file of the group ``architecture``.
    """
    if isinstance(pruner, UnitPruner):
        records = [layer.record for layer in pruner.architecture.layers]
        content = {"name": "layers", "layers": layer_items(records)}
        write_text(directory / ARCHITECTURE, to_yaml(content))
        return
    arrays: dict[str, NDArray[Any]] = {}
    for name, mask in pruner.masks.items():
        arrays[name] = np.packbits(mask)
        arrays[f"{name}.shape"] = np.array(mask.shape)
    write_arrays(directory / MASKS, arrays)
