"""The learning-rate range test: known curves, known best rates, and equality with training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnopt.backends import load_backend
from nnopt.backends.protocol import StepRecord
from nnopt.config.compose import compose_config
from nnopt.recipe.prepare import prepare
from nnopt.recipe.start_weights import initial_weights
from nnopt.schema import Config
from nnopt.training.loop import Loop
from nnopt.training.lr_finder import (
    BETA,
    MAX_LR,
    LrCurve,
    LrRangeTest,
    LrSuggestion,
    run_range_test,
    suggest_from_curve,
    suggest_learning_rate,
)

Array = np.ndarray
SMALL = ["dataset.samples_per_class=40", "architecture.hidden=[8]", "plots=false"]


class Recorded:
    """A network that records the steps of a range test. Its losses are ``loss(step, lr)``."""

    def __init__(self, loss: Callable[[int, float], float]) -> None:
        self._loss = loss
        self.steps: list[tuple[float, int]] = []
        self._record: list[float] = []

    def train_step(self, x: Any, y: Any, lr: float, step: int) -> None:
        self.steps.append((lr, step))
        self._record.append(self._loss(step, lr))

    def read_steps(self) -> StepRecord:
        record, self._record = self._record, []
        return StepRecord(np.array(record), 0, 0, 0.0)


class Quadratic(Recorded):
    """Gradient descent on ½ Σ hᵢ wᵢ² with the curvatures hᵢ, from w = (1, 1, ...).

    The gradient is evaluated at w plus normal noise with standard deviation ``noise``.
    """

    def __init__(self, curvatures: Sequence[float], noise: float = 0.0) -> None:
        super().__init__(self._descend)
        self._noise, self._random = noise, np.random.default_rng(0)
        self._h = np.array(curvatures)
        self._w = np.ones(len(curvatures))

    def _descend(self, step: int, lr: float) -> float:
        loss = float(0.5 * self._h @ self._w**2)
        seen = self._w + self._noise * self._random.standard_normal(self._w.shape)
        self._w -= lr * self._h * seen
        return loss


def swept(network: Any, sweep: LrRangeTest | None = None) -> LrSuggestion:
    sweep = sweep or LrRangeTest()
    return suggest_from_curve(run_range_test(network, itertools.repeat((None, None)), sweep), sweep)


def scripted(losses: Sequence[float]) -> LrSuggestion:
    sweep = LrRangeTest(steps=max(20, len(losses)))
    return swept(Recorded(lambda step, lr: losses[step]), sweep)


# known best rates -------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [3.0, 20.0, 100.0, 3e3])
@pytest.mark.parametrize("others", [(), (0.5, 0.1)], ids=["round", "elongated"])
def test_suggestion_for_a_quadratic_converges(curvature: float, others: Sequence[float]) -> None:
    """Training with the suggested rate converges, and the rate is at least 0.2/h.

    h is the largest curvature. Gradient descent converges with rates below 2/h and diverges above.
    The best constant rate is between 1/h and 2/h (Nocedal and Wright 2006, section 3.3).
    """
    network = Quadratic([curvature, *(curvature * share for share in others)])
    found = swept(network)
    assert found.curve.diverged
    assert found.lr is not None
    assert 0.2 < found.lr * curvature < 2.0


@pytest.mark.parametrize("curvature", [3.0, 20.0, 100.0, 3e3])
def test_edge_step_with_noise_is_where_descent_diverges(curvature: float) -> None:
    """Without noise, w would be so near 0 that a divergence would be visible only much later."""
    noisy = Quadratic([curvature], noise=0.1)
    found = swept(noisy)
    assert found.edge_step is not None
    assert 1.0 < found.curve.rates[found.edge_step] * curvature < 3.0


def test_suggestion_is_inversely_proportional_to_the_loss() -> None:
    """Curvatures times 100 and rates divided by 100 give the same trajectory."""
    one = swept(Quadratic([3.0, 1.0]), LrRangeTest(1e-3, 10, 200))
    other = swept(Quadratic([300.0, 100.0]), LrRangeTest(1e-5, 0.1, 200))
    assert one.lr is not None
    assert other.lr == pytest.approx(one.lr / 100)
    np.testing.assert_allclose(other.curve.losses, 100 * one.curve.losses, rtol=1e-6, atol=1e-12)


def test_edge_step_is_the_end_of_a_plateau() -> None:
    """The minimum of the loss is in a dip, which is not always near the end of the plateau."""
    steps = np.arange(300)
    fall = 2.0 - 1.5 * np.clip((steps - 60) / 60, 0, 1)  # constant from step 120 on
    losses = np.where(steps > 240, fall + (steps - 240) * 0.5, fall)
    for dip in (130, 180, 230):
        dented = losses.copy()
        dented[dip : dip + 10] -= 0.05
        found = scripted(dented.tolist())
        assert found.edge_step is not None
        assert 238 <= found.edge_step <= 246
        assert found.lr == pytest.approx(found.curve.rates[found.edge_step] / 10, rel=0.05)


# the range test ---------------------------------------------------------------------------------


def test_range_test_rates_rise_and_average_loss_is_unbiased() -> None:
    network = Recorded(lambda step, lr: 1.0 + 0.1 * (step % 3))
    curve = run_range_test(network, itertools.repeat((None, None)), LrRangeTest(1e-4, 1.0, 41))  # type: ignore[arg-type]
    rates, steps = zip(*network.steps, strict=True)
    np.testing.assert_allclose(rates, 10.0 ** np.linspace(-4, 0, 41))
    assert steps == tuple(range(41))
    np.testing.assert_array_equal(curve.rates, rates)
    for k in (1, 2, 7, 41):
        weights = BETA ** np.arange(k)[::-1]
        assert curve.smoothed[k - 1] == pytest.approx(np.average(curve.losses[:k], weights=weights))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_range_test_ends_at_a_loss_that_is_not_finite(wrong: float) -> None:
    falling = np.geomspace(2.0, 0.5, 150).tolist()
    found = scripted([*falling, wrong, *[0.1] * 149])
    assert found.curve.diverged
    assert len(found.curve.rates) == len(found.curve.losses) == len(found.curve.smoothed) == 151
    assert found.edge_step is not None
    assert 140 <= found.edge_step < 150


def test_range_test_ends_at_a_multiple_of_the_smallest_loss() -> None:
    found = scripted([1.0] * 100 + [0.5] * 50 + [30.0] * 150)
    assert found.curve.diverged
    assert len(found.curve.rates) == 151  # the smoothed loss is then 0.9 · 0.5 + 0.1 · 30


def test_range_test_continues_below_the_initial_loss() -> None:
    """A rise from 0.004 to 0.02 is no divergence if the initial loss is 1."""
    found = scripted([1.0] * 50 + [0.004] * 150 + [0.02] * 100)
    assert not found.curve.diverged
    assert len(found.curve.rates) == 300


# no suggestion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_advice_on_noise_without_drop_proposes_higher_rates(seed: int) -> None:
    losses = np.random.default_rng(seed).normal(1.0, 0.2, 300).tolist()
    found = scripted(losses)
    assert found.lr is None
    assert found.advice is not None
    assert found.proposed_range == "lr_find.min_lr=1 lr_find.max_lr=1e+04"
    assert found.advice.endswith(f"try {found.proposed_range}")


@pytest.mark.parametrize("losses", [[0.0] * 300, [2.3] * 300], ids=["zero", "constant"])
def test_flat_loss_has_no_suggestion(losses: list[float]) -> None:
    found = scripted(losses)
    assert (found.lr, found.edge_step) == (None, None)
    assert "did not change" in (found.advice or "")


@pytest.mark.parametrize(
    "losses",
    [
        [np.nan],
        [2.3, np.inf],
        [2.3, 2.4, 1e9],
        np.geomspace(2.3, 1e4, 300).tolist(),
        [2.3] * 100 + [3.1] * 200,
    ],
    ids=["nan at once", "inf", "explodes", "grows", "rises and stays"],
)
def test_advice_on_rising_loss_proposes_lower_rates(losses: list[float]) -> None:
    found = scripted([*losses, *[1.0] * (20 - len(losses))])
    assert found.lr is None
    last = found.curve.rates[-1]
    # The proposed min_lr is last / 1e6, or a lower rate if the test began near last / 1e6.
    lowest = last / 1e6 if last < 9 else LrRangeTest().min_lr / 1000
    assert found.proposed_range == f"lr_find.min_lr={lowest:.2g} lr_find.max_lr={last:.2g}"
    assert f"try {found.proposed_range}" in (found.advice or "")


def test_advice_on_flat_loss_up_to_highest_rate_proposes_no_range() -> None:
    sweep = LrRangeTest(1.0, MAX_LR, 20)
    found = swept(Recorded(lambda step, lr: 2.3), sweep)
    assert "did not change up to 1e+06, the largest allowed rate" in (found.advice or "")
    assert "try" not in (found.advice or "")
    assert found.proposed_range is None


@pytest.mark.parametrize("losses", [[2.3] * 300, [2.3] * 100 + [3.1] * 200], ids=["flat", "rises"])
def test_reason_from_configuration_replaces_proposed_range(losses: list[float]) -> None:
    sweep = LrRangeTest()
    curve = run_range_test(
        Recorded(lambda step, lr: losses[step]),  # type: ignore[arg-type]
        itertools.repeat((None, None)),  # type: ignore[arg-type]
        sweep,
    )
    found = suggest_from_curve(curve, sweep, "nothing can move")
    assert found.proposed_range is None
    assert (
        found.advice
        == f"the loss did not fall at any rate up to {curve.rates[-1]:.2g}: nothing can move"
    )


def test_suggestion_below_the_range_is_none() -> None:
    falls_and_explodes = [2.0] * 30 + [0.5] * 15 + [50.0]
    found = scripted([*falls_and_explodes, *[1.0] * 254])
    assert found.curve.rates[44] < 1e-4  # ten times the lowest rate
    assert found.lr is None
    assert "is below the lowest rate, 1e-05" in (found.advice or "")
    assert found.proposed_range == "lr_find.min_lr=1e-08 lr_find.max_lr=10"
    assert f"try {found.proposed_range}" in (found.advice or "")


def test_suggestion_has_advice_if_loss_is_still_low_at_the_highest_rate() -> None:
    found = swept(Quadratic([1.0]), LrRangeTest(max_lr=0.1))
    assert found.lr == pytest.approx(0.01)
    assert "lr_find.max_lr=10 may suggest a larger rate" in (found.advice or "")
    assert found.proposed_range == "lr_find.min_lr=1e-05 lr_find.max_lr=10"


# range tests with configurations ----------------------------------------------------------------


def find_rate(config: Config, sweep: LrRangeTest) -> LrSuggestion:
    prepared = prepare(config)
    initial = initial_weights(config, prepared.architecture, prepared.dataset)
    return suggest_learning_rate(config, prepared.dataset, prepared.architecture, sweep, initial)


def configured(*overrides: str, sweep: LrRangeTest | None = None) -> LrCurve:
    config = compose_config([*SMALL, *overrides])
    return find_rate(config, sweep or LrRangeTest(steps=60)).curve


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_range_test_at_a_constant_rate_equals_training(backend: str) -> None:
    """Equal losses need equal weights, batches, mixing, masks, penalties and optimizer steps."""
    overrides = [
        f"backend={backend}",
        "optimizer=adam",
        "optimizer.lr=0.02",
        "epochs=2",
        "regularizer.l2=1e-2",
        "regularizer.dropout=0.2",
        "regularizer.augmentation.mixup=0.5",
        "regularizer.grad_clip=0.5",
    ]
    config = compose_config([*SMALL, *overrides])
    curve = find_rate(config, LrRangeTest(0.02, 0.02, 6)).curve
    expected = [row.train_loss for row in trained(config)]
    sizes = [32, 32, 32]  # the training set has 96 samples
    for epoch in range(2):
        losses = curve.losses[3 * epoch : 3 * epoch + 3]
        assert np.average(losses, weights=sizes) == pytest.approx(expected[epoch], rel=1e-6)


def trained(config: Config) -> list[Any]:
    from nnopt.architecture.initializers import initial_arrays

    prepared, backend = prepare(config), load_backend(config.backend.name)
    network = backend.build_network(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed))
    train = backend.build_loader(prepared.dataset.train, prepared.dataset.normalization, config)
    loop = Loop(network, replace(prepared.dataset, validation=None), (train, None), config)
    return [row for row, _ in loop.run()]


def test_losses_of_range_test_depend_on_the_seed() -> None:
    first = configured("seed=3", "regularizer.dropout=0.2")
    again = configured("seed=3", "regularizer.dropout=0.2")
    other = configured("seed=4", "regularizer.dropout=0.2")
    np.testing.assert_array_equal(again.losses, first.losses)
    assert not np.array_equal(other.losses, first.losses)


def test_losses_of_range_test_ignore_schedule_and_configured_rate() -> None:
    plain = configured()
    overrides = ["schedule=cosine", "schedule.warmup_epochs=1", "optimizer.lr=123", "epochs=4"]
    np.testing.assert_array_equal(configured(*overrides).losses, plain.losses)


def test_suggestion_does_not_change_the_data() -> None:
    config = compose_config([*SMALL, "dataset.normalization=none"])
    prepared = prepare(config)
    before = prepared.dataset.train.inputs.copy()
    find_rate(config, LrRangeTest())
    np.testing.assert_array_equal(prepared.dataset.train.inputs, before)
