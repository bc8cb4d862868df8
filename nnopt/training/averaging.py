"""Averages of the weights, for evaluation in place of the trained weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from nnopt.backends.protocol import DeviceArray, Network
from nnopt.results.checkpoint_file import typed
from nnopt.schema import Config, ScheduleFreeConfig


def ema_decay(decay: float, t: int) -> float:
    """Return the decay dₜ = min(decay, (1 + t) / (10 + t)) of update t = 1, 2, ...

    The decay is small at first, so that the average soon forgets the initial weights
    (TensorFlow's ``tf.train.ExponentialMovingAverage`` with ``num_updates``).
    """
    return min(decay, (1 + t) / (10 + t))


def first_swa_epoch(fraction: float, epochs: int) -> int:
    """Return the first epoch at whose end ``fraction`` of all ``epochs`` is complete."""
    return max(1, math.ceil(round(fraction * epochs, 9)))  # 0.55 · 100 is 55.00000000000001


class Averaging:
    """The configured average aₜ, over time, of each parameter or running statistic wₜ; or none.

    ``ema`` starts with the initial weights a₀. After every update t (Tarvainen and Valpola 2017,
    section 2; Polyak and Juditsky 1992 proposed averaging, with equal weights),

        aₜ = dₜ aₜ₋₁ + (1 - dₜ) wₜ

    ``swa`` starts at ``first_swa_epoch``. At the end of its n-th epoch (Izmailov et al. 2018,
    algorithm 1, with a cycle of one epoch),

        aₙ = aₙ₋₁ + (wₙ - aₙ₋₁) / n

    SWA then recomputes the running statistics from the batches of the epoch. Training continues
    with w and never reads the average.

    Schedule-Free optimizers compute their own average. For them, only the running statistics are
    recomputed after every epoch, as their authors recommend. Evaluations within an epoch use the
    statistics that training collected.

    Attributes:
        epochs: n, the number of epochs in the SWA average; 0 for ``ema``.
    """

    def __init__(self, network: Network, config: Config, epochs: int) -> None:
        """Start the average at the loaded weights of ``network``. epochs: length of training."""
        ema, swa = config.regularizer.ema_decay, config.regularizer.swa_start
        self._network = network
        self._ema = ema
        self._first_swa_epoch = first_swa_epoch(swa, epochs) if swa else math.inf
        self._is_schedule_free = isinstance(config.optimizer, ScheduleFreeConfig)
        self.epochs = self._averaged_epoch = self._first_step = 0
        if ema:
            network.average(1.0)

    @property
    def is_used(self) -> bool:
        """Whether evaluation uses an average in place of the trained weights."""
        return bool(self._ema or self.epochs)

    def restart(self, network: Network, step: int) -> None:
        """Start the average again with the weights of ``network``, after ``step`` steps."""
        self._network, self._first_step = network, step
        self.epochs = self._averaged_epoch = 0
        if self._ema:
            self._network.average(1.0)

    def after_step(self, step: int) -> None:
        """Update the exponential average after ``step`` updates of the weights."""
        if self._ema:
            self._network.average(1 - ema_decay(self._ema, step - self._first_step))

    def after_epoch(
        self,
        epoch: int,
        batches: Callable[[int], Iterable[tuple[DeviceArray, DeviceArray]]],
        is_complete: bool,
    ) -> None:
        """Update the SWA average after an epoch; recompute statistics for SWA and Schedule-Free.

        SWA ignores an incomplete epoch. ``batches`` returns the batches of an epoch again. If an
        interruption ends the recomputation, a second call repeats it, but not the update.
        """

        def inputs() -> Iterator[DeviceArray]:  # lazy: draws no random number unless iterated
            for x, _ in batches(epoch):
                yield x

        if self._is_schedule_free:
            self._network.recompute_statistics(inputs())
        if not is_complete or epoch < self._first_swa_epoch:
            return
        if epoch != self._averaged_epoch:  # else an interrupted call has updated the average
            self.epochs, self._averaged_epoch = self.epochs + 1, epoch
            self._network.average(1 / self.epochs)
        with self.applied():
            self._network.recompute_statistics(inputs())

    def state(self) -> dict[str, int]:
        """Return the numbers that later updates depend on. The network holds the average."""
        numbers = {"epochs": self.epochs, "averaged_epoch": self._averaged_epoch}
        return numbers | {"first_step": self._first_step}

    def load_state(self, state: object) -> None:
        """Restore the numbers. Raises ValueError if they are not valid."""
        values = typed(state, dict.fromkeys(("epochs", "averaged_epoch", "first_step"), int))
        self.epochs, self._averaged_epoch, self._first_step = values.values()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average, if any, in place of the network's weights within the context."""
        if not self.is_used:
            yield
            return
        self._network.swap_average()
        try:
            yield
        finally:
            self._network.swap_average()
