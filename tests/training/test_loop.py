"""The training loop with a network that returns scripted losses and logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from nnopt import schema
from nnopt.backends.protocol import StepRecord
from nnopt.data.batches import epoch_order
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import Config
from nnopt.training.length import Length
from nnopt.training.loop import Loop

MakeConfig = Callable[..., Config]
Array = np.ndarray

SAMPLES, HELD, BATCH = 10, 20, 4  # an epoch has batches of 4, 4 and 2 samples


class ScriptedNetwork:
    """A network with scripted validation accuracies and training losses.

    One weight counts the steps; a second weight is frozen.
    """

    def __init__(
        self, accuracies: Sequence[float] = (), losses: Mapping[int, float] | None = None
    ) -> None:
        self.weight = np.zeros((1, 1))
        self.steps: list[tuple[float, int]] = []
        self.batches: list[Array] = []
        self.evaluations = 0
        self._accuracies = accuracies
        self._losses = losses or {}
        self._record: list[float] = []

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.weight[:] = arrays["dense1.weight"]

    def arrays(self) -> dict[str, Array]:
        return {"dense1.weight": self.weight.copy(), "conv2d1.weight": np.ones((1, 1, 1, 1))}

    def gradient_arrays(self) -> dict[str, Array]:
        return {"dense1.weight": np.ones((1, 1))}

    def train_step(self, x: Array, y: Array, lr: float, step: int) -> None:
        self.weight += 1
        self.steps.append((lr, step))
        self.batches.append(x[:, 0].copy())
        self._record.append(self._losses.get(step, float(len(y))))

    def read_steps(self) -> StepRecord:
        record, self._record = self._record, []
        return StepRecord(np.array(record), correct=5, count=10, gradient_norm=0.5)

    def predict(self, x: Array) -> Array:
        """Return logits with the scripted accuracy; all validation samples are of class 0."""
        accuracy = self._accuracies[min(self.evaluations, len(self._accuracies) - 1)]
        self.evaluations += 1
        if math.isnan(accuracy):
            return np.full((len(x), 2), np.nan)
        right = np.arange(len(x)) < round(accuracy * len(x))
        return np.stack([right, ~right], axis=1).astype(float)


class AveragedNetwork(ScriptedNetwork):
    """A ScriptedNetwork that averages its weights and counts the updates of the average."""

    def __init__(self, accuracies: Sequence[float]) -> None:
        super().__init__(accuracies)
        self.mean = np.zeros((1, 1))
        self.moves = 0

    def average(self, weight: float) -> None:
        self.mean += weight * (self.weight - self.mean)
        self.moves += 1

    def swap_average(self) -> None:
        self.weight, self.mean = self.mean, self.weight

    def recompute_statistics(self, batches: Any) -> None:
        pass


class PlainLoader:
    def __init__(self, part: Part) -> None:
        self._part = part

    def train_batches(
        self, order: Array, batch_size: int, augmentation: Any, first: int
    ) -> Iterator[tuple[Array, Array]]:
        for start in range(first * batch_size, len(order), batch_size):
            rows = self._part.rows[order[start : start + batch_size]]
            yield self._part.inputs[rows], self._part.labels[rows]

    def evaluation_batches(self) -> Iterator[Array]:
        yield self._part.inputs[self._part.rows]


def part(count: int) -> Part:
    inputs = np.arange(count, dtype=np.float32)[:, None]
    return Part(inputs, np.zeros(count, np.int64), np.arange(count))


def make_loop(config: Config, network: ScriptedNetwork) -> Loop:
    held = None if config.dataset.validation.source == "none" else part(HELD)
    norm = Normalization(np.ones(1), np.zeros(1))
    dataset = Dataset("test", ("a", "b"), part(SAMPLES), held, part(3), norm, {})
    loaders = PlainLoader(dataset.train), None if held is None else PlainLoader(held)
    return Loop(network, dataset, loaders, config)


def run(config: Config, network: ScriptedNetwork) -> tuple[Loop, list[tuple[EpochRow, bool]]]:
    loop = make_loop(config, network)
    return loop, list(loop.run())


def stopping(**changes: Any) -> schema.EarlyStoppingConfig:
    values = {
        "patience": None,
        "unit": "epochs",
        "validate_every": None,
        "min_delta": 0.0,
        "min_delta_mode": "absolute",
        "monitor": "accuracy",
    }
    return schema.EarlyStoppingConfig(**values | changes)


def test_rows_have_number_of_steps_and_mean_loss_over_samples(make_config: MakeConfig) -> None:
    loop, found = run(make_config(epochs=3, batch_size=BATCH), ScriptedNetwork([0.5]))
    rows = [row for row, _ in found]
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert [row.step for row in rows] == [3, 6, 9]
    # The scripted loss of a batch is the batch size, so the mean is (4*4 + 4*4 + 2*2) / 10.
    assert all(row.train_loss == pytest.approx(3.6) for row in rows)
    assert all(row.train_accuracy == 0.5 and row.gradient_norm == 0.5 for row in rows)
    assert all(row.validation_accuracy == 0.5 for row in rows)
    assert all(row.seconds >= 0 for row in rows)
    assert loop.training.history == rows


def test_epochs_contain_each_sample_once_in_a_new_order(make_config: MakeConfig) -> None:
    network = ScriptedNetwork([0.5])
    run(make_config(epochs=2, batch_size=BATCH, seed=3), network)
    epochs = [np.concatenate(network.batches[i : i + 3]) for i in (0, 3)]
    assert [len(x) for x in network.batches] == [4, 4, 2] * 2
    assert [list(x) for x in epochs] == [list(epoch_order(3, e, SAMPLES)) for e in (1, 2)]
    assert list(epochs[0]) != list(epochs[1])


def test_drop_last_omits_an_incomplete_last_batch(make_config: MakeConfig) -> None:
    network = ScriptedNetwork([0.5])
    _, found = run(make_config(epochs=2, batch_size=BATCH, drop_last=True), network)
    assert [len(x) for x in network.batches] == [4, 4, 4, 4]
    assert [row.step for row, _ in found] == [2, 4]


@pytest.mark.parametrize("steps", [1, 3, 4, 9])
def test_max_steps_ends_training(make_config: MakeConfig, steps: int) -> None:
    network = ScriptedNetwork([0.5])
    _, found = run(make_config(epochs=3, batch_size=BATCH, max_steps=steps), network)
    assert [step for _, step in network.steps] == list(range(steps))
    assert found[-1][0].step == steps
    assert len(found) == math.ceil(steps / 3)


def test_training_length_is_the_shorter_of_epochs_and_steps(make_config: MakeConfig) -> None:
    config = make_config(epochs=3, batch_size=4)
    assert Length.of(config, 10) == Length(3, 9, 3)
    assert Length.of(make_config(epochs=3, batch_size=4, max_steps=4), 10) == Length(3, 4, 2)
    assert Length.of(make_config(epochs=3, batch_size=4, max_steps=99), 10) == Length(3, 9, 3)
    assert Length.of(make_config(epochs=3, batch_size=4, drop_last=True), 10) == Length(2, 6, 3)
    assert Length.of(make_config(epochs=3, batch_size=99), 10) == Length(1, 3, 3)


def test_schedule_sets_the_rate_of_every_step(make_config: MakeConfig) -> None:
    network = ScriptedNetwork([0.5])
    schedule = schema.CosineConfig("cosine", 1, 0.0)
    loop, found = run(make_config(epochs=4, batch_size=BATCH, schedule=schedule), network)
    rates = [lr for lr, _ in network.steps]
    assert rates[:3] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01])
    cosine = [0.005 * (1 + math.cos(math.pi * i / 9)) for i in range(9)]
    assert rates[3:] == pytest.approx(cosine)
    assert loop.training.learning_rates == rates
    assert [row.lr for row, _ in found] == [rates[i] for i in (2, 5, 8, 11)]


def test_plateau_reduces_the_rate_of_the_next_epoch(make_config: MakeConfig) -> None:
    network = ScriptedNetwork([0.5, 0.5, 0.5, 0.9])
    schedule = schema.PlateauConfig("plateau", 0, 1, 0.5, 0.0, "absolute")
    run(make_config(epochs=5, batch_size=BATCH, schedule=schedule), network)
    assert [lr for lr, _ in network.steps[::3]] == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005])


def test_best_weights_are_stored_after_the_best_epoch(make_config: MakeConfig) -> None:
    network = ScriptedNetwork([0.5, 0.9, 0.9, 0.2])
    loop, found = run(make_config(epochs=4, batch_size=BATCH), network)
    assert [best for _, best in found] == [True, True, False, False]
    training = loop.training
    assert (training.best_epoch, training.best_validation_accuracy) == (2, 0.9)
    assert training.best["dense1.weight"] == 6
    assert training.last["dense1.weight"] == 12
    assert not training.stopped_early


def test_monitor_decides_which_epoch_is_best(make_config: MakeConfig) -> None:
    """Predictions in epoch 1 are less accurate but also less confident, so the loss is lower."""

    class Unsure(ScriptedNetwork):
        def predict(self, x: Array) -> Array:
            logits = super().predict(x)
            return logits * (0.1 if self.evaluations == 1 else 20)

    config = make_config(epochs=2, batch_size=BATCH)
    by_loss = make_config(epochs=2, batch_size=BATCH, early_stopping=stopping(monitor="loss"))
    assert run(config, Unsure([0.4, 0.5]))[0].training.best_epoch == 2
    assert run(by_loss, Unsure([0.4, 0.5]))[0].training.best_epoch == 1


def test_best_weights_without_validation_data_are_the_last_weights(make_config: MakeConfig) -> None:
    config = make_config(
        epochs=2,
        batch_size=BATCH,
        **{"dataset.validation": schema.Validation("none", 0.2)},
    )
    loop, found = run(config, ScriptedNetwork())
    assert all(row.validation_loss is None for row, _ in found)
    assert loop.training.best_epoch == 2
    assert loop.training.best["dense1.weight"] == 6
    assert loop.training.best_validation_accuracy is None


def test_patience_in_epochs_stops_training(make_config: MakeConfig) -> None:
    config = make_config(epochs=9, batch_size=BATCH, early_stopping=stopping(patience=2))
    loop, found = run(config, ScriptedNetwork([0.5, 0.6, 0.6, 0.5, 0.9]))
    assert len(found) == 4
    assert loop.training.stopped_early
    assert loop.training.best["dense1.weight"] == 6


def test_best_weights_do_not_depend_on_min_delta(make_config: MakeConfig) -> None:
    """No improvement exceeds 0.5, so the patience ends three epochs after the first."""
    early = stopping(patience=3, min_delta=0.5)
    config = make_config(epochs=9, batch_size=BATCH, early_stopping=early)
    loop, found = run(config, ScriptedNetwork([0.5, 0.6, 0.7, 0.65]))
    assert [is_best for _, is_best in found] == [True, True, True, False]
    assert loop.training.stopped_early
    assert (loop.training.best_epoch, loop.training.best_validation_accuracy) == (3, 0.7)
    assert loop.training.best["dense1.weight"] == 9


def test_patience_in_steps_stops_within_an_epoch(make_config: MakeConfig) -> None:
    early = stopping(patience=4, unit="steps", validate_every=2)
    config = make_config(epochs=9, batch_size=BATCH, early_stopping=early)
    # The network is validated after steps 2, 3 (end of epoch 1), 4, 6 (end of epoch 2) and 8.
    loop, found = run(config, ScriptedNetwork([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]))
    assert loop.training.stopped_early
    assert loop.training.best["dense1.weight"] == 3
    assert found[-1][0].step == 8  # the first validation that is 4 or more steps after step 3
    assert len(loop.training.learning_rates) == 8


def test_patience_in_epochs_counts_only_complete_epochs(make_config: MakeConfig) -> None:
    early = stopping(patience=1, validate_every=1)
    config = make_config(epochs=9, batch_size=BATCH, early_stopping=early)
    loop, found = run(config, ScriptedNetwork([0.5]))
    assert [row.step for row, _ in found] == [3, 6]
    assert loop.training.stopped_early


def test_validation_within_an_epoch_can_find_the_best_weights(make_config: MakeConfig) -> None:
    config = make_config(epochs=1, batch_size=BATCH, early_stopping=stopping(validate_every=2))
    loop, found = run(config, ScriptedNetwork([0.9, 0.5]))
    assert loop.training.best["dense1.weight"] == 2
    assert found[0][1]
    assert loop.training.best_validation_accuracy == 0.9
    assert found[0][0].validation_accuracy == 0.5  # at the end of the epoch


def test_swa_average_is_validated_only_after_epochs(make_config: MakeConfig) -> None:
    """The average is constant within an epoch, so more validations would only use up patience."""
    early = stopping(validate_every=1, patience=4, unit="steps")
    config = make_config(
        epochs=4, batch_size=BATCH, early_stopping=early, **{"regularizer.swa_start": 0.5}
    )
    network = AveragedNetwork([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    loop, found = run(config, network)
    assert network.evaluations == 3 + 3 + 1 + 1  # averaging starts after the second epoch
    assert [row.step for row, _ in found] == [3, 6, 9, 12]
    assert loop.training.last["dense1.weight"] == (6 + 9 + 12) / 3
    assert (loop.training.last_averaged, loop.training.best_averaged) == (3, 3)


def test_swa_skips_an_epoch_ended_by_patience(make_config: MakeConfig) -> None:
    early = stopping(patience=4, unit="steps", validate_every=2)
    config = make_config(
        epochs=9, batch_size=BATCH, early_stopping=early, **{"regularizer.swa_start": 0.3}
    )
    network = AveragedNetwork([0.5, 0.6, 0.6])
    loop, found = run(config, network)
    assert found[-1][0].step == 8  # in the third epoch, the first that SWA would average
    assert network.moves == 0
    assert loop.training.last["dense1.weight"] == 8
    assert (loop.training.last_averaged, loop.training.best_averaged) == (0, 0)


def test_best_weights_before_swa_have_zero_averaged_epochs(make_config: MakeConfig) -> None:
    config = make_config(epochs=4, batch_size=BATCH, **{"regularizer.swa_start": 0.5})
    loop, _ = run(config, AveragedNetwork([0.9, 0.5]))
    assert loop.training.best["dense1.weight"] == 3
    assert (loop.training.last_averaged, loop.training.best_averaged) == (3, 0)


def test_swa_skips_an_epoch_ended_by_max_steps(make_config: MakeConfig) -> None:
    config = make_config(epochs=4, max_steps=8, batch_size=BATCH, **{"regularizer.swa_start": 0.5})
    network = AveragedNetwork([0.9, 0.5])
    loop, found = run(config, network)
    assert found[-1][0].step == 8
    assert loop.training.last_averaged == network.moves == 1


def test_best_weights_never_have_nan_validation_loss(make_config: MakeConfig) -> None:
    config = make_config(
        epochs=4, batch_size=BATCH, early_stopping=stopping(monitor="loss", patience=2)
    )
    loop, found = run(config, ScriptedNetwork([0.5, math.nan, math.nan, 0.9]))
    assert loop.training.best_epoch == 1
    assert loop.training.best["dense1.weight"] == 3
    assert len(found) == 3
    assert loop.training.stopped_early


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_divergence_keeps_finite_rows_and_weights(make_config: MakeConfig, loss: float) -> None:
    config = make_config(epochs=4, batch_size=BATCH)
    network = ScriptedNetwork([0.5], losses={7: loss, 8: loss})
    loop, found = run(config, network)
    assert len(found) == 2
    assert loop.training.diverged_at == 8  # the eighth step, counted from 1
    assert loop.training.last["dense1.weight"] == 6
    assert len(network.steps) == 9


def test_divergence_in_the_first_epoch_keeps_the_initial_weights(make_config: MakeConfig) -> None:
    loop, found = run(make_config(batch_size=BATCH), ScriptedNetwork([0.5], losses={1: math.nan}))
    assert found == []
    assert loop.training.diverged_at == 2
    assert loop.training.last["dense1.weight"] == 0
    assert loop.training.best["dense1.weight"] == 0


def test_divergence_of_weights_is_detected(make_config: MakeConfig) -> None:
    class Broken(ScriptedNetwork):
        def train_step(self, x: Array, y: Array, lr: float, step: int) -> None:
            super().train_step(x, y, lr, step)
            if step == 4:
                self.weight[:] = np.inf

    loop, found = run(make_config(epochs=4, batch_size=BATCH), Broken([0.5]))
    assert len(found) == 1
    assert loop.training.diverged_at == 6
    assert loop.training.last["dense1.weight"] == 3


def test_penalty_column_equals_sum_of_l1_and_l2_penalties(make_config: MakeConfig) -> None:
    options = {"regularizer.l1": 0.1, "regularizer.l2": 0.01}
    _, found = run(make_config(epochs=2, batch_size=BATCH, **options), ScriptedNetwork([0.5]))
    assert [row.penalty for row, _ in found] == pytest.approx(
        [0.1 * w + 0.005 * w * w for w in (3, 6)]
    )


def test_penalty_is_zero_without_regularization(make_config: MakeConfig) -> None:
    _, found = run(make_config(epochs=1, batch_size=BATCH), ScriptedNetwork([0.5]))
    assert found[0][0].penalty == 0


def test_report_step_callback_is_called_after_every_step(make_config: MakeConfig) -> None:
    loop = make_loop(make_config(epochs=2, batch_size=BATCH), ScriptedNetwork([0.5]))
    reported: list[int] = []
    loop.report_step = reported.append
    list(loop.run())
    assert reported == [1, 2, 3, 4, 5, 6]


def test_best_weights_without_finite_validation_loss_are_the_last_weights(
    make_config: MakeConfig,
) -> None:
    network = ScriptedNetwork(accuracies=[math.nan])
    config = make_config(epochs=2, batch_size=BATCH, early_stopping=stopping(monitor="loss"))
    loop, rows = run(config, network)
    assert [best for _, best in rows] == [False, False]
    assert loop.training.best_epoch == 0
    assert loop.training.best["dense1.weight"] == 6


def test_end_of_epoch_is_validated_once(make_config: MakeConfig) -> None:
    network = ScriptedNetwork(accuracies=[0.5])
    run(
        make_config(epochs=2, batch_size=BATCH, early_stopping=stopping(validate_every=1)),
        network,
    )
    assert network.evaluations == 6  # after each of the three steps of two epochs


def test_patience_that_runs_out_in_the_last_epoch_is_not_early_stopping(
    make_config: MakeConfig,
) -> None:
    config = make_config(epochs=2, batch_size=BATCH, early_stopping=stopping(patience=1))
    loop, rows = run(config, ScriptedNetwork(accuracies=[0.5, 0.4]))
    assert len(rows) == 2
    assert not loop.training.stopped_early


def test_divergence_ends_the_epoch_early(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnopt.training.loop.READ_EVERY_STEPS", 2)
    network = ScriptedNetwork(accuracies=[0.5], losses={0: math.nan})
    loop, rows = run(make_config(epochs=3, batch_size=1), network)  # an epoch has ten steps
    assert rows == []
    assert loop.training.diverged_at == 1
    assert len(network.steps) == 2


def test_epoch_with_nan_logits_is_never_the_best(make_config: MakeConfig) -> None:
    network = ScriptedNetwork(accuracies=[math.nan])
    config = make_config(epochs=1, batch_size=BATCH, early_stopping=stopping(monitor="accuracy"))
    loop, _ = run(config, network)
    assert loop.training.best_epoch == 0
