"""Pruning in a run: its results and its files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.architecture.parse import layer_items
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.protocol import Network
from nnopt.backends.thread_choice import threads_for
from nnopt.config.point import to_yaml
from nnopt.data.dataset import Dataset
from nnopt.io.atomic_files import write_arrays, write_text
from nnopt.io.own_files import ARCHITECTURE, MASKS
from nnopt.pruning.pruner import Pruner
from nnopt.pruning.unit_pruner import UnitPruner
from nnopt.pruning.weight_pruner import WeightPruner
from nnopt.random import generator
from nnopt.results.weights import MAX_COMPRESSED_BYTES
from nnopt.schema import (
    Config,
    NoPruningConfig,
    UnitPruningConfig,
    WeightPruningConfig,
)
from nnopt.training.length import Length

PRUNING_METRICS = ("sparsity", "compression_ratio", "theoretical_speedup")
"""Keys of the results that are also metrics of the run."""


def build_pruner(
    config: Config, architecture: Architecture, dataset: Dataset, network: Network, length: Length
) -> WeightPruner | UnitPruner | None:
    """Return the pruner of a run, or None if the configuration prunes nothing."""
    backend = load_backend(config.backend.name)
    threads = threads_for(architecture, config, backend.default_threads()).count
    fixed = replace(config, backend=replace(config.backend, threads=threads))

    def new_weights(architecture: Architecture) -> Mapping[str, NDArray[np.floating]]:
        seed = int(generator(config.seed, "pruning/new weights").integers(2**62))
        return initial_arrays(architecture, config.initializer, seed, dataset)

    def build(architecture: Architecture, arrays: Mapping[str, NDArray[Any]]) -> Network:
        smaller = backend.build_network(architecture, fixed)
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
    best epoch. FLOPs are those of the forward pass of a sample, without the products with pruned
    weights. The theoretical speed-up is the ratio of the FLOPs before and after pruning.
    """
    assert not isinstance(config.pruning, NoPruningConfig)
    dense, flops = architecture.parameter_count, architecture.flops_per_sample
    masks = pruner.masks_by_layer
    if isinstance(pruner, UnitPruner):
        parameters = pruner.architecture.parameter_count
        remaining: int | None = pruner.architecture.flops_per_sample
    else:
        pruned = {name: int(np.count_nonzero(~mask)) for name, mask in masks.items()}
        parameters = dense - sum(pruned.values())
        remaining = _flops_without(pruned, architecture)
    return {
        "requested": config.pruning.sparsity,
        "sparsity": pruner.sparsity,
        "sparsity_of_all_parameters": 1 - parameters / dense,
        "compression_ratio": dense / parameters,
        "flops_before": flops,
        "flops_after": remaining,
        "theoretical_speedup": flops / remaining if remaining else None,
        "kept_by_layer": {name: float(np.mean(mask)) for name, mask in masks.items()},
        "not_pruned": _not_pruned(pruner, architecture),
        "validation_accuracy": {
            "before": pruner.records[0].accuracy_before if pruner.records else None,
            "pruned": pruner.records[-1].accuracy_after if pruner.records else None,
            "retrained": retrained,
        },
        "prunings": [asdict(record) for record in pruner.records],
    }


def _not_pruned(pruner: Pruner, architecture: Architecture) -> dict[str, str]:
    """Return the layers with weights that are not pruned, and the reason of each."""
    reasons = pruner.obstacles
    layers = (name.removesuffix(".weight") for name in architecture.weights)
    rest = [layer for layer in layers if layer not in pruner.masks_by_layer]
    return {layer: reasons.get(layer, "the configuration excludes it") for layer in rest}


def _flops_without(pruned: Mapping[str, int], architecture: Architecture) -> int | None:
    """Return the FLOPs without the products with pruned weights.

    ``pruned`` maps names of layers to numbers of pruned weights. The result is None if a weight of
    a network of torchvision belongs to no layer, because the FLOPs of its products are not known.
    """
    layers = {layer.name: layer for layer in architecture.walk()}
    if not pruned.keys() <= layers.keys():
        return None
    flops = architecture.flops_per_sample
    for name, count in pruned.items():
        layer = layers[name]
        positions = math.prod(layer.output_shape) // layer.parameters["weight"][0]
        flops -= 2 * count * positions
    return flops


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
