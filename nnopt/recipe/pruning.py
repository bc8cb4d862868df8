"""Pruning in a run: its checks before training, its results, and the file of the masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer
from nnopt.architecture.network import Architecture
from nnopt.backends.models import initial_arrays
from nnopt.backends.protocol import Network
from nnopt.data.dataset import Dataset
from nnopt.errors import suggest
from nnopt.io.atomic_files import write_arrays
from nnopt.pruning.masks import kept_count
from nnopt.pruning.pruner import Pruner, prunable_weights
from nnopt.pruning.schedule import schedule_problems
from nnopt.random import generator
from nnopt.schema import Config, WeightPruningConfig
from nnopt.training.state import Length

MASKS = "masks.npz"


def pruning_problems(
    config: Config, architecture: Architecture, length: Length | None
) -> Iterator[str]:
    """Yield the reasons why ``config.pruning`` does not fit the network or the training.

    ``length`` is None if it is not known before the data files are read.
    """
    pruning = config.pruning
    if not isinstance(pruning, WeightPruningConfig):
        return
    layers = [name.removesuffix(".weight") for name in architecture.weights]
    for name in pruning.exclude:
        if name not in layers:
            yield f"pruning.exclude contains the unknown layer {name!r}; {suggest(name, layers)}"
    shapes = architecture.parameter_shapes()
    weights = prunable_weights(pruning, architecture.weights)
    if not weights:
        yield (
            f"pruning.name = {pruning.name!r} has nothing to prune: the weights of all layers, "
            f"{', '.join(layers)}, are left out; set pruning.first_layer=true or "
            "pruning.last_layer=true"
        )
    for name in weights if pruning.scope == "layer" else ():
        size = math.prod(shapes[name])
        if not kept_count(size, pruning.sparsity):
            yield (
                f"pruning.sparsity = {pruning.sparsity:g} with pruning.scope = 'layer' leaves none "
                f"of the {size:,} weights of {name.removesuffix('.weight')}; set at most "
                f"{1 - 1 / size:.6g}, or leave the layer out with pruning.exclude"
            )
    if length is not None:
        yield from schedule_problems(pruning, length.epochs)


def build_pruner(
    config: Config, architecture: Architecture, dataset: Dataset, network: Network, length: Length
) -> Pruner | None:
    """Return the pruner of a run, or None if the configuration prunes nothing."""
    if not isinstance(config.pruning, WeightPruningConfig):
        return None

    def new_weights() -> Mapping[str, NDArray[np.floating]]:
        seed = int(generator(config.seed, "pruning/new weights").integers(2**62))
        return initial_arrays(architecture, config.initializer, seed, dataset)

    return Pruner(network, config, length.epochs, length.steps_per_epoch, new_weights)


def pruning_results(pruner: Pruner, architecture: Architecture) -> dict[str, Any]:
    """Return the results of pruning for ``summary.json``.

    FLOPs are those of the forward pass of a sample; the products with pruned weights are left out.
    The theoretical speed-up is the ratio of the FLOPs. A program that multiplies by zeros is not
    faster.
    """
    masks, total = pruner.masks, architecture.parameter_count
    pruned = sum(int(np.count_nonzero(~mask)) for mask in masks.values())
    flops = architecture.flops_per_sample
    remaining = flops - sum(
        _product_flops(layer, int(np.count_nonzero(~masks[f"{layer.name}.weight"])))
        for layer in architecture.walk()
        if f"{layer.name}.weight" in masks
    )
    return {
        "requested": pruner.requested_sparsity,
        "sparsity": pruner.sparsity,
        "sparsity_of_all_parameters": pruned / total,
        "prunable": sum(mask.size for mask in masks.values()),
        "kept": sum(int(np.count_nonzero(mask)) for mask in masks.values()),
        "compression_ratio": total / (total - pruned),
        "flops_dense": flops,
        "flops_remaining": remaining,
        "theoretical_speedup": flops / remaining,
        "kept_by_layer": {
            name.removesuffix(".weight"): float(np.mean(mask)) for name, mask in masks.items()
        },
        "prunings": [asdict(record) for record in pruner.records],
    }


def write_masks(pruner: Pruner, directory: Path) -> None:
    """Write the masks as packed bits, 8 weights in a byte, and their shapes. Raises OutputError."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, mask in pruner.masks.items():
        arrays[name] = np.packbits(mask)
        arrays[f"{name}.shape"] = np.array(mask.shape)
    write_arrays(directory / MASKS, arrays)


def _product_flops(layer: InferredLayer, weights: int) -> int:
    """Return the FLOPs of the products with this number of weights, for one sample."""
    positions = math.prod(layer.output_shape[1:])
    return 2 * weights * positions
