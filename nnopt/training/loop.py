"""The training loop: it drives a ``TrainingState`` through the epochs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import chain, count, islice
from typing import TypeVar

import numpy as np

from nnopt.architecture.network import is_penalized
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.data.batches import draw_augmentation, epoch_order
from nnopt.data.dataset import Dataset
from nnopt.pruning.pruner import Pruner
from nnopt.results.checkpoint_file import Content
from nnopt.results.metrics import penalty
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config, WeightPruningConfig
from nnopt.training.evaluation import Evaluation, evaluate
from nnopt.training.layer_statistics import update_ratios
from nnopt.training.length import Length
from nnopt.training.state import Arrays, TrainingState

log = logging.getLogger("nnopt")

READ_EVERY_STEPS = 500
"""Number of steps between two checks for divergence within an epoch."""

Item = TypeVar("Item")


def epoch_batches(
    config: Config, dataset: Dataset, loader: Loader, epoch: int, first: int = 0
) -> Iterator[tuple[DeviceArray, DeviceArray]]:
    """Return the batches of an epoch (1, 2, ...) from the index ``first`` on.

    The samples are shuffled, and augmented and mixed as configured.
    """
    samples = len(dataset.train)
    order = epoch_order(config.seed, epoch, samples)
    if config.drop_last:
        order = order[: samples - samples % config.batch_size]
    augmentation = draw_augmentation(config, dataset, epoch, len(order))
    return loader.train_batches(order, config.batch_size, augmentation, first)


class Loop:
    """One training.

    Attributes:
        training: State, updated after every step.
        length: Length in steps and epochs.
        report_step: Called with the number of completed steps after every step.
        between_steps: Called before every step. The state is then complete: it can be saved,
            and it remains complete if the function raises an exception.
        between_batches: Called before every batch of an evaluation. An exception leaves a state in
            which the evaluation is still to be done.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        loaders: tuple[Loader, Loader | None],
        config: Config,
        pruner: Pruner | None = None,
    ) -> None:
        self.length = Length.of(config, len(dataset.train))
        self.training = TrainingState(network, config, self.length, pruner)
        self._dataset = dataset
        self._train_loader, self._validation_loader = loaders
        self._config = config
        self.report_step: Callable[[int], None] = lambda done: None
        self.between_steps: Callable[[], None] = lambda: None
        self.between_batches: Callable[[], None] = lambda: None
        self._batches = partial(epoch_batches, config, dataset, self._train_loader)
        self._started = time.perf_counter()

    def save(self) -> Content:
        """Return the state of the training and of the network."""
        return self.training.save(self._seconds())

    def _seconds(self) -> float:
        """Return the time spent on the current epoch, also in earlier processes."""
        return time.perf_counter() - self._started

    def restore(self, content: Content) -> None:
        """Restore a state that ``save`` has returned. Raises ValueError if it is not valid."""
        self.training.restore(content)

    def run(self) -> Iterator[tuple[EpochRow, bool]]:
        """Train. After each epoch, yield its metrics and whether its weights are the best."""
        training = self.training
        if training.has_ended_early():  # early stopping ended training before a resume added epochs
            training.stopped_early = training.step < self.length.steps
        while not training.is_finished:
            epoch = len(training.history) + 1
            self._started = time.perf_counter() - training.epoch.seconds
            should_stop = self._train_epoch(epoch)
            is_complete = training.step % self.length.steps_per_epoch == 0 and not should_stop
            row = self._finish_epoch(epoch, is_complete)
            if row is None:
                return
            if should_stop or training.should_stop(epoch):
                training.stopped_early = training.step < self.length.steps
                yield row, training.best_epoch == epoch
                return
            yield row, training.best_epoch == epoch

    def _train_epoch(self, epoch: int) -> bool:
        """Train on an epoch's remaining batches; return whether early stopping ended the epoch."""
        training = self.training
        sizes = training.epoch.sizes
        batches = self._batches(epoch, len(sizes))
        while not (sizes and self._is_last_step(training.step)):
            if sizes and len(sizes) % READ_EVERY_STEPS == 0 and not training.check_steps():
                return False
            if sizes and self._validates_within_epoch() and self._stops_within_epoch(epoch):
                return True
            self.between_steps()
            if training.pruner is not None and not self._prune(training.pruner, epoch):
                return False
            x, y = next(batches)
            lr = training.next_learning_rate()
            before = training.network.arrays() if self._is_measured(training.step + 1) else None
            training.network.train_step(x, y, lr, training.step)
            if before is not None:
                training.updates = update_ratios(before, training.network.arrays())
            training.add_step(lr, len(y))
            self.report_step(training.step)
        return False

    def _is_measured(self, step: int) -> bool:
        """Return whether the update of this step is needed, because an epoch may end after it."""
        if not self._config.layer_statistics:
            return False
        validate_every = self._config.early_stopping.validate_every
        return self._is_last_step(step) or bool(validate_every and step % validate_every == 0)

    def _is_last_step(self, step: int) -> bool:
        """Return whether an epoch or the training ends after this number of steps."""
        return step % self.length.steps_per_epoch == 0 or step == self.length.steps

    def _validates_within_epoch(self) -> bool:
        """Return whether the validation part is evaluated after the latest step.

        Once there is an SWA average, the result is False: the average changes only after an epoch.
        """
        validate_every, training = self._config.early_stopping.validate_every, self.training
        is_due = validate_every and training.step % validate_every == 0
        return bool(is_due and not training.averaging.epochs)

    def _stops_within_epoch(self, epoch: int) -> bool:
        """Evaluate the validation part, and return whether early stopping ends the training."""
        training = self.training
        if training.validated_step < training.step:
            with training.averaging.applied():
                result = self._validate(epoch)
            training.validated_step = training.step
            if result is not None and training.is_final:
                training.target.within_epoch(
                    result.loss, result.accuracy, training.step, training.history, self._seconds()
                )
        return training.should_stop(epoch - 1)

    def _prune(self, pruner: Pruner, epoch: int) -> bool:
        """Prune the network if a pruning takes place before the next step of this epoch.

        Return False if the training diverged before the pruning.
        """
        training = self.training
        pruner.remember(training.step)
        pruning = pruner.due(training.step)
        if pruning is not None:
            if training.epoch.sizes and not training.check_steps():
                return False
            before = self._accuracy_before() if pruner.measures_before else None
            pruner.prune(pruning, before, lambda: self._gradients(epoch))
            training.after_pruning()
        has_validation = self._validation_loader is not None
        if has_validation and pruner.awaits_accuracy:
            pruner.add_accuracy(self._validation_accuracy())
        if pruning is not None:
            log.info("pruned: %s", pruner.records[-1])
        return True

    def _gradients(self, epoch: int) -> Arrays:
        """Return the mean gradients over the next batches of this epoch and of later ones."""
        assert isinstance(self._config.pruning, WeightPruningConfig)
        rest = self._batches(epoch, len(self.training.epoch.sizes))
        batches = chain(rest, chain.from_iterable(map(self._batches, count(epoch + 1))))
        used = islice(batches, self._config.pruning.gradient_batches)
        return self.training.network.mean_gradients(used, self.training.step)

    def _accuracy_before(self) -> float | None:
        """Return the validation accuracy; at the start of an epoch, that of the epoch before."""
        training = self.training
        if training.history and not training.epoch.sizes:
            return training.history[-1].validation_accuracy
        return self._validation_accuracy()

    def _validation_accuracy(self) -> float | None:
        with self.training.averaging.applied():
            result = self._evaluate()
        return None if result is None else result.accuracy

    def _finish_epoch(self, epoch: int, is_complete: bool) -> EpochRow | None:
        """Evaluate the network after an epoch, and return the metrics; None after divergence."""
        training = self.training
        if not training.check_steps():
            return None
        training.averaging.after_epoch(epoch, self._repeated_batches, is_complete)
        with training.averaging.applied():
            arrays = self.training.network.arrays()
            if not all(np.isfinite(array).all() for array in arrays.values()):
                training.diverged_at = training.step
                return None
            validation = self._validate(epoch)
        steps = training.epoch
        row = EpochRow(
            epoch=epoch,
            step=training.step,
            lr=training.learning_rates[-1],
            train_loss=float(np.average(steps.losses, weights=steps.sizes)),
            train_accuracy=sum(record.correct for record in steps.records) / sum(steps.sizes),
            validation_loss=None if validation is None else validation.loss,
            validation_accuracy=None if validation is None else validation.accuracy,
            penalty=self._penalty(arrays),
            gradient_norm=steps.records[-1].gradient_norm,
            seconds=self._seconds(),
            sparsity=0.0 if training.pruner is None else training.pruner.sparsity,
        )
        training.finish_epoch(row, arrays)
        return row

    def _repeated_batches(self, epoch: int) -> Iterator[tuple[DeviceArray, DeviceArray]]:
        """Return the batches of an epoch again. An interruption may end the iteration."""
        return self._interruptible(self._batches(epoch))

    def _interruptible(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield batches, and call ``between_batches`` before each."""
        for batch in batches:
            self.between_batches()
            yield batch

    def _validate(self, epoch: int) -> Evaluation | None:
        """Evaluate the validation part, and copy the weights if they are the best so far."""
        result = self._evaluate()
        if result is not None:
            self.training.add_evaluation(result, epoch)
        return result

    def _evaluate(self) -> Evaluation | None:
        """Evaluate the validation part. Return None if there is none."""
        part, loader = self._dataset.validation, self._validation_loader
        if part is None or loader is None:
            return None
        batches, labels = loader.evaluation_batches(), part.labels[part.rows]
        batches = self._interruptible(batches)
        return evaluate(self.training.network, batches, labels, self._config)

    def _penalty(self, arrays: Arrays) -> float:
        """Return the value of the L1 and L2 penalties at the end of the epoch."""
        regularizer = self._config.regularizer
        if not (regularizer.l1 or regularizer.l2):
            return 0.0
        weights = [arrays[name] for name in self._penalized]
        return penalty(weights, regularizer.l1, regularizer.l2)

    @cached_property
    def _penalized(self) -> list[str]:
        """Names of penalized arrays, cached because ``gradient_arrays`` copies all gradients."""
        decay_norm_and_bias = self._config.regularizer.decay_norm_and_bias
        gradients = self.training.network.gradient_arrays()
        return [name for name, g in gradients.items() if is_penalized(g.shape, decay_norm_and_bias)]
