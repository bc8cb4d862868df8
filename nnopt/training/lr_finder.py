"""A learning rate to start from: one training whose rate rises exponentially from step to step
(Smith 2017, "Cyclical learning rates for training neural networks", section 3.3).

The losses are smoothed by a bias-corrected exponential average (Gugger 2018, "How do you find a
good learning rate"):

    aₖ = β aₖ₋₁ + (1 - β) Lₖ,    sₖ = aₖ / (1 - βᵏ),    a₀ = 0, k = 1, 2, ...

The suggestion is a tenth of the edge: the largest rate whose smoothed loss is still within a tenth
of the whole fall from the smallest one. Gugger and fastai take a tenth of the rate of the smallest
loss itself; but where the loss has a plateau, noise decides where on it the smallest one lies, by
factors of 100 between seeds. ``docs/lr_find.md`` has the measurements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.backends.thread_choice import threads_for
from nnopt.data.dataset import Dataset
from nnopt.results.cores import thread_pools
from nnopt.schema import Config, Range
from nnopt.training.loop import epoch_batches

Floats = NDArray[np.float64]

BETA = 0.9
"""A memory of ten steps, a fifth of a decade with the default range; fastai's 0.98 is one of fifty,
and sees the loss rise half a decade late."""

DIVERGED = 4.0
"""The sweep stops once the smoothed loss is above so many times its smallest value (fastai's
factor), and above where it started: the small losses of easy data may rise fourfold by chance."""

EDGE = 0.1
"""The share of the whole fall within which a loss counts as low as the smallest one."""

MARGIN = 10.0
"""The edge over the suggestion: a whole training lasts longer than the steps near the edge did."""

MOST = 1_000_000
"""No rate above it is tried."""


Report = Callable[[int, float, float], None]
"""(steps done, learning rate of the last one, smoothed loss)."""


@dataclass(frozen=True)
class RateSweep:
    """The learning rates to try: ``steps`` of them, evenly spaced on a logarithmic scale."""

    lowest: Annotated[float, Range(above=0, maximum=MOST)] = 1e-5
    highest: Annotated[float, Range(above=0, maximum=MOST)] = 10.0
    steps: Annotated[int, Range(minimum=20, maximum=1_000_000)] = 300


@dataclass(frozen=True)
class RateCurve:
    """What a sweep saw, up to the step that ended it.

    rates, losses, smoothed: (K,), one entry a step. losses: mean of each batch, without penalties;
    only the last one may be not finite, and so the last smoothed one. diverged: did it end early?
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step, from 0, of the smallest smoothed loss, once the average's memory is full: the
        first ones are hardly averages. The last step if the sweep ended before."""
        full = min(round(1 / (1 - BETA)), len(self.smoothed) - 1)
        return full + int(np.argmin(np.nan_to_num(self.smoothed[full:], nan=np.inf)))


@dataclass(frozen=True)
class Fall:
    """How far the smoothed loss fell: from ``start``, the mean loss of the first steps, to its
    smallest value; ``noise``: the standard deviation of those first losses."""

    start: float
    depth: float
    noise: float

    @property
    def is_real(self) -> bool:
        """More than what smoothed noise does by itself, and than a hundredth of the loss? In one of
        a thousand sweeps of 300 steps, noise alone falls by 1.4 standard deviations."""
        return self.depth > self._least

    @property
    def _least(self) -> float:
        return max(2 * self.noise, 0.01 * abs(self.start))

    def is_exceeded(self, loss: float) -> bool:
        """Is a smoothed loss well above the start?"""
        return not loss - self.start <= self._least


@dataclass(frozen=True)
class FoundRate:
    """A sweep and what to make of it. suggestion: the rate, to two digits, or None, and then
    ``advice`` says which range to try; it may do so too where a wider one could give a better rate.
    edge: the step of the largest usable rate, see above; None without a suggestion.
    proposed_range: the range that ``advice`` proposes, in words of ``nnopt lr-find``."""

    curve: RateCurve
    suggestion: float | None
    edge: int | None
    advice: str | None
    proposed_range: str | None = None

    @property
    def loss_there(self) -> float:
        """The smoothed loss at the suggestion, NaN without one."""
        if self.suggestion is None:
            return math.nan
        curve = self.curve
        return float(np.interp(np.log(self.suggestion), np.log(curve.rates), curve.smoothed))


def find_learning_rate(
    config: Config,
    dataset: Dataset,
    architecture: Architecture,
    sweep: RateSweep,
    report: Report = lambda *_: None,
) -> FoundRate:
    """Sweep the learning rate over one training of the configured network, and read the curve.

    The network is a new one, from the configured first weights; batches, augmentation, dropout
    masks, penalties and optimizer are those of the run. ``config.schedule`` and
    ``config.optimizer.lr``, which may be "auto", play no part. The same configuration gives the
    same curve. report: called after each step.
    """
    backend = load_backend(config.backend.name)
    threads = threads_for(architecture, config, backend.default_threads())
    with np.errstate(all="ignore"), thread_pools().limit(limits=threads.count):
        network = backend.build_network(architecture, config)
        network.load(initial_arrays(architecture, config.initializer, config.seed, dataset))
        loader = backend.build_loader(dataset.train, dataset.normalization, config)
        curve = sweep_rates(network, endless_batches(config, dataset, loader), sweep, report)
    return read_curve(curve, sweep, _obstacle(config))


def _obstacle(config: Config) -> str | None:
    """Return why no rate lowers the loss of this configuration, as far as it says so itself."""
    if config.initializer.hidden == "zeros":
        return (
            "with initializer.hidden = 'zeros' no hidden layer has a gradient; choose another "
            "one, such as initializer=he"
        )
    return None


def endless_batches(
    config: Config, dataset: Dataset, loader: Loader
) -> Iterator[tuple[DeviceArray, DeviceArray]]:
    """The run's batches, epoch after epoch."""
    for epoch in itertools.count(1):
        yield from epoch_batches(config, dataset, loader, epoch)


def sweep_rates(
    network: Network,
    batches: Iterator[tuple[DeviceArray, DeviceArray]],
    sweep: RateSweep,
    report: Report = lambda *_: None,
) -> RateCurve:
    """Train one step with each rate, from the lowest, until the loss diverges."""
    rates = np.geomspace(sweep.lowest, sweep.highest, sweep.steps)
    losses: list[float] = []
    smoothed: list[float] = []
    average, smallest = 0.0, math.inf
    for step, (rate, (x, y)) in enumerate(zip(rates.tolist(), batches, strict=False)):
        network.train_step(x, y, rate, step)
        (loss,) = network.read_steps().losses.tolist()
        average = BETA * average + (1 - BETA) * loss
        losses.append(loss)
        smoothed.append(average / (1 - BETA ** (step + 1)))
        smallest = min(smallest, smoothed[-1])
        report(step + 1, rate, smoothed[-1])
        if not smoothed[-1] <= max(DIVERGED * smallest, smoothed[0]):  # NaN is not
            return _curve(rates, losses, smoothed, diverged=True)
    return _curve(rates, losses, smoothed, diverged=False)


def _curve(rates: Floats, losses: list[float], smoothed: list[float], diverged: bool) -> RateCurve:
    return RateCurve(rates[: len(losses)], np.array(losses), np.array(smoothed), diverged)


def read_curve(curve: RateCurve, sweep: RateSweep, obstacle: str | None = None) -> FoundRate:
    """Return the suggestion, or which range to try instead.

    obstacle: a reason of the configuration why the loss may not fall at any rate.
    """
    fall = measure_fall(curve)
    if not fall.is_real:
        return FoundRate(curve, None, None, *_advice_without_fall(curve, sweep, fall, obstacle))
    limit = curve.smoothed[curve.lowest] + EDGE * fall.depth
    edge = int(np.flatnonzero(curve.smoothed <= limit)[-1])
    is_last = edge == sweep.steps - 1
    wider = _range(sweep.lowest, sweep.highest * 100)
    suggestion = float(f"{curve.rates[edge] / MARGIN:.2g}")
    if suggestion < sweep.lowest:
        wider = _range(sweep.lowest / 1000, sweep.highest * (100 if is_last else 1))
        what = f"a tenth of the largest usable rate is below the lowest one, {sweep.lowest:g}"
        return FoundRate(curve, None, None, f"{what}; try {wider}", wider)
    if not is_last:
        return FoundRate(curve, suggestion, edge, None)
    low = f"the loss was still low at the highest rate; {wider} may suggest a larger one"
    return FoundRate(curve, suggestion, edge, low, wider)


def _advice_without_fall(
    curve: RateCurve, sweep: RateSweep, fall: Fall, obstacle: str | None
) -> tuple[str, str | None]:
    """Return what to try where the loss did not fall, and the range if it is one: never the range
    that was tried."""
    last = float(curve.rates[-1])
    rose = curve.diverged or fall.is_exceeded(float(curve.smoothed.max()))
    if obstacle is not None:
        return f"the loss did not fall at any rate up to {last:.2g}: {obstacle}", None
    if rose:
        what = "diverged" if curve.diverged else "rose"
        lowest = last / 1e6
        if lowest > 0.9 * sweep.lowest:
            lowest = sweep.lowest / 1000
        lower = _range(lowest, last)
        why = f"the loss {what} by a rate of {last:.2g} without a steady fall"
        return f"{why}; try {lower}", lower
    if last >= MOST:
        return (
            f"the loss stayed where it was up to a rate of {last:.2g}, the highest one; look at "
            "the data, the initializer and the activations"
        ), None
    higher = _range(last / 10, last * 1000)
    return f"the loss stayed where it was up to a rate of {last:.2g}; try {higher}", higher


def measure_fall(curve: RateCurve) -> Fall:
    """The fall of a curve. The start is measured over the first tenth of the steps, but not beyond
    the smallest smoothed loss. Where the losses are not finite from the start, all is NaN."""
    first = curve.losses[: max(1, min(len(curve.losses) // 10, curve.lowest + 1))]
    with np.errstate(invalid="ignore"):
        start, noise = float(first.mean()), float(first.std())
        return Fall(start, start - float(curve.smoothed[curve.lowest]), noise)


def _range(lowest: float, highest: float) -> str:
    return f"lr_find.lowest={lowest:.2g} lr_find.highest={min(highest, MOST):.2g}"
