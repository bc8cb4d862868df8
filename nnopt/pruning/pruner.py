"""The prunings of one training: when they take place, what they change, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import is_weight
from nnopt.backends.protocol import Network
from nnopt.backends.state import check_state
from nnopt.pruning.criteria import gradient_scores, magnitude_scores, random_scores
from nnopt.pruning.masks import (
    Masks,
    empty_layers,
    global_masks,
    layer_masks,
    shuffled_masks,
    sparsity_of,
)
from nnopt.pruning.schedule import Pruning, first_time, prunings
from nnopt.schema import Config, WeightPruningConfig

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PruningRecord:
    """One pruning that has taken place. Accuracies are those of the validation part.

    Attributes:
        step: Number of optimizer steps before the pruning.
        sparsity: Fraction of the prunable weights that are zero after the pruning.
        accuracy_before, accuracy_after: Accuracy before and right after the pruning, before any
            further training. None without validation data.
    """

    step: int
    sparsity: float
    accuracy_before: float | None
    accuracy_after: float | None = None


def prunable_weights(config: WeightPruningConfig, weights: list[str]) -> list[str]:
    """Return the names of the weights to prune. weights: all weights, in the order of the layers.

    Biases and the parameters of norms are never pruned.
    """
    chosen = weights[0 if config.first_layer else 1 : None if config.last_layer else -1]
    return [name for name in chosen if name.removesuffix(".weight") not in config.exclude]


class Pruner:
    """Prunes the network of a training.

    Args:
        network: The network, with its initial weights.
        config: The configuration of the run, which prunes weights.
        epochs: The length of the training.
        steps_per_epoch: The number of steps of an epoch.
        new_weights: Returns other initial weights, for ``pruning.control=new_weights``.

    Attributes:
        masks: The masks by name; all True before the first pruning.
        records: The prunings so far.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        epochs: int,
        steps_per_epoch: int,
        new_weights: Callable[[], Arrays],
    ) -> None:
        assert isinstance(config.pruning, WeightPruningConfig)
        self._network = network
        self._config = config.pruning
        self._seed = config.seed
        self._new_weights = new_weights
        self._prunings = prunings(self._config, epochs, steps_per_epoch)
        self._first_step = round(first_time(self._config, epochs) * steps_per_epoch)
        arrays = network.arrays()
        trained = network.gradient_arrays()
        weights = [name for name, array in trained.items() if is_weight(name, array.shape)]
        self.masks: Masks = {
            name: np.ones(arrays[name].shape, bool)
            for name in prunable_weights(self._config, weights)
        }
        self.records: list[PruningRecord] = []
        self._rewound: Arrays = arrays if self._config.rewind == "initial" else {}
        self._rewound_step = 0
        if isinstance(self._config.rewind, int):
            self._rewound_step = self._config.rewind * steps_per_epoch

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable weights that are zero."""
        return sparsity_of(self.masks)

    @property
    def requested_sparsity(self) -> float:
        """The value of ``pruning.sparsity``."""
        return self._config.sparsity

    @property
    def is_final(self) -> bool:
        """Whether no pruning is left, so that the sparsity is final."""
        return len(self.records) == len(self._prunings)

    @property
    def restarts_schedule(self) -> bool:
        """Whether the learning rate schedule starts again after each pruning."""
        return self._config.rewind_schedule

    def steps_of_schedule(self, steps: int) -> int:
        """Return the number of steps for which the schedule is made, of ``steps`` in all."""
        return self._first_step or steps if self.restarts_schedule else steps

    def step_of_schedule(self, step: int) -> int:
        """Return the position in the learning rate schedule after ``step`` steps."""
        if not (self.restarts_schedule and self.records):
            return step
        return self._rewound_step + step - self.records[-1].step

    def due(self, step: int) -> Pruning | None:
        """Return the pruning that takes place after ``step`` steps and has not yet, or None."""
        done = len(self.records)
        if done < len(self._prunings) and self._prunings[done].step == step:
            return self._prunings[done]
        return None

    def remember(self, step: int) -> None:
        """Copy the weights if training returns to this step after the prunings."""
        if self._rewound_step == step and self._config.rewind != "none" and not self._rewound:
            self._rewound = self._network.arrays()

    def prune(
        self, pruning: Pruning, accuracy: float | None, gradients: Callable[[], Arrays]
    ) -> None:
        """Perform a pruning.

        Args:
            pruning: The pruning that is due.
            accuracy: The accuracy before the pruning; None without validation data.
            gradients: Returns the gradient of the loss for every parameter.
        """
        config, is_last = self._config, len(self.records) + 1 == len(self._prunings)
        arrays = self._network.arrays()
        weights = {name: arrays[name] for name in self.masks}
        if config.name == "gradient":
            scores = gradient_scores(weights, gradients())
        elif config.name == "random":
            shapes = ((name, mask.shape) for name, mask in self.masks.items())
            scores = random_scores(shapes, self._seed)
        else:
            scores = magnitude_scores(weights)
        choose = global_masks if config.scope == "global" else layer_masks
        self.masks = choose(scores, self.masks, pruning.sparsity)
        if is_last and config.control == "random_mask":
            self.masks = shuffled_masks(self.masks, self._seed)
        if is_last and config.control == "new_weights":
            self._network.restart(self._new_weights())
        elif config.rewind != "none":
            self._network.restart(self._rewound)
        self._network.set_masks(self.masks)
        self.records.append(PruningRecord(pruning.step, self.sparsity, accuracy))

    @property
    def awaits_accuracy(self) -> bool:
        """Whether the accuracy right after the last pruning has not been measured yet."""
        if not self.records:
            return False
        last = self.records[-1]
        return last.accuracy_before is not None and last.accuracy_after is None

    def add_accuracy(self, accuracy: float) -> None:
        """Record the accuracy right after the last pruning."""
        self.records[-1] = replace(self.records[-1], accuracy_after=accuracy)

    @property
    def empty_layers(self) -> list[str]:
        """The names of the layers without a weight."""
        return empty_layers(self.masks)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of a checkpoint: the masks ("mask/NAME") and weights ("rewind/NAME").

        The weights are those to which later prunings return, unless they are the initial weights.
        """
        found: dict[str, NDArray[Any]] = {}
        if self.records:
            found |= {f"mask/{name}": mask.view(np.uint8) for name, mask in self.masks.items()}
        if self._rewound_step:
            found |= {f"rewind/{name}": array for name, array in self._rewound.items()}
        return found

    def load_state(self, records: list[PruningRecord], masks: Arrays, rewound: Arrays) -> None:
        """Restore the records and arrays of a checkpoint. Raises ValueError if one is not valid."""
        if [x.step for x in records] != [x.step for x in self._prunings[: len(records)]]:
            raise ValueError("its prunings are not those of this run")
        if bool(records) is not bool(masks):
            raise ValueError("its masks are missing or unexpected")
        if masks:
            check_state({name: mask.view(np.uint8) for name, mask in self.masks.items()}, masks)
            if any(mask.max(initial=0) > 1 for mask in masks.values()):
                raise ValueError("a mask contains a number other than 0 and 1")
            self.masks = {name: mask.astype(bool) for name, mask in masks.items()}
            self._network.set_masks(self.masks)
        if rewound:
            check_state(self._network.arrays(), rewound)
            self._rewound = rewound
        self.records = records
