"""Which weights are the best so far, and whether to stop waiting for better ones."""

from __future__ import annotations

import math

from nnopt.schema import EarlyStoppingConfig


class EarlyStopping:
    """Follows one validation metric (Prechelt 1998, "Early stopping - but when?").

    A value counts as an improvement if it beats the best one by more than ``min_improvement``; NaN
    and infinity never do. Training stops once ``patience`` epochs or steps have passed since the
    best value.
    """

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self._config = config
        self._best = math.inf
        self.best_epoch = 0
        self.best_step = 0

    def badness(self, loss: float, accuracy: float) -> float:
        """The monitored value, turned so that smaller is better. Logits that are not finite have
        some accuracy, but no merit: their loss tells."""
        if not math.isfinite(loss):
            return math.inf
        return loss if self._config.monitor == "loss" else -accuracy

    def look(self, badness: float, epoch: int, step: int) -> bool:
        """Take in a value; is it the best so far?"""
        if not badness < self._best - self._config.min_improvement:
            return False
        self._best, self.best_epoch, self.best_step = badness, epoch, step
        return True

    def should_stop(self, epoch: int, step: int) -> bool:
        """Has patience run out?"""
        if self._config.patience is None:
            return False
        waited = step - self.best_step
        if self._config.unit == "epochs":
            waited = epoch - self.best_epoch
        return waited >= self._config.patience
