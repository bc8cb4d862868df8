"""What a run says: a live bar on a terminal, plain lines in a pipe, a summary, errors in one line.

All of it goes through ``Stream``, which never fails.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from nnopt.io.safe_text import visible
from nnopt.results.metrics_file import EpochRow
from nnopt.terminal.live_curves import live_curves, why_not
from nnopt.terminal.progress_bars import training_bar, work_bar
from nnopt.terminal.safe_stream import (
    Stream,
    aligned,
    aligned_lines,
    standard_error,
    standard_output,
)

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_LINES = 20  # about so many epochs are told to a pipe
REFRESH_SECONDS = 0.1  # between two updates of the live bar, at least
REFRESH_SHARE = 1 / 40  # of the time, which they may take at most

LEAST_VALUE = 20
"""Columns that a panel needs for its frame and its values, in addition to its names."""

View = Literal["bar", "terminal", "none"]
"""What is shown while a run trains."""


def next_refresh(started: float) -> float:
    """When a display may be drawn again that was drawn from then until now; on the clock of
    ``time.monotonic``."""
    ended = time.monotonic()
    return max(started + REFRESH_SECONDS, ended + (ended - started) / REFRESH_SHARE)


def note(message: str) -> None:
    """Print one message on stdout."""
    standard_output().write_line(visible(message))


def error(message: str) -> None:
    """Print ``nnopt: error: ...`` on stderr, one line per line of the message (one per problem)."""
    for line in message.split("\n"):
        standard_error().write_line(f"nnopt: error: {visible(line)}")


def note_missing_curves() -> None:
    """Say so, and why, if view=terminal cannot be had."""
    if reason := why_not(standard_output()):
        note(f"note: view=terminal: {reason}; view=bar takes its place")


def summary(title: str, pairs: Mapping[str, str], paths: Mapping[str, Path]) -> None:
    """Print what a run came to: names and values, then where its files lie.

    A panel on a terminal that is wide enough, else lines. Paths below the current folder are shown
    relative to it.
    """
    stream = standard_output()
    files = {name: short(path) for name, path in paths.items()}
    width = max(map(len, [*pairs, *files]), default=0)
    if stream.is_terminal():
        terminal = stream.rich()
        if terminal.width >= width + LEAST_VALUE:
            terminal.print(_panel(title, pairs, files))
            return
        width = 0  # the terminal breaks the lines, and cuts nothing
    stream.write_line(visible(title))
    for name, value in (*pairs.items(), *files.items()):
        stream.write_line(f"  {name:<{width}}  {visible(value)}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> None:
    """Print rows of text under a header. align: "l" or "r" for each column.

    A rich table on a terminal, its cells folded where that is narrow; in a pipe, columns two spaces
    apart, so that they can be cut.
    """
    stream = standard_output()
    lines = list(aligned_lines(header, rows, align))
    if stream.is_terminal():
        terminal = stream.rich()
        fits = max(map(len, lines)) + len(header) <= terminal.width
        terminal.print(_rich_table(header, rows, align, folded=not fits))
        return
    for line in lines:
        stream.write_line(line)


class GrowingTable:
    """A table whose rows are printed as they come, and on a terminal a bar below them.

        with GrowingTable(header, plan, "lrr", total) as table:
            table.advance()    # total times in all, as often as you like between two rows
            table.row(cells)

    plan: rows as wide as those to come. total: the work in all, in whatever unit.
    """

    def __init__(
        self, header: Sequence[str], plan: Sequence[Sequence[str]], align: str, total: int
    ) -> None:
        self._header = header
        self._widths = [max(map(len, column)) for column in zip(header, *plan, strict=True)]
        self._align = align
        self._total = total
        self._done = 0
        self._stream = standard_output()
        self._bar: Progress | None = None
        self._next_refresh = 0.0

    def __enter__(self) -> GrowingTable:
        if self._stream.is_terminal():
            self._bar = work_bar(self._stream.rich())
            self._bar.add_task("", total=self._total)
            self._bar.start()
        self.row(self._header)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def row(self, cells: Sequence[str]) -> None:
        """Print one more row."""
        line = aligned(cells, self._widths, self._align)
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write_line(line)

    def advance(self) -> None:
        """One unit of work is done. Most calls only look at a clock."""
        self._done += 1
        if self._bar is None or (now := time.monotonic()) < self._next_refresh:
            return
        self._next_refresh = now + REFRESH_SECONDS
        self._bar.update(self._bar.task_ids[0], completed=self._done)
        self._bar.refresh()


class RunConsole:
    """The progress of one training; a context manager around the loop.

        with RunConsole(epochs, steps_per_epoch) as console:
            ...
            console.step(steps_done)         # as often as you like
            console.epoch(row, best=True)    # once an epoch

    epochs: at most so many. steps_per_epoch: optimizer steps in each. done: epochs that a resumed
    training has behind it. Steps are counted from the first epoch. view: with "terminal" learning
    curves are drawn above the bar, where the terminal can show them; they stay at the end. "none":
    nothing is shown.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, done: int = 0, view: View = "bar"
    ) -> None:
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._done = done
        self._stream = Stream(None) if view == "none" else standard_output()
        self._bar: Progress | None = None
        self._curves = live_curves(view, self._stream)
        self._next_refresh = 0.0
        self._every = -(-epochs // PLAIN_LINES)
        self._told = True  # was the latest epoch printed?
        self._latest = ""

    def __enter__(self) -> RunConsole:
        if self._stream.is_terminal():
            terminal = self._stream.rich()
            above = None if self._curves is None else partial(self._curves.text, terminal)
            self._bar = training_bar(terminal, above)
            steps = self._epochs * self._steps_per_epoch
            completed = self._done * self._steps_per_epoch
            counter = self._counter(min(self._done + 1, self._epochs))
            self._bar.add_task("", total=steps, completed=completed, counter=counter, metrics="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            if self._curves is not None and (text := self._curves.text(self._bar.console)):
                self._bar.console.print(text)
        if not self._told:  # the last epoch is always told, also if training stopped early
            self._stream.write_line(self._latest)

    def step(self, done_steps: int) -> None:
        """So many optimizer steps are done. Costs nothing much: most calls only look at a clock."""
        if self._bar is None or (now := time.monotonic()) < self._next_refresh:
            return
        counter = self._counter(min(done_steps // self._steps_per_epoch + 1, self._epochs))
        self._bar.update(self._bar.task_ids[0], completed=done_steps, counter=counter)
        if self._curves is not None:
            self._curves.make_room(self._bar.console)
        self._bar.refresh()
        self._next_refresh = next_refresh(now)

    def epoch(self, row: EpochRow, best: bool) -> None:
        """An epoch is done; ``best``: it has the best weights so far."""
        parts = [self._counter(row.epoch), *_metrics(row), "best" if best else ""]
        self._latest = "  ".join(parts).rstrip()
        if self._curves is not None:
            self._curves.add(row)
        if self._bar is not None:
            # The bar vanishes at the end; this line, as short as can be, then stands in its place.
            self._latest, self._told = "  ".join(part.strip() for part in parts).rstrip(), False
            self._bar.update(self._bar.task_ids[0], metrics="  ".join(parts[1:]))
            self.step(row.step)
            return
        first, last = row.epoch == self._done + 1, row.epoch == self._epochs
        self._told = first or last or row.epoch % self._every == 0
        if self._told:
            self._stream.write_line(self._latest)

    def note(self, message: str) -> None:
        """Print one message, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(visible(message), markup=False, highlight=False)
        else:
            self._stream.write_line(visible(message))

    def _counter(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"


class SweepConsole:
    """The progress of a sweep of the learning rate, on a terminal only; a context manager.

    with SweepConsole(steps) as console:
        console.step(steps_done, lr, loss)    # after each

    quiet: nothing is shown.
    """

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self._steps = steps
        self._stream = Stream(None) if quiet else standard_output()
        self._bar: Progress | None = None
        self._next_refresh = 0.0

    def __enter__(self) -> SweepConsole:
        if self._stream.is_terminal():
            self._bar = training_bar(self._stream.rich())
            self._bar.add_task("", total=self._steps, counter=self._counter(0), metrics="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, done: int, lr: float, loss: float) -> None:
        """So many steps are done, the last with this rate and loss. Most calls only look at a
        clock."""
        if self._bar is None or (now := time.monotonic()) < self._next_refresh:
            return
        self._next_refresh = now + REFRESH_SECONDS
        metrics = f"loss {loss:<8.4g}  lr {lr:<8.3g}"
        counter = self._counter(done)
        self._bar.update(self._bar.task_ids[0], completed=done, counter=counter, metrics=metrics)
        self._bar.refresh()

    def _counter(self, done: int) -> str:
        return f"learning rate, step {done:>{len(str(self._steps))}}/{self._steps}"


def _panel(title: str, pairs: Mapping[str, str], files: Mapping[str, str]) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")  # a long path is broken, not cut: it can still be copied
    for name, value in pairs.items():
        grid.add_row(Text(visible(name)), Text(visible(value), style="bold"))
    if pairs and files:
        grid.add_row("", "")
    for name, value in files.items():
        grid.add_row(Text(name), Text(visible(value), style="cyan"))
    return Panel(grid, title=Text(visible(title), style="bold"), expand=False, padding=(0, 1))


def _rich_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, folded: bool
) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, side in zip(header, align, strict=True):
        justify: Literal["left", "right"] = "right" if side == "r" else "left"
        table.add_column(Text(visible(name)), justify=justify, no_wrap=not folded, overflow="fold")
    for row in rows:
        table.add_row(*[Text(visible(cell)) for cell in row])
    return table


def _metrics(row: EpochRow) -> list[str]:
    """Loss, accuracies and learning rate, each padded to the width it has in any epoch."""
    parts = [f"loss {row.train_loss:<z8.4g}", f"train {row.train_accuracy:.4f}"]
    if row.validation_accuracy is not None:
        parts.append(f"val {row.validation_accuracy:.4f}")
    return [*parts, f"lr {row.lr:<8.3g}"]


def short(path: Path) -> str:
    """The path, relative to the current folder if it lies below it."""
    with suppress(ValueError, OSError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
