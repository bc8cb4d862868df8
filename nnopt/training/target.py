"""The target of a run: when the training first reaches a given value of a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nnopt.results.checkpoint_file import typed
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import TargetConfig


class Target:
    """Records the first evaluation whose metric is at least as good as the target value.

    An accuracy reaches its target at this value or above, a loss at this value or below. While the
    loss of the same data is not finite, no target is reached.

    Attributes:
        step: Optimizer steps before this evaluation; None if the target has not been reached.
        seconds: Time of training until the end of this evaluation, without the time between an
            interruption and the resume; None if the target has not been reached.
    """

    def __init__(self, config: TargetConfig) -> None:
        self._part, _, self._kind = (config.metric or "").partition("_")
        self._value = config.value
        self.step: int | None = None
        self.seconds: float | None = None

    @property
    def is_reached(self) -> bool | None:
        """Whether the target has been reached; None if the run has no target."""
        return None if self._value is None else self.step is not None

    def after_epoch(self, row: EpochRow, earlier: Sequence[EpochRow]) -> None:
        """Record the evaluation after an epoch. ``earlier`` are the rows of the epochs before."""
        if self._part == "train":
            loss, accuracy = row.train_loss, row.train_accuracy
        elif row.validation_loss is None or row.validation_accuracy is None:
            return
        else:
            loss, accuracy = row.validation_loss, row.validation_accuracy
        if self._is_first(loss, accuracy):
            self.step, self.seconds = row.step, math.fsum(x.seconds for x in (*earlier, row))

    def within_epoch(
        self,
        loss: float,
        accuracy: float,
        step: int,
        earlier: Sequence[EpochRow],
        seconds: float,
    ) -> None:
        """Record an evaluation of the validation data within an epoch.

        Args:
            loss: The validation loss.
            accuracy: The validation accuracy.
            step: The number of optimizer steps so far.
            earlier: The rows of the epochs before.
            seconds: The time spent on this epoch so far.
        """
        if self._part == "validation" and self._is_first(loss, accuracy):
            self.step = step
            self.seconds = math.fsum(x.seconds for x in earlier) + seconds

    def _is_first(self, loss: float, accuracy: float) -> bool:
        """Return whether an evaluation is the first one that reaches the target."""
        if self._value is None or self.step is not None or not math.isfinite(loss):
            return False
        return accuracy >= self._value if self._kind == "accuracy" else loss <= self._value

    def state(self) -> dict[str, float | None]:
        """Return the step and the seconds."""
        return {"step": self.step, "seconds": self.seconds}

    def load_state(self, state: object) -> None:
        """Restore the step and the seconds. Raises ValueError if they are not valid."""
        values = typed(state, {"step": int | None, "seconds": float | None})
        if (values["step"] is None) is not (values["seconds"] is None):
            raise ValueError("the step and the seconds of its target contradict each other")
        self.step, self.seconds = values["step"], values["seconds"]
