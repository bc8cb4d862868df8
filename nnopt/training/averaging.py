"""Averages of the weights: what is evaluated and kept in place of the weights that train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nnopt.backends import Network
from nnopt.schema import RegularizerConfig


def ema_decay(decay: float, t: int) -> float:
    """dₜ = min(decay, (1 + t) / (10 + t)) of update t, from 1: an average that is young forgets
    fast, so that the first weights, where it starts, have left it long before ``decay`` would let
    them go (TensorFlow's ``tf.train.ExponentialMovingAverage`` with ``num_updates``)."""
    return min(decay, (1 + t) / (10 + t))


class Averaging:
    """The configured average of all parameters and running statistics w, or none.

    ``ema``: with a₀ the first weights, after every update t

        aₜ = dₜ aₜ₋₁ + (1 - dₜ) wₜ

    (Polyak and Juditsky 1992, with equal weights; exponential ones as in Tarvainen and Valpola
    2017, section 2). Training goes on with w, and nothing that happens to a changes it.
    """

    def __init__(self, network: Network, config: RegularizerConfig) -> None:
        """network: with the first weights loaded."""
        self._network = network
        self._ema = config.ema
        self._has_begun = bool(config.ema)
        if config.ema:
            network.average(1.0)

    def after_step(self, updates: int) -> None:
        """Take in the weights after so many updates."""
        if self._ema:
            self._network.average(1 - ema_decay(self._ema, updates))

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
