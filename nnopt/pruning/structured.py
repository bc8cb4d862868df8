"""Structured pruning: units of dense layers and channels of convolutions are removed.

The result is a smaller network. Its layers have the same order, kinds and names. A unit is removed
with its incoming weights (a row of the layer's weight, and its bias), the parameters and running
statistics of the norms that follow, and its outgoing weights (columns of the next weight).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer, Layer
from nnopt.architecture.layers import (
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    GroupNorm,
    LayerNorm,
    Residual,
)
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.errors import ConfigError
from nnopt.random import generator

Arrays = Mapping[str, NDArray[Any]]
Mask = NDArray[np.bool_]
Criterion = Literal["l1", "l2", "batch_norm", "random"]


@dataclass(frozen=True)
class Units:
    """Units that can be removed: the outputs of one dense or convolutional layer.

    Attributes:
        layer: Name of the layer.
        count: Number of units or channels.
        norm: Name of the batch norm that follows directly, or None.
    """

    layer: str
    count: int
    norm: str | None


def removable_units(architecture: Architecture) -> tuple[list[Units], dict[str, str]]:
    """Return the units that can be removed, and the reason for every other layer with weights.

    Raises:
        ConfigError: torchvision defines the network.
    """
    if isinstance(architecture, ModuleArchitecture):
        raise ConfigError(
            "pruning.name = 'structured' cannot remove units of a network of torchvision; set "
            "architecture=vgg or another architecture of nnopt"
        )
    found: list[Units] = []
    reasons: dict[str, str] = {}
    for layers, end in _sequences(architecture.layers, "it returns the logits"):
        for index, layer in enumerate(layers):
            if not isinstance(layer.record, Dense | Conv2d):
                continue
            if isinstance(layer.record, Conv2d) and layer.record.frozen:
                reasons[layer.name] = "its weight is not trained"
            elif isinstance(layer.record, Conv2d) and layer.record.groups > 1:
                reasons[layer.name] = "its channels are grouped"
            elif reason := _obstacle(layers[index + 1 :], end):
                reasons[layer.name] = reason
            else:
                after = layers[index + 1]
                norm = after.name if isinstance(after.record, BatchNorm) else None
                found.append(Units(layer.name, layer.output_shape[0], norm))
    return found, reasons


def _sequences(
    layers: Sequence[InferredLayer], end: str
) -> Iterator[tuple[Sequence[InferredLayer], str]]:
    """Yield all sequences of layers, and the reason why their last units cannot be removed."""
    yield layers, end
    for layer in layers:
        added = f"its outputs are added in {layer.name}"
        for inside in (layer.inner, layer.shortcut):
            if inside:
                yield from _sequences(inside, added)


def _obstacle(following: Sequence[InferredLayer], end: str) -> str | None:
    """Return the reason why the units read by these layers cannot be removed, or None."""
    for layer in following:
        match layer.record:
            case Residual():
                return f"its outputs are added in {layer.name}"
            case LayerNorm() | GroupNorm():
                return f"{layer.name} normalizes several of its units together"
            case Conv2d(groups=groups) if groups > 1:
                return f"{layer.name}, which reads its channels, groups them"
            case Dense() | Conv2d():
                return None
    return end


def kept_units(count: int, sparsity: float, multiple_of: int = 1) -> int:
    """Return the number of ``count`` units that are kept: a multiple, or all units.

    It is the multiple nearest to (1 - sparsity) · count, and at least ``multiple_of``. Of two
    multiples at the same distance, it is the even one.
    """
    multiples = max(round((1 - sparsity) * count / multiple_of), 1)
    return min(multiples * multiple_of, count)


def unit_scores(
    units: Units, arrays: Arrays, criterion: Criterion, seed: int
) -> NDArray[np.float64]:
    """Return the scores (units,): the units with the lowest scores are removed.

    ``l1`` and ``l2`` are norms of the incoming weights (Li et al. 2017, section 3.1).
    ``batch_norm`` is the absolute scale of the next batch norm (Liu et al. 2017, section 3).

    Raises:
        ConfigError: The criterion is ``batch_norm``, and no batch norm follows.
    """
    weight = np.asarray(arrays[f"{units.layer}.weight"], np.float64).reshape(units.count, -1)
    match criterion:
        case "l1":
            return np.asarray(np.abs(weight).sum(axis=1))
        case "l2":
            return np.asarray(np.sqrt((weight**2).sum(axis=1)))
        case "random":
            layer = units.layer
            return generator(seed, f"pruning/{layer}").random(units.count)
        case "batch_norm":
            if units.norm is None:
                raise ConfigError(
                    f"pruning.criterion = 'batch_norm' needs a batch norm after {units.layer}; set "
                    "regularizer.norm=batch or pruning.criterion=l2"
                )
            return np.abs(np.asarray(arrays[f"{units.norm}.weight"], np.float64))


def highest_units(scores: NDArray[np.float64], count: int) -> Mask:
    """Return a mask (units,) of the ``count`` highest scores. Of equal scores, the first count."""
    kept = np.zeros(scores.shape, bool)
    kept[np.argsort(-scores, kind="stable")[:count]] = True
    return kept


def smaller_layers(architecture: Architecture, kept: Mapping[str, Mask]) -> tuple[Layer, ...]:
    """Return the records of the network without the units that are not kept.

    ``kept`` maps names of layers from ``removable_units`` to masks (units,). Layers without a mask
    keep all units.
    """
    return _records(architecture.layers, kept)


def _records(layers: Sequence[InferredLayer], kept: Mapping[str, Mask]) -> tuple[Layer, ...]:
    return tuple(_record(layer, kept) for layer in layers)


def _record(layer: InferredLayer, kept: Mapping[str, Mask]) -> Layer:
    record = layer.record
    assert isinstance(record, Layer)
    if isinstance(record, Residual):
        shortcut = _records(layer.shortcut, kept)
        return replace(record, layers=_records(layer.inner, kept), shortcut=shortcut)
    if layer.name in kept:
        count = int(np.count_nonzero(kept[layer.name]))
        changes = {"units" if isinstance(record, Dense) else "channels": count}
        return replace(record, **changes)
    return record


def smaller_arrays(
    architecture: Architecture, kept: Mapping[str, Mask], arrays: Arrays
) -> dict[str, NDArray[Any]]:
    """Return the parameters and running statistics of the network of ``smaller_layers``."""
    return dict(_windows(architecture.layers, kept, arrays))


def _windows(
    layers: Sequence[InferredLayer], kept: Mapping[str, Mask], arrays: Arrays
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and the remaining part of each array of consecutive layers."""
    present = np.ones(layers[0].input_shape[0], bool)  # the units of the current input
    for layer in layers:
        inside = dict(_windows(layer.inner, kept, arrays)) if layer.inner else {}
        inside |= dict(_windows(layer.shortcut, kept, arrays)) if layer.shortcut else {}
        yield from inside.items()
        own = {key: arrays[f"{layer.name}.{key}"] for key in (*layer.parameters, *layer.statistics)}
        if isinstance(layer.record, Dense | Conv2d):
            before, present = present, kept.get(layer.name, np.ones(layer.output_shape[0], bool))
            for key, array in own.items():
                part = array[present]
                is_whole = key != "weight" or len(before) != part.shape[1]  # grouped channels
                yield f"{layer.name}.{key}", part.copy() if is_whole else part[:, before]
        else:
            yield from ((f"{layer.name}.{key}", array[present]) for key, array in own.items())
        if isinstance(layer.record, Flatten):
            present = np.repeat(present, layer.output_shape[0] // len(present))
