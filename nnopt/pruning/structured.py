"""Structured pruning: units of dense layers and channels of convolutions are removed.

The result is a smaller network. Its layers have the same order, kinds and names. A unit is removed
with its incoming weights (a row of the layer's weight, and its bias), the parameters and running
statistics of the norms that follow, and its outgoing weights (columns of the next weight).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer, Layer
from nnopt.architecture.layers import Conv2d, Dense, Flatten, Residual
from nnopt.architecture.network import Architecture
from nnopt.pruning.units import Arrays, Mask


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
    parts: dict[str, NDArray[Any]] = {}
    _add_parts(architecture.layers, np.ones(architecture.input_shape[0], bool), kept, arrays, parts)
    return parts


def _add_parts(
    layers: Sequence[InferredLayer],
    present: Mask,
    kept: Mapping[str, Mask],
    arrays: Arrays,
    parts: dict[str, NDArray[Any]],
) -> Mask:
    """Add the remaining part of each array of consecutive layers to ``parts``.

    ``present`` is a mask of the units that the first layer reads. Return the mask of the units that
    the last layer returns.
    """
    for layer in layers:
        own = {key: arrays[f"{layer.name}.{key}"] for key in (*layer.parameters, *layer.statistics)}
        match layer.record:
            case Dense() | Conv2d(groups=1):
                before, every = present, np.ones(layer.output_shape[0], bool)
                present = kept.get(layer.name, every)
                own = {key: array[present] for key, array in own.items()}
                own["weight"] = own["weight"][:, before]
            case Conv2d():  # its channels are grouped, so all of them are kept
                present = np.ones(layer.output_shape[0], bool)
            case Residual():
                branch = _add_parts(layer.inner, present, kept, arrays, parts)
                _add_parts(layer.shortcut, present, kept, arrays, parts)
                present = branch
            case Flatten():
                present = np.repeat(present, layer.output_shape[0] // len(present))
            case _:
                own = {key: array[present] for key, array in own.items()}
        parts |= {f"{layer.name}.{key}": array.copy() for key, array in own.items()}
    return present
