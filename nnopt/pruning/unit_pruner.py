"""Structured pruning in a training: a smaller network takes the place of the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.backends.protocol import Network
from nnopt.pruning.masks import Masks
from nnopt.pruning.pruner import Arrays, Pruner
from nnopt.pruning.schedule import Pruning
from nnopt.pruning.structured import smaller_arrays, smaller_layers, smaller_state
from nnopt.pruning.units import (
    Mask,
    Units,
    highest_units,
    kept_units,
    removable_units,
    unit_scores,
)
from nnopt.schema import Config, UnitPruningConfig


def prunable_units(config: UnitPruningConfig, architecture: Architecture) -> list[Units]:
    """Return the units of the layers that the configuration does not leave out."""
    first = architecture.weights[0].removesuffix(".weight")
    left_out = {*config.exclude, *(() if config.first_layer else (first,))}
    found, _ = removable_units(architecture, config.residual)
    return [units for units in found if left_out.isdisjoint(units.layers)]


class UnitPruner(Pruner):
    """Removes units.

    Args:
        network, config, epochs, steps_per_epoch: As in ``Pruner``.
        architecture: The architecture of the network.
        build: Returns the network of an architecture, with the given weights.
        new_weights: Returns the initial weights of an architecture.

    Attributes:
        architecture: The architecture of the current network.
        kept: The units that are kept, as masks by the name of the layer; all True at first.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        epochs: int,
        steps_per_epoch: int,
        architecture: Architecture,
        build: Callable[[Architecture, Arrays], Network],
        new_weights: Callable[[Architecture], Arrays],
    ) -> None:
        super().__init__(network, config, epochs, steps_per_epoch)
        assert isinstance(config.pruning, UnitPruningConfig)
        self._config = config.pruning
        self._seed = config.seed
        self._stochastic_depth = config.regularizer.stochastic_depth
        self._build, self._new_weights = build, new_weights
        self._units = prunable_units(self._config, architecture)
        self._dense = architecture
        self.architecture = architecture
        self.kept: dict[str, Mask] = {
            name: np.ones(units.count, bool) for units in self._units for name in units.layers
        }

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable units that are removed."""
        count = sum(units.count for units in self._units)
        return 1 - sum(int(np.sum(self.kept[x.layers[0]])) for x in self._units) / count

    @property
    def obstacles(self) -> dict[str, str]:
        """The layers whose units cannot be removed, and the reasons."""
        return removable_units(self._dense, self._config.residual)[1]

    @property
    def masks_by_layer(self) -> dict[str, Mask]:
        """The masks of the units by the name of the layer."""
        return self.kept

    def _apply(self, pruning: Pruning, is_last: bool, gradients: Callable[[], Arrays]) -> None:
        """Choose the units, and build the smaller network with the weights to continue with."""
        config, arrays, state = self._config, self.network.arrays(), self.network.state()
        for units in self._units:
            scores = unit_scores(units, arrays, config.criterion, self._seed)
            count = kept_units(units.count, pruning.sparsity, config.multiple_of)
            mask = highest_units(scores, count)
            self.kept |= dict.fromkeys(units.layers, mask)
        self._use_smaller(self._rewound or arrays)
        if config.control == "new_weights":
            self.network.load(self._new_weights(self.architecture))
        elif not self._rewound:
            self.network.load_state(smaller_state(self._dense, self.kept, state))

    def _use_smaller(self, arrays: Arrays) -> None:
        layers, dense = smaller_layers(self._dense, self.kept), self._dense
        depth = self._stochastic_depth
        self.architecture = infer_shapes(layers, dense.input_shape, dense.classes, depth)
        parts = smaller_arrays(dense, self.kept, arrays)
        self.network = self._build(self.architecture, parts)

    @property
    def _masks(self) -> Masks:
        return self.kept

    def _restore(self, masks: Masks) -> None:
        if not all(mask.any() for mask in masks.values()):
            raise ValueError("a mask keeps no unit")
        for units in self._units:
            if any(not np.array_equal(masks[x], masks[units.layers[0]]) for x in units.layers):
                raise ValueError("layers whose outputs are added have different masks")
        self.kept = masks
        self._use_smaller(self.network.arrays())
