"""Progress displays of a training and of a learning rate range test."""

from __future__ import annotations

from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.live_display import LiveDisplay, ProgressMode

MAX_PLAIN_LINES = 20
"""Approximate number of epochs to print if no bar can be drawn."""


class TrainingProgress(LiveDisplay):
    """Progress display of one training: a bar on a terminal, else a line for every few epochs.

    Unless mode="none", the last epoch is always printed, even if the training ends early.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, mode: ProgressMode = "bar") -> None:
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._epochs_per_line = -(-epochs // MAX_PLAIN_LINES)
        self._is_silent = mode == "none"
        super().__init__(mode, epochs * steps_per_epoch, self._counter(1))

    def step(self, done_steps: int) -> None:
        """Report the number of completed optimizer steps. Most calls only read a clock."""
        if self.is_due():
            self.counter = self._counter(done_steps // self._steps_per_epoch + 1)
            self.draw(done_steps)

    def epoch(self, row: EpochRow, best: bool) -> None:
        """Report an epoch, and whether its validation metric is the best so far."""
        if self._is_silent:
            return
        counter, metrics = self._counter(row.epoch), _metrics(row)
        metrics += ["best"] if best else []
        self.add_epoch(row)
        if self.width is not None:
            self.text = "  ".join(metrics)
            self.final_line = "  ".join(part.strip() for part in (counter, *metrics))
            self.step(row.step)
            return
        line = "  ".join([counter, *metrics]).rstrip()
        if row.epoch in (1, self._epochs) or row.epoch % self._epochs_per_line == 0:
            self.print_line(line)
            line = ""
        self.final_line = line

    def _counter(self, epoch: int) -> str:
        return f"epoch {min(epoch, self._epochs):>{len(str(self._epochs))}}/{self._epochs}"


class LrSearchProgress(LiveDisplay):
    """Progress display of a learning rate range test; empty if no bar can be drawn."""

    def __init__(self, steps: int, mode: ProgressMode = "bar") -> None:
        self._steps = steps
        super().__init__(mode, steps, self._counter(0))

    def step(self, done_steps: int, lr: float, loss: float) -> None:
        """Report the number of completed steps, and learning rate and loss of the last step."""
        if self.is_due():
            self.counter = self._counter(done_steps)
            self.text = f"loss {loss:<8.4g}  lr {lr:<8.3g}"
            self.draw(done_steps)

    def _counter(self, done_steps: int) -> str:
        return f"learning rate, step {done_steps:>{len(str(self._steps))}}/{self._steps}"


def _metrics(row: EpochRow) -> list[str]:
    """Format loss, accuracies and learning rate, each padded to a constant width."""
    parts = [f"loss {row.train_loss:<z8.4g}", f"train {row.train_accuracy:.4f}"]
    if row.validation_accuracy is not None:
        parts.append(f"val {row.validation_accuracy:.4f}")
    return [*parts, f"lr {row.lr:<8.3g}"]
