"""Structured pruning: units of dense layers and channels of convolutions are removed.

The result is a smaller network. Its layers have the same order, kinds and names. A unit is removed
with its incoming weights (a row of the layer's weight, and its bias), the parameters and running
statistics of the norms that follow, and its outgoing weights (columns of the next weight).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer, Layer
from nnopt.architecture.layers import Conv2d, Dense, Flatten, Residual
from nnopt.architecture.network import Architecture
from nnopt.pruning.units import Arrays, Mask


def smaller_layers(architecture: Architecture, kept: Mapping[str, Mask]) -> tuple[Layer, ...]:
    """Return the layer records of the smaller network, which has only the kept units.

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
    return {name: part.of(arrays[name]) for name, part in _parts(architecture, kept).items()}


def smaller_state(
    architecture: Architecture, kept: Mapping[str, Mask], state: Arrays
) -> dict[str, NDArray[Any]]:
    """Return the remaining part of ``Network.state``, without the average of the weights.

    The state of the optimizer contains arrays with the shapes of the parameters.
    """
    parts = _parts(architecture, kept)
    shapes = architecture.parameter_shapes() | architecture.statistic_shapes()
    smaller = {}
    for key, array in state.items():
        name = key.rpartition("/")[2]
        if not key.startswith("average/"):
            has_units = array.shape == shapes.get(name)
            smaller[key] = parts[name].of(array) if has_units else array
    return smaller


@dataclass(frozen=True)
class _Part:
    """The remaining part of an array: a mask of its first axis, and possibly of its second."""

    units: Mask
    inputs: Mask | None = None

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of the part."""
        part = array[self.units]
        return part if self.inputs is None else part[:, self.inputs]


def _parts(architecture: Architecture, kept: Mapping[str, Mask]) -> dict[str, _Part]:
    """Return the remaining part of each parameter and running statistic."""
    parts: dict[str, _Part] = {}
    _add_parts(architecture.layers, np.ones(architecture.input_shape[0], bool), kept, parts)
    return parts


def _add_parts(
    layers: Sequence[InferredLayer],
    present: Mask,
    kept: Mapping[str, Mask],
    parts: dict[str, _Part],
) -> Mask:
    """Add the parts of the arrays of consecutive layers to ``parts``.

    ``present`` is a mask of the units that the first layer reads. Return the mask of the units that
    the last layer returns.
    """
    for layer in layers:
        inputs = None
        match layer.record:
            case Dense() | Conv2d():
                is_grouped = isinstance(layer.record, Conv2d) and layer.record.groups > 1
                inputs = None if is_grouped else present  # grouped channels are all kept
                present = kept.get(layer.name, np.ones(layer.output_shape[0], bool))
            case Residual():
                branch = _add_parts(layer.inner, present, kept, parts)
                _add_parts(layer.shortcut, present, kept, parts)
                present = branch
            case Flatten():
                present = np.repeat(present, layer.output_shape[0] // len(present))
        for key, shape in (layer.parameters | layer.statistics).items():
            # One slope of PReLU can be shared by all units.
            units = present if shape[0] == layer.output_shape[0] else np.ones(shape[0], bool)
            parts[f"{layer.name}.{key}"] = _Part(units, inputs if key == "weight" else None)
    return present
