"""The live bars of a terminal, drawn by rich; ``nnopt.terminal.console`` says when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text


def work_bar(console: Console) -> Progress:
    """One line that vanishes at the end: the bar, with the time left."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = BarColumn(bar_width=None), TaskProgressColumn(), TimeRemainingColumn(compact=True)
    return Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)


def live_line(console: Console, above: Callable[[], Text | None] | None = None) -> Progress:
    """One line of text that vanishes at the end, cut where the terminal ends: the field ``text`` of
    its task. above: what else to draw, asked at every refresh."""
    from rich.progress import Progress
    from rich.text import Text

    class Line(Progress):
        def get_renderables(self) -> Any:
            if above is not None and (text := above()) is not None:
                yield text
            for task in self.tasks:
                yield Text(task.fields["text"], no_wrap=True, overflow="ellipsis", style="cyan")

    return Line(console=console, auto_refresh=False, transient=True)


def training_bar(console: Console, above: Callable[[], Text | None] | None = None) -> Progress:
    """Two lines, so that 60 columns are enough: the bar with the time left, and the metrics.

    above: what else to draw, asked at every refresh. The fields of its task: ``counter``, such as
    "epoch 1/60", and ``metrics``, empty for none.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class TwoLines(Progress):
        def get_renderables(self) -> Any:
            if above is not None and (text := above()) is not None:
                yield text
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                yield _coloured(task.fields["metrics"]) if task.fields["metrics"] else Text("")

    return TwoLines(
        TextColumn("{task.fields[counter]}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        auto_refresh=False,  # no thread: the loop says when
        transient=True,
        expand=True,
    )


def _coloured(metrics: str) -> Text:
    from rich.text import Text

    text = Text(metrics, no_wrap=True, overflow="ellipsis", style="cyan")
    text.highlight_words(["loss", "train", "val", "lr"], style="dim")
    text.highlight_words(["best"], style="bold green")
    return text
