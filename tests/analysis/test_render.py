"""Tables in every format: their content is read back, and no cell breaks the format."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from nnopt.analysis.records import Record
from nnopt.analysis.render import (
    RENDERERS,
    SUFFIXES,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    to_text,
)
from nnopt.analysis.tabulate import Cell, Table

NASTY = "a|b & <i>50 %</i> $x_1$ #{~^\\} *\n"

TABLE = Table(
    title="accuracy, mean ± standard deviation",
    header=("optimizer", NASTY, "accuracy", "p (Holm)"),
    align="llrr",
    rows=(
        (Cell("sgd"), Cell("–"), Cell("0.894 ± 0.024"), Cell("<0.001")),
        (Cell("adam"), Cell(NASTY), Cell("(2.3 ± 1.1)e-07", is_best=True), Cell("–")),
    ),
    notes=("* the best mean", "left out: 1 failed"),
)


def test_text_table_is_aligned_and_marks_the_best_mean() -> None:
    lines = to_text(TABLE).splitlines()
    assert len(lines) == 6
    assert lines[0] == TABLE.title
    header, sgd, adam = lines[1:4]
    end = header.index("accuracy") + len("accuracy")
    assert sgd[:end].endswith("0.894 ± 0.024  ")
    assert adam[:end].endswith("(2.3 ± 1.1)e-07 *")
    assert r"*\n" in adam


def test_csv_table_is_read_back_bit_by_bit() -> None:
    rows = [{"key": NASTY, "mean": 0.1 + 0.2, "std": None}, {"key": "b", "mean": 1e-300, "std": 1}]
    found = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert found[0]["key"] == NASTY
    assert [float(row["mean"]) for row in found] == [0.1 + 0.2, 1e-300]
    assert found[0]["std"] == ""


def test_markdown_rows_have_equal_numbers_of_cells() -> None:
    lines = [line for line in to_markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {6}
    assert lines[1] == "| --- | --- | ---: | ---: |"
    assert "**(2.3 ± 1.1)e-07**" in lines[3]
    assert "\n- bold: the best mean\n- left out: 1 failed\n" in to_markdown(TABLE)


def test_latex_table_escapes_text_and_typesets_numbers() -> None:
    lines = to_latex(TABLE).splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 3
    assert r"\begin{tabular}{llrr}" in lines
    assert body[1] == r"sgd & -- & $0.894 \pm 0.024$ & $<0.001$ \\"
    assert r"$\mathbf{(2.3 \pm 1.1)\times 10^{-7}}$" in body[2]
    assert r"a|b \& \textless{}i\textgreater{}50 \%" in body[2]
    assert r"\$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}" in body[2]
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == 3
        assert not re.search(r"(?<!\\)[%#]", line)


def test_latex_table_shows_lists_as_text_and_keeps_spaces_in_math_mode() -> None:
    cells = (Cell("[64, 32]"), Cell("-0.2 [-0.3, -0.1]"))
    body = to_latex(Table("title", ("hidden", "difference"), "lr", (cells,), ()))
    assert r"{[}64, 32] & $-0.2\;[-0.3, -0.1]$" in body


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if set(self.open) & {"td", "th"}:
            self.cells[-1] += data


def test_html_table_is_read_back() -> None:
    page = _Cells()
    page.feed(to_html(TABLE))
    assert page.open == []
    shown = NASTY.replace("\n", "\\n")
    assert page.cells[:4] == ["optimizer", shown, "accuracy", "p (Holm)"]
    assert page.cells[4:8] == ["sgd", "–", "0.894 ± 0.024", "<0.001"]
    assert page.tags.count("strong") == 1
    assert "i" not in page.tags


@pytest.mark.parametrize("form", sorted(RENDERERS))
def test_rendered_table_contains_all_cells_and_notes(form: str) -> None:
    text = RENDERERS[form](TABLE)
    for word in ("mean ± standard deviation", "optimizer", "adam", "left out: 1 failed"):
        assert word in text
    assert text.endswith("\n")
    assert {*RENDERERS, "csv", "json"} == set(SUFFIXES.values())


FORMULAS = ("=1+1", "+cmd|x", "-2+3", "@SUM(A1)", " =1", "\t=1", "-", "-a")


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_formula_becomes_text_unless_formulas_are_kept(text: str) -> None:
    rows: list[Record] = [{text: text, "mean": -0.5}]
    header, row = csv.reader(io.StringIO(to_csv(rows)))
    assert (header[0], row) == (f"'{text}", [f"'{text}", "-0.5"])
    assert list(csv.reader(io.StringIO(to_csv(rows, keep_formulas=True)))) == [
        [text, "mean"],
        [text, "-0.5"],
    ]


@pytest.mark.parametrize("text", ["-0.1", "+3", "-1e-05", "-inf", "[-1, 2]", "a=b", "null", ""])
def test_csv_number_or_plain_text_is_kept(text: str) -> None:
    assert list(csv.reader(io.StringIO(to_csv([{"a": text, "b": 1}]))))[1] == [text, "1"]


def test_links_emphasis_and_html_are_escaped_in_markdown() -> None:
    nasty = (
        "<img src=x onerror=alert(1)> &lt; [a](javascript:x) ![b][c] `d` ~~e~~ _f_ $g$ test_loss"
    )
    text = to_markdown(Table(nasty, (nasty,), "l", ((Cell(nasty),),), (nasty,)))
    assert "<" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt; &amp;lt; [a]\\(javascript:x)") == 4
    assert text.count(r"![b]\[c] \`d\` \~\~e\~\~ \_f\_ \$g\$ test_loss") == 4
