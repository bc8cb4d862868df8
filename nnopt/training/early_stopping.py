"""Early stopping: the best epoch so far, and the end of training without improvement."""

from __future__ import annotations

import math

from nnopt.results.checkpoint_file import typed
from nnopt.schema import EarlyStoppingConfig


class EarlyStopping:
    """Monitors one validation metric (Prechelt 1998, "Early stopping - but when?").

    A value is an improvement if it is better than the best one by more than ``min_delta``;
    NaN and infinity are never improvements. Training stops once ``patience`` epochs or steps have
    passed since the last improvement.

    Attributes:
        best_epoch, best_step: Epoch and step of the last improvement or call of ``start``; else 0.
    """

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self._config = config
        self._best = math.inf
        self.best_epoch = 0
        self.best_step = 0

    def start(self, epoch: int, step: int) -> None:
        """Count the epochs and steps without improvement from here."""
        self.best_epoch, self.best_step = epoch, step

    def monitored_value(self, loss: float, accuracy: float) -> float:
        """Return the monitored value, where lower is better.

        The value is infinite if the loss is not finite, because the accuracy is then meaningless.
        """
        if not math.isfinite(loss):
            return math.inf
        return loss if self._config.monitor == "loss" else -accuracy

    def update(self, value: float, epoch: int, step: int) -> bool:
        """Record a monitored value and return whether it is an improvement."""
        if not value < self._best - self._config.min_delta:
            return False
        self._best, self.best_epoch, self.best_step = value, epoch, step
        return True

    def should_stop(self, epoch: int, step: int) -> bool:
        """Return whether ``patience`` epochs or steps have passed since the last improvement."""
        if self._config.patience is None:
            return False
        waited = step - self.best_step
        if self._config.unit == "epochs":
            waited = epoch - self.best_epoch
        return waited >= self._config.patience

    def state(self) -> dict[str, float]:
        """Return the numbers that later updates depend on."""
        return {"best": self._best, "epoch": self.best_epoch, "step": self.best_step}

    def load_state(self, state: object) -> None:
        """Restore the numbers. Raises ValueError if they are not valid."""
        values = typed(state, {"best": float, "epoch": int, "step": int})
        self._best, self.best_epoch, self.best_step = values.values()
