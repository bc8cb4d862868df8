"""Terminal output of a long computation: permanent lines, and a live part below them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from nnopt.io.safe_text import visible
from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.safe_stream import Stream, standard_output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

log = logging.getLogger("nnopt")

ProgressMode = Literal["bar", "curves", "none"]  # values of the configuration key ``progress``
REFRESH_SECONDS = 0.1  # minimum time between two refreshes
REFRESH_FRACTION = 1 / 40  # maximum fraction of the total time that refreshes may take
MIN_COLUMNS, MIN_LINES = 40, 12  # smallest terminal in which learning curves are drawn
LINES_BELOW_CURVES = 3  # lines for the bar (in a sweep, a title), the text and the cursor
PLAIN_COLUMNS = 80  # maximum length of a line of metrics if no bar can be drawn
MAX_PLAIN_LINES = 20  # approximate number of epochs that a training prints if no bar can be drawn


class LiveDisplay:
    """Permanent lines and, on a terminal, a live part below, which is redrawn.

    The live part consists of learning curves, a progress bar and the line ``text``. The curves need
    mode="curves" and a terminal that can show them. The bar represents ``total`` units of work, and
    the text ``counter`` is to its left. Without ``total``, there is no bar. Only calls of ``draw``
    and ``advance`` redraw the live part. In a pipe, a file or a dumb terminal, or with mode="none",
    only the permanent lines are written. On closing, ``final_line`` is printed, and the curves
    remain above it. If ``final_line`` is empty, the curves are removed::

        with LiveDisplay("curves", total=1200, counter="epoch  1/60") as display:
            display.add_epoch(row)
            if display.is_due():
                display.text = "loss 0.8755"
                display.draw(completed=20)
            display.print_line("a permanent line")
    """

    def __init__(
        self, mode: ProgressMode = "bar", total: int | None = None, counter: str = ""
    ) -> None:
        self.counter, self.text, self.final_line = counter, "", ""
        self._stream = standard_output()
        self._is_live = mode != "none" and self._stream.is_terminal()
        self._has_curves = mode == "curves" and no_curves_reason(self._stream) is None
        self._total, self._completed = total, 0
        self._progress: Progress | None = None
        self._next_refresh = 0.0
        self._rows: list[EpochRow] = []  # rows of the learning curves
        self._title = ""
        self._curves: Text | None = None
        self._drawn: tuple[int, int, int] | None = None  # number of rows, columns, lines
        self._size: tuple[int, int] | None = None
        if self._has_curves:
            import plotext  # noqa: F401  # the slow import happens before training starts

    def __enter__(self) -> Self:
        if self._is_live:
            self._progress = _rich_progress(self, self._stream.rich())
            self._progress.add_task("", total=self._total, counter=self.counter)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def width(self) -> int | None:
        """The width of the terminal in columns, or None if there is no live part."""
        return None if self._progress is None else self._progress.console.width

    def close(self) -> None:
        """Remove the live part and print the final line. A second call has no effect."""
        if self._progress is not None:
            self._progress.stop()
            if self.final_line and (curves := self.curves(self._progress.console)):
                self._progress.console.print(curves)
            self._progress = None
        if self.final_line:
            self._stream.write_line(self.final_line)
            self.final_line = ""

    def print_line(self, line: str) -> None:
        """Print a permanent line above the live part."""
        if self._progress is not None:
            terminal = self._progress.console
            terminal.print(visible(line), markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write_line(visible(line))

    def add_epoch(self, row: EpochRow, title: str = "") -> None:
        """Add an epoch to the curves. A new title or a smaller epoch number starts new curves."""
        if not self._has_curves:
            return
        if title != self._title or (self._rows and row.epoch <= self._rows[-1].epoch):
            self._title, self._drawn = title, None
            self._rows.clear()
        self._rows.append(row)

    def is_due(self) -> bool:
        """Return whether it is time to redraw the live part. The call only reads a clock."""
        return self._progress is not None and time.monotonic() >= self._next_refresh

    def advance(self) -> None:
        """Complete one unit of work, and redraw if a refresh is due."""
        self._completed += 1
        if self.is_due():
            self.draw(self._completed)

    def draw(self, completed: int | None = None) -> None:
        """Redraw the live part now. ``completed`` is the number of completed units of work."""
        if self._progress is None:
            return
        started = time.monotonic()
        self._progress.update(self._progress.task_ids[0], completed=completed, counter=self.counter)
        if self._has_curves:
            self._clear_after_resize(self._progress.console)
        self._progress.refresh()
        ended = time.monotonic()
        pause = (ended - started) / REFRESH_FRACTION
        self._next_refresh = max(started + REFRESH_SECONDS, ended + pause)

    def _clear_after_resize(self, terminal: Console) -> None:
        """Clear the screen after a resize, because the terminal has wrapped the old lines."""
        if self._size not in (None, terminal.size):
            terminal.clear()
        self._size = terminal.size

    def curves(self, terminal: Console) -> Text | None:
        """Return the learning curves, or None before the first epoch or on a small terminal."""
        columns, lines = terminal.size
        current = len(self._rows), columns, lines
        if current != self._drawn:
            self._drawn, self._curves = current, None
            if self._rows and columns >= MIN_COLUMNS and lines >= MIN_LINES:
                self._curves = self._draw_curves(columns, lines - LINES_BELOW_CURVES)
        return self._curves

    def _draw_curves(self, columns: int, lines: int) -> Text | None:
        from rich.text import Text

        from nnopt.terminal import plotext_curves

        try:
            curves = plotext_curves.curves(self._rows, columns, lines)
        except Exception:  # an error of drawing must not end the training
            log.exception("the learning curves cannot be drawn")
            return None
        if not self._title:
            return curves
        title = Text(visible(self._title), no_wrap=True, style="bold")
        title.truncate(columns, overflow="ellipsis")
        return title.append("\n").append_text(curves)


class TrainingProgress(LiveDisplay):
    """Progress display of one training: a bar on a terminal, otherwise a line every few epochs.

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
        counter, metrics = self._counter(row.epoch), _metrics(row, best)
        self.add_epoch(row)
        if self.width is not None:
            self.text = _fitted(metrics, self.width)
            short = {name: _narrow(part) for name, part in metrics.items()}
            self.final_line = _fitted({"counter": counter, **short}, self.width)
            self.step(row.step)
            return
        line = _fitted({"counter": counter, **metrics}, PLAIN_COLUMNS)
        if row.epoch in (1, self._epochs) or row.epoch % self._epochs_per_line == 0:
            self.print_line(line)
            line = ""
        self.final_line = line

    def _counter(self, epoch: int) -> str:
        return f"epoch {min(epoch, self._epochs):>{len(str(self._epochs))}}/{self._epochs}"


class LrSearchProgress(LiveDisplay):
    """Progress display of a learning rate range test. Nothing is shown if no bar can be drawn."""

    def __init__(self, steps: int, mode: ProgressMode = "bar") -> None:
        self._steps = steps
        super().__init__(mode, steps, self._counter(0))

    def step(self, done_steps: int, lr: float, loss: float) -> None:
        """Report the number of completed steps, and the learning rate and loss of the last step."""
        if self.is_due():
            self.counter = self._counter(done_steps)
            self.text = f"loss {loss:<8.4g}  lr {lr:<8.3g}"
            self.draw(done_steps)

    def _counter(self, done_steps: int) -> str:
        return f"learning rate, step {done_steps:>{len(str(self._steps))}}/{self._steps}"


def _metrics(row: EpochRow, best: bool) -> dict[str, str]:
    """Format the metrics of an epoch by name, padded to the width that they usually have."""
    loss, accuracy = f"loss {_loss(row.train_loss)}", f"acc {row.train_accuracy:.4f}"
    if row.validation_loss is not None and row.validation_accuracy is not None:
        loss += f" val {_loss(row.validation_loss)}"
        accuracy += f" val {row.validation_accuracy:.4f}"
    return {
        "loss": loss,
        "accuracy": accuracy,
        "lr": f"lr {row.lr:<7.3g}",
        **({"best": "best"} if best else {}),
    }


def _loss(value: float) -> str:
    """Format a loss in at least 7 characters with four significant digits."""
    return f"{value:<z7.4g}"


def _fitted(parts: Mapping[str, str], columns: int) -> str:
    """Join the parts of a line. If they do not fit, leave out padding, learning rate and loss.

    Args:
        parts: The parts by name.
        columns: The width of the terminal.
    """
    short = {x: part if x == "counter" else _narrow(part) for x, part in parts.items()}
    lines = [parts, short]
    for left_out in (("lr",), ("lr", "loss")):
        lines.append({name: part for name, part in short.items() if name not in left_out})
    texts = ["  ".join(line.values()).rstrip() for line in lines]
    return next((text for text in texts if len(text) <= columns), texts[-1])


def _narrow(part: str) -> str:
    """Remove the padding of a part of a line."""
    return " ".join(part.split())


def no_curves_reason(stream: Stream | None = None) -> str | None:
    """Return why a stream cannot show learning curves, or None if the stream can show them."""
    stream = stream or standard_output()
    if not stream.is_terminal():
        return "the output is not a terminal that can be redrawn"
    if not stream.can_show("┤⣿▟"):
        return f"the output's encoding, {stream.encoding}, lacks the characters for curves"
    columns, lines = shutil.get_terminal_size()
    if columns < MIN_COLUMNS or lines < MIN_LINES:
        return (
            f"the terminal has {columns} columns and {lines} lines, but curves need at least "
            f"{MIN_COLUMNS} and {MIN_LINES}"
        )
    return None


def _rich_progress(display: LiveDisplay, terminal: Console) -> Progress:
    """Return a rich display of at most three parts: curves, bar and text, in this order."""
    from rich import progress
    from rich.text import Text

    class Parts(progress.Progress):
        def get_renderables(self) -> Any:
            if (curves := display.curves(terminal)) is not None:
                yield curves
            if self.tasks and self.tasks[0].total is not None:
                yield self.make_tasks_table(self.tasks)
            if display.text:
                text = Text(display.text, no_wrap=True, overflow="ellipsis", style="cyan")
                text.highlight_words(["loss", "acc", "val", "lr"], style="dim")
                text.highlight_words(["best"], style="bold green")
                yield text

    counter = [progress.TextColumn("{task.fields[counter]}")] if display.counter else []
    return Parts(
        *counter,
        progress.BarColumn(bar_width=None),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(compact=True),
        progress.TextColumn("left"),
        console=terminal,
        auto_refresh=False,
        transient=True,
        expand=True,
    )
