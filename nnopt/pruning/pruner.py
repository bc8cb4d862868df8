"""The prunings of one training: when they take place, and their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.protocol import Network
from nnopt.backends.state import check_state
from nnopt.pruning.masks import Masks
from nnopt.pruning.schedule import Pruning, prunings
from nnopt.schema import Config, NoPruningConfig

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PruningRecord:
    """One pruning that has taken place. Accuracies are those of the validation part.

    Attributes:
        step: Number of optimizer steps before the pruning.
        sparsity: Fraction of the prunable weights or units that are pruned afterwards.
        accuracy_before, accuracy_after: Accuracy before and right after the pruning, before any
            further training. None without validation data. A gradual schedule has only the accuracy
            before the first and after the last pruning.
    """

    step: int
    sparsity: float
    accuracy_before: float | None
    accuracy_after: float | None = None


class Pruner(ABC):
    """Prunes the network of a training at the steps of a schedule.

    Args:
        network: The network, with its initial weights.
        config: The configuration of the run.
        epochs: The length of the training.
        steps_per_epoch: The number of steps of an epoch.

    Attributes:
        network: The network of the training. A pruning may replace the network.
        records: The prunings so far.
    """

    def __init__(self, network: Network, config: Config, epochs: int, steps_per_epoch: int) -> None:
        assert not isinstance(config.pruning, NoPruningConfig)
        self.network = network
        self.records: list[PruningRecord] = []
        self._rewind = config.pruning.rewind
        self._prunings = prunings(config.pruning, epochs, steps_per_epoch)
        # A gradual schedule has many prunings, so only the first and the last are evaluated.
        self._is_gradual = getattr(config.pruning, "schedule", None) == "gradual"
        self._rewound_step = self._rewind * steps_per_epoch if isinstance(self._rewind, int) else 0
        self._rewound: Arrays = {}
        self.remember(0)

    @property
    @abstractmethod
    def sparsity(self) -> float:
        """The fraction of the prunable weights or units that are pruned."""

    @property
    @abstractmethod
    def masks_by_layer(self) -> dict[str, NDArray[np.bool_]]:
        """The masks of the weights or units by the name of the layer, True where they are kept."""

    @property
    @abstractmethod
    def _masks(self) -> Masks:
        """The masks of the prunings so far; all True at first."""

    @abstractmethod
    def _apply(self, pruning: Pruning, is_last: bool, gradients: Callable[[], Arrays]) -> None:
        """Prune the network, and set the weights with which the training continues."""

    @abstractmethod
    def _restore(self, masks: Masks) -> None:
        """Prune the network with the masks of a checkpoint. Raises ValueError if one is wrong."""

    @property
    def obstacles(self) -> dict[str, str]:
        """The layers that cannot be pruned, and the reasons."""
        return {}

    @property
    def empty_layers(self) -> list[str]:
        """The names of the layers without a weight."""
        return []

    @property
    def is_final(self) -> bool:
        """Whether no pruning is left, so that the sparsity is final."""
        return len(self.records) == len(self._prunings)

    def due(self, step: int) -> Pruning | None:
        """Return the pruning that is due after ``step`` steps, or None."""
        done = len(self.records)
        if done < len(self._prunings) and self._prunings[done].step == step:
            return self._prunings[done]
        return None

    def remember(self, step: int) -> None:
        """Copy the weights after ``step`` steps if the training returns to them."""
        if self._rewind != "none" and self._rewound_step == step and not self._rewound:
            self._rewound = self.network.arrays()

    def prune(
        self, pruning: Pruning, accuracy: float | None, gradients: Callable[[], Arrays]
    ) -> None:
        """Perform a pruning.

        Args:
            pruning: The pruning that is due.
            accuracy: The accuracy before the pruning; None without validation data.
            gradients: Returns the gradient of the loss for every parameter.
        """
        self._apply(pruning, len(self.records) + 1 == len(self._prunings), gradients)
        self.records.append(PruningRecord(pruning.step, self.sparsity, accuracy))

    @property
    def measures_before(self) -> bool:
        """Whether the accuracy is measured before the next pruning."""
        return not (self._is_gradual and self.records)

    @property
    def awaits_accuracy(self) -> bool:
        """Whether the accuracy right after the last pruning is still to be measured."""
        is_measured = self.is_final or not self._is_gradual
        return bool(self.records) and is_measured and self.records[-1].accuracy_after is None

    def add_accuracy(self, accuracy: float | None) -> None:
        """Record the accuracy right after the last pruning."""
        self.records[-1] = replace(self.records[-1], accuracy_after=accuracy)

    def saved_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of a checkpoint: masks of 0 and 1 ("mask/NAME"), and weights.

        The weights ("rewind/NAME") are those to which later prunings return, unless they are the
        initial weights.
        """
        masks = self._masks if self.records else {}
        rewound = self._rewound if self._rewound_step else {}
        arrays = {f"mask/{name}": mask.view(np.uint8) for name, mask in masks.items()}
        return arrays | {f"rewind/{name}": array for name, array in rewound.items()}

    def load_state(self, records: list[PruningRecord], masks: Arrays, rewound: Arrays) -> None:
        """Restore the records and arrays of a checkpoint. Raises ValueError if one is not valid."""
        if [x.step for x in records] != [x.step for x in self._prunings[: len(records)]]:
            raise ValueError("its prunings are not those of this run")
        if bool(records) is not bool(masks):
            raise ValueError("its masks are missing or unexpected")
        if rewound:
            check_state(self.network.arrays(), rewound)
            self._rewound = rewound
        if masks:
            check_state({name: mask.view(np.uint8) for name, mask in self._masks.items()}, masks)
            if any(mask.max(initial=0) > 1 for mask in masks.values()):
                raise ValueError("a mask contains a number other than 0 and 1")
            self._restore({name: mask.astype(bool) for name, mask in masks.items()})
        self.records = records
