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
from nnopt.errors import ConfigError, suggest
from nnopt.io.atomic_files import write_arrays, write_text
from nnopt.pruning.masks import kept_count
from nnopt.pruning.schedule import schedule_problems
from nnopt.pruning.structured import kept_units, removable_units
from nnopt.pruning.unit_pruner import UnitPruner, prunable_units
from nnopt.pruning.weight_pruner import WeightPruner, prunable_weights
from nnopt.random import generator
from nnopt.schema import Config, NoPruningConfig, UnitPruningConfig, WeightPruningConfig
from nnopt.training.state import Length

PRUNING_METRICS = ("sparsity", "compression_ratio", "theoretical_speedup")
"""Keys of the results that are also metrics of the run."""

MASKS, ARCHITECTURE = "masks.npz", "architecture.yaml"


def pruning_problems(
    config: Config, architecture: Architecture, length: Length | None
) -> Iterator[str]:
    """Yield the reasons why ``config.pruning`` does not fit the network or the training.

    ``length`` is None if it is not known before the data files are read.
    """
    pruning = config.pruning
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
    if length is not None:
        yield from schedule_problems(pruning, length.epochs)


def _weight_problems(pruning: WeightPruningConfig, architecture: Architecture) -> Iterator[str]:
    shapes = architecture.parameter_shapes()
    weights = prunable_weights(pruning, architecture.weights)
    if not weights:
        yield (
            f"pruning.name = {pruning.name!r} has no weights to prune, because the weights of all "
            "layers are left out; set pruning.first_layer=true or pruning.last_layer=true"
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
        _, reasons = removable_units(architecture)
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
    if pruning.criterion == "batch_norm":
        for each in units:
            if each.norm is None:
                yield (
                    f"pruning.criterion = 'batch_norm' needs a batch norm after {each.layer}; set "
                    "regularizer.norm=batch or another criterion, or leave the layer out with "
                    "pruning.exclude"
                )


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
    pruner: WeightPruner | UnitPruner, config: Config, architecture: Architecture
) -> dict[str, Any]:
    """Return the results of pruning for ``summary.json``.

    ``architecture`` is the network before pruning. FLOPs are those of the forward pass of a sample;
    the products with pruned weights are left out. The theoretical speed-up is the ratio of the
    FLOPs. A program that multiplies by zeros is not faster.
    """
    assert not isinstance(config.pruning, NoPruningConfig)
    dense, flops = architecture.parameter_count, architecture.flops_per_sample
    if isinstance(pruner, UnitPruner):
        masks: Mapping[str, NDArray[np.bool_]] = pruner.kept
        parameters = pruner.architecture.parameter_count
        remaining = pruner.architecture.flops_per_sample
    else:
        masks = {name.removesuffix(".weight"): mask for name, mask in pruner.masks.items()}
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
        "prunings": [asdict(record) for record in pruner.records],
    }


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
