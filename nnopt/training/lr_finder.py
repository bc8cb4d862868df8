"""The learning-rate range test: suggest a learning rate from one short training.

The learning rate rises exponentially from step to step (Smith 2017, "Cyclical learning rates for
training neural networks", section 3.3). The losses Lₖ of the steps k are smoothed to sₖ by a
bias-corrected exponential average (Gugger 2018, "How do you find a good learning rate"):

    aₖ = β aₖ₋₁ + (1 - β) Lₖ,    sₖ = aₖ / (1 - βᵏ),    a₀ = 0, k = 1, 2, ...

The edge is the largest rate at which the smoothed loss exceeds its minimum by at most a tenth of
the total drop. The suggestion is a tenth of the edge. Gugger and fastai instead use a tenth of the
rate at the minimum. On a plateau of the loss, noise shifts this rate by factors of up to 100
between seeds. ``docs/lr_find.md`` has the measurements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.architecture.parse import initializer_keys
from nnopt.backends import load_backend
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.backends.thread_choice import threads_for
from nnopt.data.dataset import Dataset
from nnopt.results.cores import thread_pools
from nnopt.schema import Config, Range
from nnopt.training.loop import epoch_batches

Floats = NDArray[np.float64]

BETA = 0.9
"""The average is over about ten steps, a fifth of a decade in the default range. With fastai's
0.98, it is over fifty steps and detects a rising loss half a decade late."""

DIVERGENCE_FACTOR = 4.0
"""The test stops once the smoothed loss exceeds both this multiple of its minimum (as in fastai)
and its initial value. The small losses of easy data may rise fourfold by chance."""

EDGE_TOLERANCE = 0.1
"""Fraction of the total drop by which a loss may exceed the minimum and still count as low."""

SAFETY_FACTOR = 10.0
"""Ratio of the edge to the suggestion. A rate near the edge may be too large for long training."""

MAX_LR = 1_000_000
"""Largest learning rate that is tried."""

Report = Callable[[int, float, float], None]
"""Function of the number of completed steps, the last learning rate and the smoothed loss."""


@dataclass(frozen=True)
class LrRangeTest:
    """The learning rates of a range test: ``steps`` values, evenly spaced on a log scale."""

    min_lr: Annotated[float, Range(above=0, maximum=MAX_LR)] = 1e-5
    max_lr: Annotated[float, Range(above=0, maximum=MAX_LR)] = 10.0
    steps: Annotated[int, Range(minimum=20, maximum=1_000_000)] = 300


@dataclass(frozen=True)
class LrCurve:
    """The losses of a range test, up to the step that ended it.

    Attributes:
        rates: (K,) learning rate of each step.
        losses: (K,) mean loss of each batch, without penalties. Only the last may be not finite.
        smoothed: (K,) smoothed losses. Only the last may be not finite.
        diverged: Whether the loss diverged, so that the test ended early.
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step, counted from 0, of the smallest smoothed loss.

        The first ten steps do not count, because their averages have few terms. If the test ended
        within them, the result is the last step.
        """
        full = min(round(1 / (1 - BETA)), len(self.smoothed) - 1)
        return full + int(np.argmin(np.nan_to_num(self.smoothed[full:], nan=np.inf)))


@dataclass(frozen=True)
class LossDrop:
    """The drop of the smoothed loss.

    Attributes:
        start: Mean loss of the first steps.
        depth: ``start`` minus the smallest smoothed loss.
        noise: Standard deviation of the losses of the first steps.
    """

    start: float
    depth: float
    noise: float

    @property
    def is_significant(self) -> bool:
        """Whether the drop exceeds twice the noise and a hundredth of the initial loss.

        Noise alone causes a drop of 1.4 standard deviations in one of 1,000 tests of 300 steps.
        """
        return self.depth > self._threshold

    @property
    def _threshold(self) -> float:
        return max(2 * self.noise, 0.01 * abs(self.start))

    def is_above_start(self, loss: float) -> bool:
        """Return whether a smoothed loss is significantly above the start."""
        return not loss - self.start <= self._threshold


@dataclass(frozen=True)
class LrSuggestion:
    """The result of a range test.

    Attributes:
        curve: Losses of the test.
        lr: Suggested learning rate with two digits, None if there is no suggestion.
        edge_step: Step of the edge, None without a suggestion.
        advice: What to change if ``lr`` is None, or if a wider range may give a better rate.
        proposed_range: The range of ``advice`` as arguments of ``nnopt lr-find``.
    """

    curve: LrCurve
    lr: float | None
    edge_step: int | None
    advice: str | None
    proposed_range: str | None = None

    @property
    def loss_at_suggestion(self) -> float:
        """The smoothed loss at the suggested rate, NaN without a suggestion."""
        if self.lr is None:
            return math.nan
        curve = self.curve
        return float(np.interp(np.log(self.lr), np.log(curve.rates), curve.smoothed))


def suggest_learning_rate(
    config: Config,
    dataset: Dataset,
    architecture: Architecture,
    range_test: LrRangeTest,
    initial: Mapping[str, NDArray[np.floating]],
    report: Report = lambda *_: None,
) -> LrSuggestion:
    """Run a range test of the configured network and suggest a learning rate.

    The network is new and has the weights ``initial``; batches, augmentation, dropout masks,
    penalties and optimizer are those of the run. ``config.schedule`` and ``config.optimizer.lr``,
    which may be "auto", are ignored. The result is deterministic. ``report`` is called after each
    step.
    """
    backend = load_backend(config.backend.name)
    threads = threads_for(architecture, config, backend.default_threads())
    with np.errstate(all="ignore"), thread_pools().limit(limits=threads.count):
        network = backend.build_network(architecture, config)
        network.load(initial)
        loader = backend.build_loader(dataset.train, dataset.normalization, config)
        curve = run_range_test(
            network, endless_batches(config, dataset, loader), range_test, report
        )
    return suggest_from_curve(curve, range_test, _obstacle(config))


def _obstacle(config: Config) -> str | None:
    """Return the reason why no rate can reduce the loss of this configuration, or None."""
    initializer = config.initializer
    has_hidden = "hidden" in initializer_keys(config.architecture)
    if has_hidden and initializer.hidden == "zeros" and initializer.from_ is None:
        return (
            "with initializer.hidden = 'zeros' no hidden layer has a gradient; choose another "
            "initializer, such as initializer=he"
        )
    return None


def endless_batches(
    config: Config, dataset: Dataset, loader: Loader
) -> Iterator[tuple[DeviceArray, DeviceArray]]:
    """Yield the batches of the run, epoch after epoch."""
    for epoch in itertools.count(1):
        yield from epoch_batches(config, dataset, loader, epoch)


def run_range_test(
    network: Network,
    batches: Iterator[tuple[DeviceArray, DeviceArray]],
    range_test: LrRangeTest,
    report: Report = lambda *_: None,
) -> LrCurve:
    """Train one step with each rate in ascending order, until the loss diverges."""
    rates = np.geomspace(range_test.min_lr, range_test.max_lr, range_test.steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, smallest, diverged = 0.0, math.inf, False
    for step, (rate, (x, y)) in enumerate(zip(rates.tolist(), batches, strict=False)):
        network.train_step(x, y, rate, step)
        (loss,) = network.read_steps().losses.tolist()
        average = BETA * average + (1 - BETA) * loss
        losses.append(loss)
        smoothed.append(average / (1 - BETA ** (step + 1)))
        smallest = min(smallest, smoothed[-1])
        report(step + 1, rate, smoothed[-1])
        if not smoothed[-1] <= max(DIVERGENCE_FACTOR * smallest, smoothed[0]):  # also true for NaN
            diverged = True
            break
    return LrCurve(rates[: len(losses)], np.array(losses), np.array(smoothed), diverged)


def suggest_from_curve(
    curve: LrCurve, range_test: LrRangeTest, obstacle: str | None = None
) -> LrSuggestion:
    """Return a suggestion with a learning rate, or with advice if the curve gives no rate.

    obstacle: the reason why no rate can reduce the loss of this configuration, or None.
    """
    drop = measure_loss_drop(curve)
    if not drop.is_significant:
        return LrSuggestion(
            curve, None, None, *_advice_without_drop(curve, range_test, drop, obstacle)
        )
    limit = curve.smoothed[curve.lowest] + EDGE_TOLERANCE * drop.depth
    edge_step = int(np.flatnonzero(curve.smoothed <= limit)[-1])
    is_last = edge_step == range_test.steps - 1
    wider = _range(range_test.min_lr, range_test.max_lr * 100)
    suggestion = float(f"{curve.rates[edge_step] / SAFETY_FACTOR:.2g}")
    if suggestion < range_test.min_lr:
        wider = _range(range_test.min_lr / 1000, range_test.max_lr * (100 if is_last else 1))
        reason = (
            f"a tenth of the largest usable rate is below the lowest rate, {range_test.min_lr:g}"
        )
        return LrSuggestion(curve, None, None, f"{reason}; try {wider}", wider)
    if not is_last:
        return LrSuggestion(curve, suggestion, edge_step, None)
    advice = f"the loss was still low at the highest rate; {wider} may suggest a larger rate"
    return LrSuggestion(curve, suggestion, edge_step, advice, wider)


def _advice_without_drop(
    curve: LrCurve, range_test: LrRangeTest, drop: LossDrop, obstacle: str | None
) -> tuple[str, str | None]:
    """Return the advice for a loss without a drop, and the proposed range, if any.

    The proposed range always differs from that of the test.
    """
    last = float(curve.rates[-1])
    rose = curve.diverged or drop.is_above_start(float(curve.smoothed.max()))
    if obstacle is not None:
        return f"the loss did not fall at any rate up to {last:.2g}: {obstacle}", None
    if rose:
        verb = "diverged" if curve.diverged else "rose"
        lowest = last / 1e6
        if lowest > 0.9 * range_test.min_lr:
            lowest = range_test.min_lr / 1000
        lower = _range(lowest, last)
        why = f"up to a rate of {last:.2g}, the loss {verb} without a steady fall"
        return f"{why}; try {lower}", lower
    if last >= MAX_LR:
        return (
            f"the loss did not change up to {last:.2g}, the largest allowed rate; check "
            "the data, the initializer and the activations"
        ), None
    higher = _range(last / 10, last * 1000)
    return f"the loss did not change up to a rate of {last:.2g}; try {higher}", higher


def measure_loss_drop(curve: LrCurve) -> LossDrop:
    """Return the drop of the loss. If the first loss is not finite, no value is finite.

    The start is the mean over the first tenth of the steps, without steps after the minimum.
    """
    first = curve.losses[: max(1, min(len(curve.losses) // 10, curve.lowest + 1))]
    with np.errstate(invalid="ignore"):
        start, noise = float(first.mean()), float(first.std())
        return LossDrop(start, start - float(curve.smoothed[curve.lowest]), noise)


def _range(lowest: float, highest: float) -> str:
    return f"lr_find.min_lr={lowest:.2g} lr_find.max_lr={min(highest, MAX_LR):.2g}"
