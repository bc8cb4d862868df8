"""Messages, summaries and tables on the standard streams.

All output goes through ``nnopt.terminal.safe_stream``, so a failed write never ends the process.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from nnopt.io.safe_text import visible
from nnopt.terminal.safe_stream import aligned_lines, standard_error, standard_output

MIN_VALUE_COLUMNS = 20  # minimum width of a panel in characters, not counting the column of names
COLUMN_GAP = 3  # characters between two columns of a table of rich


def note(message: str) -> None:
    """Print a message on stdout."""
    standard_output().write_line(visible(message))


def error(message: str) -> None:
    """Print an error on stderr, with ``nnopt: error:`` before each line of the message."""
    for line in message.split("\n"):
        standard_error().write_line(f"nnopt: error: {visible(line)}")


def resume_command(folder: Path) -> str:
    """Return the command that resumes a run or sweep."""
    return f"nnopt resume {shlex.quote(short(folder))}"


def summary(title: str, pairs: Mapping[str, str], paths: Mapping[str, Path]) -> None:
    """Print the results of a command and the paths of its files, in a panel if it fits."""
    stream = standard_output()
    files = {name: short(path) for name, path in paths.items()}
    width = max(map(len, [*pairs, *files]), default=0)
    if stream.is_terminal():
        terminal = stream.rich()
        if terminal.width >= width + MIN_VALUE_COLUMNS:
            terminal.print(_panel(title, pairs, files))
            return
        width = 0  # no alignment, because the terminal wraps long lines
    stream.write_line(visible(title))
    for name, value in (*pairs.items(), *files.items()):
        stream.write_line(f"  {name:<{width}}  {visible(value)}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> None:
    """Print a table: with rich on a terminal, otherwise as columns that are two spaces apart.

    On a narrow terminal the text of cells is wrapped at spaces. If the columns are too narrow for
    their longest words, each row is printed as a list of names and values. ``align`` has "l" or "r"
    for each column.
    """
    stream = standard_output()
    if stream.is_terminal():
        terminal = stream.rich()
        widths = column_widths(header, rows, terminal.width - COLUMN_GAP * (len(header) - 1))
        if widths is not None:
            terminal.print(_rich_table(header, rows, align, widths))
            return
        lines = _lists(header, rows)
    else:
        lines = aligned_lines(header, rows, align)
    for line in lines:
        stream.write_line(line)


def column_widths(
    header: Sequence[str], rows: Sequence[Sequence[str]], available: int
) -> list[int] | None:
    """Return column widths that break no word, or None if the table does not fit.

    As many columns as possible have space for their longest cell, so that few columns are wrapped.
    """
    columns = [[visible(cell) for cell in column] for column in zip(header, *rows, strict=True)]
    longest = [max(map(len, column)) for column in columns]
    widths = [
        max(len(word) for cell in column for word in ("", *cell.split())) for column in columns
    ]
    if (rest := available - sum(widths)) < 0:
        return None
    for i in sorted(range(len(widths)), key=lambda i: longest[i] - widths[i]):
        added = min(rest, longest[i] - widths[i])
        widths[i], rest = widths[i] + added, rest - added
    return widths


def _lists(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each cell, and an empty line between two rows."""
    width = max(map(len, header))
    for index, row in enumerate(rows):
        if index:
            yield ""
        for name, cell in zip(header, row, strict=True):
            yield visible(f"{name:<{width}}  {cell.strip()}")


def _panel(title: str, pairs: Mapping[str, str], files: Mapping[str, str]) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")  # wraps a long path, so that it can be copied
    for name, value in pairs.items():
        grid.add_row(Text(visible(name)), Text(visible(value), style="bold"))
    if pairs and files:
        grid.add_row("", "")
    for name, value in files.items():
        grid.add_row(Text(name), Text(visible(value), style="cyan"))
    return Panel(grid, title=Text(visible(title), style="bold"), expand=False, padding=(0, 1))


def _rich_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, widths: Sequence[int]
) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, side, width in zip(header, align, widths, strict=True):
        justify: Literal["left", "right"] = "right" if side == "r" else "left"
        table.add_column(Text(visible(name)), justify=justify, width=width, overflow="fold")
    for row in rows:
        table.add_row(*[Text(visible(cell)) for cell in row])
    return table


def short(path: Path) -> str:
    """Return a path as text. A path inside the current folder is relative to that folder."""
    with suppress(ValueError, OSError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
