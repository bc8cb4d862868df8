"""Tables as text, Markdown, LaTeX and HTML; records as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from nnopt.analysis.records import Record
from nnopt.analysis.tabulate import Cell, Table
from nnopt.io.safe_text import visible
from nnopt.terminal.safe_stream import aligned_lines

SUFFIXES = {
    ".txt": "table",
    ".csv": "csv",
    ".json": "json",
    ".md": "md",
    ".tex": "latex",
    ".html": "html",
}
"""Suffix of a file name -> name of the format."""

BEST_MARK = " *"
"""Mark after the best value in plain text. Other values are padded to keep the digits aligned."""


def to_text(table: Table) -> str:
    """Return a table in aligned columns of plain text."""
    lines = [table.title, *aligned_lines(table.header, text_rows(table), table.align)]
    return "\n".join([*lines, *table.notes]) + "\n"


def text_rows(table: Table) -> list[list[str]]:
    """Return the cells as plain text, with a mark on each best value."""
    marked = {i for row in table.rows for i, cell in enumerate(row) if cell.is_best}

    def text(column: int, cell: Cell) -> str:
        mark = BEST_MARK if cell.is_best else " " * len(BEST_MARK)
        return cell.text + (mark if column in marked else "")

    return [[text(i, cell) for i, cell in enumerate(row)] for row in table.rows]


def to_csv(rows: Sequence[Record], keep_formulas: bool = False) -> str:
    """Return records as CSV; numbers have full precision, and None is an empty cell.

    Spreadsheets interpret texts such as ``=A1`` as formulas. Such texts get a leading apostrophe
    unless ``keep_formulas`` is True.
    """
    as_cell = (lambda value: value) if keep_formulas else _without_formula
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(as_cell, rows[0]))
    writer.writerows(map(as_cell, row.values()) for row in rows)
    return text.getvalue()


_FORMULA = re.compile(r"\s*[=+\-@]")
_NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE
)


def _without_formula(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


_MARKDOWN = re.compile(r"[\\|*`~$]|(?<!\w)_|_(?!\w)|(?<=\])[(:\[]")
"""Characters that Markdown interprets. HTML is escaped separately."""


def to_markdown(table: Table) -> str:
    """Return a table in Markdown with the best values in bold."""

    def cell(text: str) -> str:
        return _MARKDOWN.sub(lambda found: "\\" + found[0], escape(visible(text), quote=False))

    rule = ["---:" if side == "r" else "---" for side in table.align]
    rows = [
        [f"**{cell(x.text)}**" if x.is_best else cell(x.text) for x in row] for row in table.rows
    ]
    cells = [[cell(title) for title in table.header], rule, *rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    notes = [f"- {cell(note)}" for note in _without_mark(table)]
    return "\n".join([cell(table.title), "", *lines, "", *notes]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """Return a ``tabular`` with the rules of booktabs and the best values in bold.

    The title and the notes are LaTeX comments.
    """
    comments = [f"% {visible(line)}" for line in (table.title, *_without_mark(table))]
    rows = [
        [_latex_cell(cell, side) for cell, side in zip(row, table.align, strict=True)]
        for row in table.rows
    ]
    lines = [
        *comments,
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{table.align}}}",
        "\\toprule",
        " & ".join(map(_latex_text, table.header)) + r" \\",
        "\\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell, side: str) -> str:
    """Return a cell in LaTeX. Numbers in right-aligned columns are in math mode."""
    if side == "l" or not re.search(r"\d", cell.text):
        return _latex_text(cell.text)
    formula = re.sub(r"e([+-]\d+)", lambda m: rf"\times 10^{{{int(m[1])}}}", cell.text)
    formula = formula.replace("±", r"\pm").replace(" [", r"\;[")
    return rf"$\mathbf{{{formula}}}$" if cell.is_best else f"${formula}$"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # LaTeX reads [ at the start of a row as an optional length
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in visible(text))


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25em .8em; text-align: left; white-space: nowrap }}
th {{ border-bottom: 1px solid #222 }}
tr + tr td {{ border-top: 1px solid #ddd }}
.r {{ text-align: right }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
<thead>
{head}
</thead>
<tbody>
{body}
</tbody>
</table>
{notes}
</body>
</html>
"""


def to_html(table: Table) -> str:
    """Return a self-contained HTML page with the best values in bold."""

    def cell(tag: str, side: str, text: str, is_best: bool = False) -> str:
        kind = ' class="r"' if side == "r" else ""
        inner = escape(visible(text))
        return f"<{tag}{kind}>{f'<strong>{inner}</strong>' if is_best else inner}</{tag}>"

    def row(cells: Sequence[str]) -> str:
        return f"<tr>{''.join(cells)}</tr>"

    sides = table.align
    head = row([cell("th", side, x) for side, x in zip(sides, table.header, strict=True)])
    body = "\n".join(
        row([cell("td", side, x.text, x.is_best) for side, x in zip(sides, line, strict=True)])
        for line in table.rows
    )
    notes = "\n".join(f"<p>{escape(visible(note))}</p>" for note in _without_mark(table))
    return _PAGE.format(title=escape(visible(table.title)), head=head, body=body, notes=notes)


RENDERERS = {"table": to_text, "md": to_markdown, "latex": to_latex, "html": to_html}
"""Name of a format -> function that converts a table to text.

``to_csv`` converts records, and ``nnopt.io.atomic_files.json_text`` converts a document.
"""


def _without_mark(table: Table) -> list[str]:
    """Return the notes for a format that shows the best values in bold instead of marking them."""
    mark = BEST_MARK.strip()
    return [
        note.replace(mark, "bold:", 1) if note.startswith(mark) else note for note in table.notes
    ]
