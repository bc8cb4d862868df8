"""The state of one training, which can be saved between any two steps and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.protocol import Network, StepRecord
from nnopt.backends.state import check_state
from nnopt.pruning.pruner import Pruner, PruningRecord
from nnopt.results.checkpoint_file import TRAINING, Content, read_records, typed
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config, NoPruningConfig
from nnopt.training.averaging import Averaging
from nnopt.training.early_stopping import EarlyStopping
from nnopt.training.evaluation import Evaluation
from nnopt.training.length import Length
from nnopt.training.planned_rates import planned_rates
from nnopt.training.schedules import Plateau
from nnopt.training.target import Target

Arrays = Mapping[str, NDArray[Any]]

VECTORS = {"learning_rates": np.float64, "sizes": np.int64, "losses": np.float64}
"""Vectors of a checkpoint: all learning rates, and the current epoch's batch sizes and losses."""

NUMBERS: Mapping[str, Any] = {
    "last_averaged": int,
    "best_averaged": int,
    "best_epoch": int,
    "best_validation_loss": float | None,
    "best_validation_accuracy": float | None,
    "stopped_early": bool,
    "diverged_at": int | None,
    "not_finite_layer": str | None,
    "validated_step": int,
}
"""Attributes of TrainingState that a checkpoint contains as they are -> their types."""

EPOCH_NUMBERS: Mapping[str, Any] = {
    "seconds": float,
    "correct": int,
    "gradient_norm": float,
    "not_finite": str | None,
}
"""Values of the current epoch in a checkpoint -> their types."""


@dataclass
class UnfinishedEpoch:
    """The steps of the current epoch so far.

    Attributes:
        sizes: Number of samples of each step.
        records: The results that have been read from the network.
        seconds: Time spent on the epoch in earlier processes.
    """

    sizes: list[int] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def losses(self) -> NDArray[np.float64]:
        """Loss of each step that has been read, (steps,)."""
        return np.concatenate([np.zeros(0), *(record.losses for record in self.records)])

    def add(self, record: StepRecord) -> None:
        """Add the record of the latest steps. If there are none, the last gradient norm is kept."""
        if not record.count and self.records:
            last = self.records[-1]
            record = StepRecord(
                record.losses,
                0,
                0,
                last.gradient_norm,
                record.not_finite,
                record.state_is_finite,
            )
        self.records.append(record)


class TrainingState:
    """The state of one training: position, rules that depend on earlier steps, metrics, weights.

    A network and a TrainingState determine all later steps, because the batches and random numbers
    of a step depend only on the seed and the position.

    Attributes:
        last: Parameters and statistics after the last epoch with finite weights. With averaging,
            ``last`` and ``best`` are the averages.
        best: Parameters and statistics at the best validation metric; equal to ``last`` while no
            validation metric was finite.
        last_averaged, best_averaged: Number of epochs in the SWA average; 0 before it starts.
        best_epoch: Epoch of ``best``; 0 if there is validation data, but no metric was finite.
        history: Metrics of the completed epochs.
        learning_rates: Learning rate of every step.
        epoch: The steps of the current epoch.
        validated_step: The step of the last evaluation within an epoch.
        diverged_at: The first step, counted from 1, whose loss is not finite, or the step of the
            check that found weights or optimizer state not finite; None without divergence.
        not_finite_layer: First layer whose outputs are not finite at that step, if known.
        stopping, averaging, plateau, target, pruner: Rules that depend on earlier steps. ``pruner``
            is None if nothing is pruned.
        updates: Full name of a weight -> update ratio of the latest measured step.
        network: The network that is trained.
    """

    def __init__(
        self, network: Network, config: Config, length: Length, pruner: Pruner | None = None
    ) -> None:
        """Start at step 0 with the weights of the network. pruner: None if nothing is pruned."""
        self.last: Arrays = network.arrays()
        self.best: Arrays = self.last
        self.last_averaged = self.best_averaged = self.best_epoch = self.validated_step = 0
        self.best_validation_loss: float | None = None
        self.best_validation_accuracy: float | None = None
        self.history: list[EpochRow] = []
        self.learning_rates: list[float] = []
        self.epoch = UnfinishedEpoch()
        self.stopped_early = False
        self.diverged_at: int | None = None
        self.not_finite_layer: str | None = None
        self.length = length
        self.stopping = EarlyStopping(config.early_stopping)
        self.averaging = Averaging(network, config, length.epochs)
        self.plateau = Plateau(config.schedule)
        self.target = Target(config.target)
        self.updates: Mapping[str, float | None] = {}
        self.pruner = pruner
        self._schedule = planned_rates(config, length)
        self._config = config
        self.network = network

    @property
    def step(self) -> int:
        """The number of steps so far."""
        return len(self.learning_rates)

    @property
    def is_finished(self) -> bool:
        """Whether no step and no evaluation is left."""
        is_complete = self.step == self.length.steps and not self.epoch.sizes
        return is_complete or self.stopped_early or self.diverged_at is not None

    def has_ended_early(self) -> bool:
        """Return whether early stopping ends the training after the completed epochs."""
        epoch = len(self.history)
        return epoch > 0 and not self.epoch.sizes and self.should_stop(epoch)

    def should_stop(self, epoch: int) -> bool:
        """Return whether early stopping ends the training. It waits until the sparsity is final."""
        return self.is_final and self.stopping.should_stop(epoch, self.step)

    @property
    def is_final(self) -> bool:
        """Whether no pruning is left. Only epochs after the last pruning give the best weights."""
        return self.pruner is None or self.pruner.is_final

    def next_learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        return self._schedule(self.step) * self.plateau.factor

    def _use(self, network: Network) -> None:
        """Continue with a network that a pruning has changed or replaced."""
        self.network = network
        self.last = self.best = network.arrays()
        self.averaging.restart(network, self.step)

    def after_pruning(self) -> None:
        """Start the average again, and the rules that compare with earlier epochs."""
        assert self.pruner is not None
        self._use(self.pruner.network)
        self.plateau.forget()
        pruning = self._config.pruning
        if not isinstance(pruning, NoPruningConfig) and pruning.rewind_schedule:
            self.plateau = Plateau(self._config.schedule)
        if self.pruner.is_final:
            self.stopping.start(len(self.history), self.step)

    def add_step(self, lr: float, size: int) -> None:
        """Record a step with this learning rate and number of samples, and update the average."""
        self.learning_rates.append(lr)
        self.epoch.sizes.append(size)
        self.averaging.after_step(self.step)

    def check_steps(self) -> bool:
        """Read the records of the latest steps, and return whether training has not diverged.

        It has diverged if a loss or the state of the optimizer is not finite.
        """
        if self.diverged_at is not None:
            return False
        self.epoch.add(self.network.read_steps())
        records, losses = self.epoch.records, self.epoch.losses
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size:
            self.diverged_at = self.step - len(losses) + int(wrong[0]) + 1
            self.not_finite_layer = next(filter(None, (x.not_finite for x in records)), None)
        elif not records[-1].state_is_finite:
            self.diverged_at = self.step
        return self.diverged_at is None

    def add_evaluation(self, result: Evaluation, epoch: int) -> None:
        """Copy the weights if this result of the validation data is the best one so far.

        Results before the last pruning do not count.
        """
        if not self.is_final:
            return
        value = self.stopping.monitored_value(result.loss, result.accuracy)
        if self.stopping.update(value, epoch, self.step):
            self.best, self.best_averaged = self.network.arrays(), self.averaging.epochs
            self.best_epoch = epoch
            self.best_validation_loss = result.loss
            self.best_validation_accuracy = result.accuracy

    def finish_epoch(self, row: EpochRow, arrays: Arrays) -> None:
        """Add the metrics of an epoch. ``arrays`` are the weights that were evaluated after it."""
        if self.is_final:
            self.target.after_epoch(row, self.history)
        self.history.append(row)
        self.last, self.last_averaged = arrays, self.averaging.epochs
        if row.validation_loss is None or row.validation_accuracy is None:
            self.best_epoch = row.epoch
        else:
            loss, accuracy = row.validation_loss, row.validation_accuracy
            self.plateau.update(self.stopping.monitored_value(loss, accuracy))
        if row.validation_loss is None or self.best_epoch == 0:  # the last weights count as best
            self.best, self.best_averaged = arrays, self.last_averaged
        self.epoch = UnfinishedEpoch()

    def save(self, seconds: float) -> Content:
        """Return this state and the network's state. seconds: the time spent on the epoch."""
        if self.epoch.sizes:
            self.epoch.add(self.network.read_steps())
        records = self.epoch.records
        values = {
            "numbers": {name: getattr(self, name) for name in NUMBERS},
            "history": [astuple(row) for row in self.history],
            "stopping": self.stopping.state(),
            "plateau": self.plateau.state(),
            "averaging": self.averaging.state(),
            "target": self.target.state(),
            "updates": dict(self.updates),
            "prunings": [],
            "epoch": {
                "seconds": seconds,
                "correct": sum(record.correct for record in records),
                "gradient_norm": records[-1].gradient_norm if records else 0.0,
                "not_finite": next(filter(None, (x.not_finite for x in records)), None),
            },
        }
        arrays: dict[str, NDArray[Any]] = {
            "learning_rates": np.array(self.learning_rates, np.float64),
            "sizes": np.array(self.epoch.sizes, np.int64),
            "losses": self.epoch.losses,
        }
        weights: dict[str, Arrays] = {"last": self.last, "network": self.network.state()}
        if self.best is not self.last:
            weights["best"] = self.best
        for kind, named in weights.items():
            arrays |= {f"{kind}/{name}": array for name, array in named.items()}
        if self.pruner is not None:
            values["prunings"] = [astuple(record) for record in self.pruner.records]
            arrays |= self.pruner.saved_arrays()
        return Content(values, arrays)

    def restore(self, content: Content) -> None:
        """Restore this state and the network's state. Raises ValueError if ``content`` is invalid.

        The network must have been built from the same configuration, with its initial weights.
        """
        values, arrays = typed(content.values, TRAINING), content.arrays
        known = (*VECTORS, "last/", "best/", "network/", "mask/", "rewind/")
        if other := next((name for name in arrays if not name.startswith(known)), None):
            raise ValueError(f"the array {other[:100]} is unexpected")
        rates, sizes, losses = (_vector(arrays, *vector) for vector in VECTORS.items())
        self._restore_prunings(values["prunings"], arrays)
        last = _with_prefix(arrays, "last/")
        best = _with_prefix(arrays, "best/") or last
        for found in (last, best):
            check_state(self.last, found)
        history = read_records(EpochRow, values["history"])
        if not self._is_position(history, len(rates), sizes, len(losses)):
            raise ValueError("its numbers of steps and epochs contradict each other")
        for rule in ("stopping", "averaging", "plateau", "target"):
            getattr(self, rule).load_state(values[rule])
        if not all(isinstance(ratio, float | None) for ratio in values["updates"].values()):
            raise ValueError("updates has a wrong type")
        network = _with_prefix(arrays, "network/")
        if any(x.startswith("average/") for x in network) is not self.averaging.is_used:
            raise ValueError("its average of the weights is missing or unexpected")
        self.network.load_state(network)
        self.last, self.best = last, best
        for name, value in typed(values["numbers"], NUMBERS).items():
            setattr(self, name, value)
        self.history, self.updates = history, values["updates"]
        self.learning_rates = rates.tolist()
        epoch = typed(values["epoch"], EPOCH_NUMBERS)
        self.epoch = UnfinishedEpoch(sizes.tolist(), [], epoch.pop("seconds"))
        if sizes.size:
            self.epoch.records.append(StepRecord(losses, count=int(sizes.sum()), **epoch))

    def _restore_prunings(self, rows: object, arrays: Arrays) -> None:
        """Restore the prunings, and set the masks of the network."""
        records = read_records(PruningRecord, rows)
        masks, rewound = _with_prefix(arrays, "mask/"), _with_prefix(arrays, "rewind/")
        if self.pruner is not None:
            self.pruner.load_state(records, masks, rewound)
            if records:
                self._use(self.pruner.network)
        elif records or masks or rewound:
            raise ValueError("it has masks, but the run does not prune")

    def _is_position(
        self, history: list[EpochRow], step: int, sizes: NDArray[np.int64], losses: int
    ) -> bool:
        """Return whether a training can be at this step after these epochs and batches.

        The last epoch can be shorter than the others, because max_steps or early stopping ended it.
        """
        per_epoch, epochs = self.length.steps_per_epoch, len(history)
        rows = [(row.epoch, row.step) for row in history]
        return (
            rows == [(epoch, min(epoch * per_epoch, step)) for epoch in range(1, epochs + 1)]
            and (epochs - 1) * per_epoch < step <= self.length.steps
            and max(step - epochs * per_epoch, 0) == len(sizes) == losses <= per_epoch
            and bool(np.all(sizes > 0))
        )


def _with_prefix(arrays: Arrays, prefix: str) -> dict[str, NDArray[Any]]:
    return {x.removeprefix(prefix): array for x, array in arrays.items() if x.startswith(prefix)}


def _vector(arrays: Arrays, name: str, kind: type) -> NDArray[Any]:
    """Return a vector of a checkpoint. Raises ValueError if it is missing or not valid."""
    vector = arrays.get(name)
    if vector is None or vector.ndim != 1 or vector.dtype != kind:
        raise ValueError(f"it has no vector {name} of {np.dtype(kind)}")
    return vector
