"""Pruning of weights: masks of zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import is_weight
from nnopt.backends.protocol import Network
from nnopt.errors import TrainingError
from nnopt.pruning.criteria import gradient_scores, magnitude_scores, random_scores
from nnopt.pruning.masks import (
    Masks,
    empty_layers,
    global_masks,
    layer_masks,
    shuffled_masks,
    sparsity_of,
)
from nnopt.pruning.pruner import Arrays, Pruner
from nnopt.pruning.schedule import Pruning
from nnopt.schema import Config, WeightPruningConfig


def prunable_weights(config: WeightPruningConfig, weights: list[str]) -> list[str]:
    """Return the names of the weights to prune. weights: all weights, in the order of the layers.

    Biases, the parameters of norms and slopes of PReLU are never pruned.
    """
    chosen = weights[0 if config.first_layer else 1 : None if config.last_layer else -1]
    return [name for name in chosen if name.removesuffix(".weight") not in config.exclude]


class WeightPruner(Pruner):
    """Sets weights to zero.

    Args:
        network, config, epochs, steps_per_epoch: As in ``Pruner``.
        new_weights: Returns other initial weights, for ``pruning.control=new_weights``.

    Attributes:
        masks: The masks by name; all True before the first pruning.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        epochs: int,
        steps_per_epoch: int,
        new_weights: Callable[[], Arrays],
    ) -> None:
        super().__init__(network, config, epochs, steps_per_epoch)
        assert isinstance(config.pruning, WeightPruningConfig)
        self._config = config.pruning
        self._seed = config.seed
        self._new_weights = new_weights
        trained = network.gradient_arrays()
        weights = [name for name, array in trained.items() if is_weight(name, array.shape)]
        names = prunable_weights(self._config, weights)
        self.masks: Masks = {name: np.ones(trained[name].shape, bool) for name in names}

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable weights that are zero."""
        return sparsity_of(self.masks)

    @property
    def masks_by_layer(self) -> dict[str, NDArray[np.bool_]]:
        """The masks of the weights by the name of the layer."""
        return {name.removesuffix(".weight"): mask for name, mask in self.masks.items()}

    @property
    def empty_layers(self) -> list[str]:
        """The names of the layers without a weight."""
        return empty_layers(self.masks)

    def _apply(self, pruning: Pruning, is_last: bool, gradients: Callable[[], Arrays]) -> None:
        """Choose masks, set the weights with which training continues, and apply the masks."""
        control = self._config.control if is_last else "none"
        choose = global_masks if self._config.scope == "global" else layer_masks
        self.masks = choose(self._scores(gradients), self.masks, pruning.sparsity)
        if control == "random_mask":
            self.masks = shuffled_masks(self.masks, self._seed)
        if control == "new_weights":
            self.network.restart(self._new_weights())
        elif self._rewound:
            self.network.restart(self._rewound)
        self.network.set_masks(self.masks)

    def _scores(self, gradients: Callable[[], Arrays]) -> dict[str, NDArray[np.float64]]:
        arrays = self.network.arrays()
        weights = {name: arrays[name] for name in self.masks}
        match self._config.name:
            case "magnitude":
                return magnitude_scores(weights)
            case "gradient":
                scores = gradient_scores(weights, gradients())
                if not all(np.isfinite(score).all() for score in scores.values()):
                    raise TrainingError(
                        "pruning.name = 'gradient': the gradient of the loss is not finite; set a "
                        "later pruning.start, a lower optimizer.lr or another criterion"
                    )
                return scores
            case "random":
                shapes = ((name, mask.shape) for name, mask in self.masks.items())
                return random_scores(shapes, self._seed)

    @property
    def _masks(self) -> Masks:
        return self.masks

    def _restore(self, masks: Masks) -> None:
        self.masks = masks
        self.network.set_masks(masks)
