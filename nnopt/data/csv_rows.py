"""Reads the rows of a CSV file in chunks.

``np.loadtxt`` parses the cells: it rounds correctly, and it is fast for any number of columns. If
it fails, the chunk is parsed again in Python, for a message with row, column and value.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data.csv_columns import Columns
from nnopt.data.csv_merged import equal_pair, merged_note
from nnopt.data.csv_text import MAX_LINE_LENGTH, is_number
from nnopt.data.duplicates import different_values
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import quoted
from nnopt.schema import CsvConfig

CHUNK_CELLS = 2**18
CHUNK_ROWS = 10_000
MAX_CHUNK_LENGTH = 8 * MAX_LINE_LENGTH  # characters

MAX_EXACT = 2.0**53  # float64 represents all smaller whole numbers exactly
LARGEST = float(np.finfo(np.float32).max)

DIGITS = bytes.maketrans(b"123456789.E", b"0000000000e")
LONG, TINY = b"0" * 16, b"e-000"
"""A number may be inexact in float64 if its text, translated by ``DIGITS``, has one of these."""

SWAP = str.maketrans(",.", ".,")  # exchanges commas and points, for decimal commas

Chunk = tuple[NDArray[np.float64], list[str]]  # rows: values (n, D), and the text of each label


@dataclass
class RowReader:
    """Reads the lines after the header."""

    lines: Iterator[str]  # without blank lines
    columns: Columns
    separator: str
    config: CsvConfig
    path: Path
    done: int = 0  # rows read so far
    note: str = ""  # says which different numbers of a column are equal in float64
    _number: type = np.int64
    _lines_taken: list[str] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows. Raises DataError for a missing cell, or a feature that is no number."""
        most = max(1, min(CHUNK_ROWS, CHUNK_CELLS // len(self.columns.names)))
        while (first := next(self.lines, None)) is not None:
            self.lines = chain([first], self.lines)
            table = self._table(most)
            values, labels = self._chunk(table)
            if any('"' in line for line in self._lines_taken):
                # NumPy and Python may read different rows, for instance after an open quote.
                found = sum(1 for _ in self._records())
                if found != len(table):
                    raise self._problem(f"NumPy reads {len(table):,} rows, Python {found:,}")
            if not self.note and self._may_merge(values):
                self.note = self._merged(values)
            self.done += len(table)
            yield values, labels

    def _may_merge(self, values: NDArray[np.float64]) -> bool:
        """Return whether float64 may round different numbers in this chunk to the same value."""
        if np.abs(values).max(initial=0) > MAX_EXACT:
            return True
        if self._number is np.int64:
            return False
        text = self._swapped("".join(self._lines_taken)).encode().translate(DIGITS)
        return LONG in text or (b"e" in text and TINY in text)

    def _merged(self, values: NDArray[np.float64]) -> str:
        """Return a note on two different numbers of a column that are equal in float64, if any."""
        counts = different_values(values)
        repeating = np.flatnonzero(counts < len(values)).tolist()
        records = list(self._records()) if repeating else []
        for feature in repeating:
            index = self.columns.features[feature]
            texts = {cells[index] for cells in records}
            if len(texts) > counts[feature] and (
                pair := equal_pair({self._swapped(text).strip() for text in texts})
            ):
                return merged_note(self.columns.names[index], pair)
        return ""

    def _table(self, most: int) -> NDArray[Any]:
        """Return up to ``most`` rows as a structured array; see ``_kind``."""
        kind = self._kind()
        options: dict[str, Any] = {
            "delimiter": self._swapped(self.separator),
            "comments": None,
            "quotechar": '"',
            "max_rows": most,
            "ndmin": 1,
        }
        self._lines_taken = []
        try:
            with warnings.catch_warnings():
                # By default, NumPy only warns and reads 1.5 as the whole number 1.
                warnings.simplefilter("error", DeprecationWarning)
                return np.loadtxt(self._feed(self.lines), dtype=kind, **options)
        except (ValueError, DeprecationWarning) as error:
            if self._number is np.int64:  # int64 is tried first: it is parsed four times as fast
                self._number = np.float64
                self.lines = chain(self._lines_taken, self.lines)
                return self._table(most)
            raise self._problem(str(error)) from error

    @cached_property
    def _input_order(self) -> NDArray[np.int64] | None:
        """Return column indices that turn file order into feature order; None if both are equal."""
        order = np.argsort(np.argsort(self.columns.features))
        return None if np.array_equal(order, np.arange(len(order))) else order

    def _kind(self) -> np.dtype[Any]:
        """Return the NumPy type of a row. Adjacent columns of numbers are one field."""
        features, fields = set(self.columns.features), list[Any]()
        for are_numbers, run in groupby(range(len(self.columns.names)), features.__contains__):
            indices = list(run)
            if are_numbers:
                fields.append((f"numbers {indices[0]}", self._number, (len(indices),)))
            else:
                fields += [(f"text {index}", object) for index in indices]
        return np.dtype(fields)

    def _chunk(self, table: NDArray[Any]) -> Chunk:
        names = table.dtype.names or ()
        runs = [table[name] for name in names if name.startswith("numbers")]
        values = np.concatenate(runs, axis=1, dtype=np.float64)
        if not (np.abs(values) <= LARGEST).all():  # NaN is not <= anything
            raise self._problem("a number is not finite, or too large")
        if self._input_order is not None:
            values = values[:, self._input_order]
        if not self.columns.has_labels:
            return values, []
        labels = table[f"text {self.columns.label}"].tolist()
        if self.config.decimal == "comma":
            labels = [label.translate(SWAP) for label in labels]
        return values, labels

    def _feed(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the lines for NumPy, and keep them for a second reading. Raises DataError."""
        characters = 0
        for count, line in enumerate(lines):
            self._lines_taken.append(line)
            characters += len(line)
            if characters > MAX_CHUNK_LENGTH or count > 2 * CHUNK_ROWS:
                raise DataError(
                    f"{shown(self.path)}: a quotation mark is never closed, or a cell is "
                    f"too long, in row {self.done + 1:,} (counted after the header) or one of "
                    f"the next {CHUNK_ROWS:,} rows"
                )
            yield self._swapped(line)

    def _swapped(self, text: str) -> str:
        return text.translate(SWAP) if self.config.decimal == "comma" else text

    def _records(self) -> Iterator[list[str]]:
        """Read the rows of this chunk again, with Python's reader. Raises DataError."""
        row = self.done
        try:
            for cells in csv.reader(self._lines_taken, delimiter=self.separator, strict=True):
                row += 1
                yield cells
        except csv.Error as error:
            raise DataError(
                f"{shown(self.path)} is no CSV file: {error}, in row {row + 1:,} (counted after "
                "the header); is a quotation mark not closed, or not doubled within a cell?"
            ) from error

    def _problem(self, reason: str) -> DataError:
        """Return the error for the first cell of this chunk that cannot be used."""
        names, width = self.columns.names, len(self.columns.names)
        features = sorted(self.columns.features)
        for row, cells in enumerate(self._records(), start=self.done + 1):
            where = f"{shown(self.path)}: row {row:,} (counted after the header)"
            if len(cells) != width:
                return DataError(
                    f"{where} has {len(cells):,} cells, but there are {width:,} columns; it begins "
                    f"with {quoted(self.separator.join(cells[:5]))}"
                )
            for index in features:
                if not abs(self._value(cells[index])) <= LARGEST:
                    return DataError(
                        f"{where}, column {quoted(names[index])} holds {quoted(cells[index])}; "
                        f"expected a finite number of at most {LARGEST:.2g}"
                        f"{self._hint(cells[index], names[index], row)}"
                    )
        return DataError(f"{shown(self.path)} is no CSV file: {quoted(' '.join(reason.split()))}")

    def _value(self, cell: str) -> float:
        """Return the number in a cell, as NumPy reads it; NaN if the cell has no number."""
        text = self._swapped(cell).strip()
        return float(text) if text.isascii() and "_" not in text and is_number(text) else math.nan

    def _hint(self, cell: str, name: str, row: int) -> str:
        if not self.config.header and row == 1:
            return "; if the first line has the names of columns, set dataset.header=true"
        if "," in cell and self.config.decimal == "point":
            return (
                "; if the comma is a decimal comma, set dataset.decimal=comma; if it separates "
                "thousands, delete it"
            )
        if not self.columns.has_labels:  # a table of inputs to predict, which needs all columns
            return ""
        return f"; leave the column out with dataset.drop_columns=[{quoted(name)}]"
