"""The training loop: epochs of batches, validation, and the best weights so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import is_penalized
from nnopt.backends.protocol import DeviceArray, Loader, Network, StepRecord
from nnopt.data.batches import draw_augmentation, epoch_order
from nnopt.data.dataset import Dataset
from nnopt.results.metrics import penalty
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config, learning_rate
from nnopt.training.averaging import Averaging
from nnopt.training.early_stopping import EarlyStopping
from nnopt.training.evaluation import Evaluation, evaluate
from nnopt.training.schedules import Plateau, Schedule, build_schedule

READ_EVERY_STEPS = 500
"""Steps between two checks of the losses within an epoch, so that divergence ends it early."""

Arrays = Mapping[str, NDArray[np.floating]]


@dataclass
class TrainingState:
    """Training state, updated after every epoch, so that an interruption loses at most one.

    Attributes:
        last: Parameters and statistics after the last epoch with finite weights. With averaging,
            ``last`` and ``best`` are the averages.
        best: Parameters and statistics at the best validation metric; equal to ``last`` while no
            validation metric was finite.
        last_averaged, best_averaged: Number of epochs in the SWA average; 0 before it starts.
        best_epoch: Epoch of ``best``; 0 while no validation metric was finite.
        history: Metrics of the completed epochs.
        learning_rates: Learning rate of every step.
        diverged_at: The first step, counted from 1, whose loss is not finite or after which the
            weights or the optimizer state are not finite; None if training has not diverged.
        not_finite_layer: First layer whose outputs are not finite at that step, if known.
    """

    last: Arrays
    best: Arrays
    last_averaged: int = 0
    best_averaged: int = 0
    best_epoch: int = 0
    best_validation_loss: float | None = None
    best_validation_accuracy: float | None = None
    history: list[EpochRow] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    stopped_early: bool = False
    diverged_at: int | None = None
    not_finite_layer: str | None = None


@dataclass(frozen=True)
class Length:
    """Length of the training in steps and epochs."""

    steps_per_epoch: int
    steps: int
    epochs: int

    @classmethod
    def of(cls, config: Config, samples: int) -> Length:
        """Return the length for this number of training samples."""
        size = config.batch_size
        per_epoch = samples // size if config.drop_last else math.ceil(samples / size)
        steps = min(config.epochs * per_epoch, config.max_steps or math.inf)
        return cls(per_epoch, int(steps), math.ceil(steps / per_epoch))


def epoch_batches(
    config: Config, dataset: Dataset, loader: Loader, epoch: int
) -> Iterator[tuple[DeviceArray, DeviceArray]]:
    """Return the batches of an epoch (1, 2, ...), shuffled, augmented and mixed."""
    samples = len(dataset.train)
    order = epoch_order(config.seed, epoch, samples)
    if config.drop_last:
        order = order[: samples - samples % config.batch_size]
    augmentation = draw_augmentation(config, dataset, epoch, len(order))
    return loader.train_batches(order, config.batch_size, augmentation)


class Loop:
    """One training.

    Attributes:
        training: State, updated after every epoch.
        length: Length in steps and epochs.
        report_step: Called with the number of completed steps after every step.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        loaders: tuple[Loader, Loader | None],
        config: Config,
    ) -> None:
        initial = network.arrays()
        self.training = TrainingState(last=initial, best=initial)
        self.length = Length.of(config, len(dataset.train))
        self._network = network
        self._dataset = dataset
        self._train_loader, self._validation_loader = loaders
        self._config = config
        self.report_step: Callable[[int], None] = lambda done: None
        self._schedule: Schedule = build_schedule(
            config.schedule, learning_rate(config), self.length.steps_per_epoch, self.length.steps
        )
        self._plateau = Plateau(config.schedule)
        self._stopping = EarlyStopping(config.early_stopping)
        self._averaging = Averaging(network, config, self.length.epochs)
        self._batches = partial(epoch_batches, config, dataset, self._train_loader)
        self._step = 0

    def run(self) -> Iterator[tuple[EpochRow, bool]]:
        """Train. After each epoch, yield its metrics and whether its weights are the best."""
        for epoch in range(1, self.length.epochs + 1):
            started = time.perf_counter()
            stop = self._train_epoch(epoch)
            at_end = self._step % self.length.steps_per_epoch == 0
            row = self._finish_epoch(epoch, started, is_complete=at_end and not stop)
            if row is None:
                return
            self.training.history.append(row)
            yield row, self.training.best_epoch == epoch
            if stop or self._stopping.should_stop(epoch, self._step):
                self.training.stopped_early = self._step < self.length.steps
                return

    def _train_epoch(self, epoch: int) -> bool:
        """Train on all batches of one epoch; return whether early stopping ended it."""
        validate_every = self._config.early_stopping.validate_every
        self._sizes: list[int] = []
        self._records: list[StepRecord] = []
        for x, y in self._batches(epoch):
            lr = self._schedule(self._step) * self._plateau.factor
            self._network.train_step(x, y, lr, self._step)
            self._step += 1
            self._averaging.after_step(self._step)
            self._sizes.append(len(y))
            self.training.learning_rates.append(lr)
            self.report_step(self._step)
            if self._step == self.length.steps:
                break
            if len(self._sizes) % READ_EVERY_STEPS == 0 and not self._read_steps():
                break
            at_end_of_epoch = self._step % self.length.steps_per_epoch == 0
            is_due = validate_every and self._step % validate_every == 0 and not at_end_of_epoch
            if is_due and not self._averaging.epochs:  # the SWA average is constant within an epoch
                with self._averaging.applied():
                    self._validate(epoch)
                if self._stopping.should_stop(epoch - 1, self._step):
                    return True
        return False

    def _finish_epoch(self, epoch: int, started: float, is_complete: bool) -> EpochRow | None:
        """Evaluate an epoch and return its metrics; None if training has diverged."""
        training = self.training
        if not self._read_steps():
            return None
        losses = np.concatenate([record.losses for record in self._records])
        correct = sum(record.correct for record in self._records)
        self._averaging.after_epoch(epoch, self._batches, is_complete)
        with self._averaging.applied():
            arrays = self._network.arrays()
            if not all(np.isfinite(array).all() for array in arrays.values()):
                training.diverged_at = self._step
                return None
            training.last, training.last_averaged = arrays, self._averaging.epochs
            validation = self._validate(epoch)
        if (
            validation is None or training.best_epoch == 0
        ):  # without a finite metric, the last weights count as best
            training.best, training.best_averaged = arrays, training.last_averaged
        if validation is None:
            training.best_epoch = epoch
        else:
            self._plateau.update(
                self._stopping.monitored_value(validation.loss, validation.accuracy)
            )
        return EpochRow(
            epoch=epoch,
            step=self._step,
            lr=training.learning_rates[-1],
            train_loss=float(np.average(losses, weights=self._sizes)),
            train_accuracy=correct / sum(self._sizes),
            validation_loss=None if validation is None else validation.loss,
            validation_accuracy=None if validation is None else validation.accuracy,
            penalty=self._penalty(arrays),
            gradient_norm=self._records[-1].gradient_norm,
            seconds=time.perf_counter() - started,
        )

    def _read_steps(self) -> bool:
        """Read the records of the latest steps.

        If a loss or the optimizer state is not finite, store its step and return False.
        """
        if self.training.diverged_at is not None:
            return False
        record = self._network.read_steps()
        self._records.append(record)
        wrong = np.flatnonzero(~np.isfinite(record.losses))
        if wrong.size:
            self.training.diverged_at = self._step - len(record.losses) + int(wrong[0]) + 1
            self.training.not_finite_layer = record.not_finite
        elif not record.state_is_finite:
            self.training.diverged_at = self._step
        return self.training.diverged_at is None

    def _validate(self, epoch: int) -> Evaluation | None:
        """Evaluate the validation part, and copy the weights if they are the best so far."""
        part, loader = self._dataset.validation, self._validation_loader
        if part is None or loader is None:
            return None
        result = evaluate(self._network, loader, part.labels[part.rows], self._config.loss)
        value = self._stopping.monitored_value(result.loss, result.accuracy)
        if self._stopping.update(value, epoch, self._step):
            self.training.best = self._network.arrays()
            self.training.best_averaged = self._averaging.epochs
            self.training.best_epoch = epoch
            self.training.best_validation_loss = result.loss
            self.training.best_validation_accuracy = result.accuracy
        return result

    def _penalty(self, arrays: Arrays) -> float:
        """Return the value of the L1 and L2 penalties at the end of the epoch."""
        regularizer = self._config.regularizer
        if not (regularizer.l1 or regularizer.l2):
            return 0.0
        weights = [arrays[name] for name in self._penalized]
        return penalty(weights, regularizer.l1, regularizer.l2)

    @cached_property
    def _penalized(self) -> list[str]:
        """Names of the penalized arrays; cached, because gradients are copied from the device."""
        decay_norm_and_bias = self._config.regularizer.decay_norm_and_bias
        gradients = self._network.gradient_arrays()
        return [name for name, g in gradients.items() if is_penalized(g.shape, decay_norm_and_bias)]
