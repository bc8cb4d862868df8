"""Units that structured pruning can remove, and their scores.

A unit is an output of a dense layer or a channel of a convolution. A residual layer adds the
outputs of several layers, so a unit of one of these layers can only be removed with the units of
the others that are added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer
from nnopt.architecture.layers import BatchNorm, Conv2d, Dense, GroupNorm, LayerNorm, Residual
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.architecture.plugins import PluginLayer
from nnopt.errors import ConfigError
from nnopt.random import generator

Arrays = Mapping[str, NDArray[Any]]
Mask = NDArray[np.bool_]
Criterion = Literal["l1", "l2", "batch_norm", "random"]


@dataclass
class Units:
    """The units of one layer, or of all layers whose outputs are added.

    Attributes:
        count: Number of units of each layer.
        layers: Names of the layers.
        norms: For each layer, the name of the batch norm that follows directly, or None.
        added_in: Names of the residual layers that add the outputs.
        reason: The reason why no unit can be removed, or None.
    """

    count: int
    layers: list[str]
    norms: list[str | None]
    added_in: list[str] = field(default_factory=list)
    reason: str | None = None

    def keep(self, reason: str) -> None:
        """Record that no unit can be removed. An earlier reason has priority."""
        self.reason = self.reason or reason


def removable_units(
    architecture: Architecture, residual: bool = False
) -> tuple[list[Units], dict[str, str]]:
    """Return the units that can be removed, and the reason for every other layer with weights.

    With ``residual``, units of layers whose outputs are added can be removed together.

    Raises:
        ConfigError: torchvision defines the network.
    """
    if isinstance(architecture, ModuleArchitecture):
        raise ConfigError(
            "pruning.name = 'structured' cannot remove units of a network of torchvision; set "
            "architecture=vgg or another architecture of nnopt"
        )
    found: list[Units] = []
    inputs = Units(architecture.input_shape[0], [], [], reason="its outputs are added to the input")
    _follow(architecture.layers, inputs, found).keep("it returns the logits")
    for units in found:
        if units.added_in and not residual:
            units.keep(f"its outputs are added in {units.added_in[0]}")
    reasons = {name: x.reason for x in found if x.reason for name in x.layers}
    return [units for units in found if units.reason is None], reasons


def _follow(layers: Sequence[InferredLayer], units: Units, found: list[Units]) -> Units:
    """Return the units that the last of some consecutive layers returns.

    ``units`` are those that the first layer reads. The units of the layers are added to ``found``.
    """
    for index, layer in enumerate(layers):
        match layer.record:
            case Dense() | Conv2d():
                if isinstance(layer.record, Conv2d) and layer.record.groups > 1:
                    units.keep(f"{layer.name}, which reads its channels, groups them")
                units = _units_of(layer, layers[index + 1 : index + 2])
                found.append(units)
            case LayerNorm() | GroupNorm():
                units.keep(f"{layer.name} normalizes several of its units together")
            case PluginLayer():
                units.keep(f"{layer.name}, which reads them, is a layer of a plug-in")
                reason = f"{layer.name} is a layer of a plug-in"
                units = Units(layer.output_shape[0], [], [], reason=reason)
            case Residual():
                branch = _follow(layer.inner, units, found)
                other = _follow(layer.shortcut, units, found) if layer.shortcut else units
                if branch is units:  # outer residual layers may add these units again
                    branch, other = other, branch
                units = _added(branch, other, layer.name, found)
    return units


def _units_of(layer: InferredLayer, following: Sequence[InferredLayer]) -> Units:
    """Return the units of a layer. ``following`` is the next layer, if there is one."""
    norm = next((x.name for x in following if isinstance(x.record, BatchNorm)), None)
    units = Units(layer.output_shape[0], [layer.name], [norm])
    if isinstance(layer.record, Conv2d) and layer.record.frozen:
        units.keep("its weight is not trained")
    if isinstance(layer.record, Conv2d) and layer.record.groups > 1:
        units.keep("its channels are grouped")
    return units


def _added(branch: Units, other: Units, residual: str, found: list[Units]) -> Units:
    """Merge the units ``branch`` into ``other``, to which a residual layer adds them.

    Return ``other``.
    """
    for units in (branch, other):
        units.added_in.append(residual)
    if branch is other:
        return other
    if branch.count != other.count or not other.layers:
        reason = other.reason or f"its outputs are added in {residual}"
        for units in (branch, other):
            units.keep(reason)
        return other
    if branch.reason:
        other.keep(branch.reason)
    other.layers += branch.layers
    other.norms += branch.norms
    other.added_in += branch.added_in
    found[:] = [units for units in found if units is not branch]
    return other


def kept_units(count: int, sparsity: float, multiple_of: int = 1) -> int:
    """Return the number of ``count`` units that are kept.

    It is ``multiple_of`` · round((1 - sparsity) · count / ``multiple_of``), but at least
    ``multiple_of`` and at most ``count``. Halves are rounded to even numbers.
    """
    multiples = max(round((1 - sparsity) * count / multiple_of), 1)
    return min(multiples * multiple_of, count)


def unit_scores(
    units: Units, arrays: Arrays, criterion: Criterion, seed: int
) -> NDArray[np.float64]:
    """Return the scores (units,): the units with the lowest scores are removed.

    ``l1`` and ``l2`` are norms of the incoming weights, in all layers whose outputs are added (Li
    et al. 2017, section 3.1). ``batch_norm`` is the absolute scale of the batch norm that follows
    each layer, added up over these layers (Liu et al. 2017, section 3).
    """
    if criterion == "random":
        layer = units.layers[0]
        return generator(seed, f"pruning/{layer}").random(units.count)
    if criterion == "batch_norm":
        scales = [arrays[f"{norm}.weight"] for norm in units.norms]
        return np.asarray(np.abs(np.asarray(scales, np.float64)).sum(axis=0))
    weights = [
        np.asarray(arrays[f"{name}.weight"], np.float64).reshape(units.count, -1)
        for name in units.layers
    ]
    incoming = np.concatenate(weights, axis=1)
    return np.asarray(np.linalg.norm(incoming, 1 if criterion == "l1" else 2, axis=1))


def highest_units(scores: NDArray[np.float64], count: int) -> Mask:
    """Return a mask (units,) of the ``count`` highest scores; of equal scores, the first ones."""
    kept = np.zeros(scores.shape, bool)
    kept[np.argsort(-scores, kind="stable")[:count]] = True
    return kept
