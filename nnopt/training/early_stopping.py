"""Early stopping: the best epoch so far, and the end of training without improvement."""

from __future__ import annotations

import math

from nnopt.results.checkpoint_file import typed
from nnopt.schema import EarlyStoppingConfig
from nnopt.training.improvement import is_improvement


class EarlyStopping:
    """Monitors one validation metric (Prechelt 1998, "Early stopping - but when?").

    The best value determines the best weights, however small its improvement is. The patience
    starts again only if a value is better by more than ``min_delta`` than the last value at which
    the patience started. NaN and infinity are never improvements. Training stops once ``patience``
    epochs or steps have passed since the last start of the patience.
    """

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self._config = config
        self._best = math.inf
        self._reference = math.inf  # the value at the last start of the patience
        self._epoch = self._step = 0  # the last start of the patience

    def start(self, epoch: int, step: int) -> None:
        """Start the patience here, at an epoch and step without a value."""
        self._epoch, self._step = epoch, step

    def monitored_value(self, loss: float, accuracy: float) -> float:
        """Return the monitored value, where lower is better.

        The value is infinite if the loss is not finite, because the accuracy is then meaningless.
        """
        if not math.isfinite(loss):
            return math.inf
        return loss if self._config.monitor == "loss" else -accuracy

    def update(self, value: float, epoch: int, step: int) -> bool:
        """Record a monitored value and return whether it is the best one so far."""
        if is_improvement(value, self._reference, self._config):
            self._reference = value
            self.start(epoch, step)
        if not value < self._best:
            return False
        self._best = value
        return True

    def should_stop(self, epoch: int, step: int) -> bool:
        """Return whether ``patience`` epochs or steps have passed since the patience started."""
        if self._config.patience is None:
            return False
        waited = step - self._step
        if self._config.unit == "epochs":
            waited = epoch - self._epoch
        return waited >= self._config.patience

    def state(self) -> dict[str, float]:
        """Return the numbers that later updates depend on."""
        return {
            "best": self._best,
            "reference": self._reference,
            "epoch": self._epoch,
            "step": self._step,
        }

    def load_state(self, state: object) -> None:
        """Restore the numbers. Raises ValueError if they are not valid."""
        values = typed(state, {"best": float, "reference": float, "epoch": int, "step": int})
        self._best, self._reference, self._epoch, self._step = values.values()
