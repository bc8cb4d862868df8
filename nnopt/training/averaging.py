"""Averages of the weights: what is evaluated and kept in place of the weights that train."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from nnopt.backends.protocol import DeviceArray, Network
from nnopt.schema import Config, ScheduleFreeConfig


def ema_decay(decay: float, t: int) -> float:
    """dₜ = min(decay, (1 + t) / (10 + t)) of update t, from 1: an average that is young forgets
    fast, so that the first weights, where it starts, have left it long before ``decay`` would let
    them go (TensorFlow's ``tf.train.ExponentialMovingAverage`` with ``num_updates``)."""
    return min(decay, (1 + t) / (10 + t))


def first_swa_epoch(share: float, epochs: int) -> int:
    """The first epoch at whose end this share of all ``epochs`` has passed."""
    return max(1, math.ceil(round(share * epochs, 9)))  # 0.55 · 100 is 55.00000000000001


class Averaging:
    """The configured average of all parameters and running statistics w, or none.

    ``ema``: with a₀ the first weights, after every update t

        aₜ = dₜ aₜ₋₁ + (1 - dₜ) wₜ

    (Polyak and Juditsky 1992, with equal weights; exponential ones as in Tarvainen and Valpola
    2017, section 2). ``swa``: at the end of every epoch from ``first_swa_epoch`` on, the n-th time

        aₙ = aₙ₋₁ + (wₙ - aₙ₋₁) / n

    and the running statistics anew, from the epoch's batches (Izmailov et al. 2018, algorithm 1,
    with a cycle of one epoch). Training goes on with w, and nothing that happens to a changes it.

    Schedule-Free averages by itself, in the optimizer: of it the running statistics alone are taken
    anew after every epoch, for the average that is evaluated, as its authors advise; looks within
    an epoch make do with those gathered in training.

    epochs: n, how many epochs' weights ``swa`` has taken in; 0 of ``ema``.
    """

    def __init__(self, network: Network, config: Config, epochs: int) -> None:
        """network: with the first weights loaded; epochs: of the whole training."""
        ema, swa = config.regularizer.ema, config.regularizer.swa
        self._network = network
        self._ema = ema
        self._swa_from = first_swa_epoch(swa, epochs) if swa else math.inf
        self._is_schedule_free = isinstance(config.optimizer, ScheduleFreeConfig)
        self.epochs = 0
        self._has_begun = bool(ema)
        if ema:
            network.average(1.0)

    def after_step(self, updates: int) -> None:
        """Take in the weights after so many updates."""
        if self._ema:
            self._network.average(1 - ema_decay(self._ema, updates))

    def after_epoch(
        self,
        epoch: int,
        batches: Callable[[int], Iterable[tuple[DeviceArray, DeviceArray]]],
        is_whole: bool,
    ) -> None:
        """Take in the weights at the end of an epoch, SWA of a whole one alone; ``batches`` gives
        its batches once more."""

        def inputs() -> Iterator[DeviceArray]:  # which draws nothing if no batch is asked for
            for x, _ in batches(epoch):
                yield x

        if self._is_schedule_free:
            self._network.recompute_statistics(inputs())
        if not is_whole or epoch < self._swa_from:
            return
        self.epochs += 1
        self._network.average(1 / self.epochs)
        self._has_begun = True
        with self.shown():
            self._network.recompute_statistics(inputs())

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the network holds the average, if there is one yet, in place of the weights."""
        if not self._has_begun:
            yield
            return
        self._network.swap_average()
        try:
            yield
        finally:
            self._network.swap_average()
