"""The classes of a CSV file: equal numbers such as 7, 007 and 7.0 are one class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.data.csv_text import is_number, listed
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import quoted

MAX_LABEL_LENGTH = 256
MAX_LABELS = 100_000
WHOLE = re.compile(r"([+-]?)0*(\d+?)(\.0*)?", re.ASCII)
BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass
class Labels:
    """The labels of a file."""

    path: Path
    has_decimal_commas: bool = False
    first_rows: dict[str, int] = field(default_factory=dict)  # text -> first row with this text
    codes: list[np.ndarray] = field(default_factory=list)  # per chunk: indices in ``first_rows``
    rows: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def add(self, texts: Iterable[str]) -> None:
        """Add the labels of the next rows. Raises DataError if a label cannot be a class."""
        codes: list[int] = []
        for text in map(str.strip, texts):
            if text not in self._numbers:
                self.first_rows[text] = self.rows + len(codes)
                self._check(text)
                self._numbers[text] = len(self._numbers)
            codes.append(self._numbers[text])
        self.rows += len(codes)
        self.codes.append(np.array(codes, dtype=np.int32))

    def _check(self, text: str) -> None:
        """Raise DataError for a label that cannot be a class."""
        problem = ""
        if len(text) > MAX_LABEL_LENGTH:
            problem = f"at most {MAX_LABEL_LENGTH} characters"
        elif text.lower() in ("", "nan"):
            problem = "whole numbers, or names; fill the label in, or delete the row"
        elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
            problem = "names on one line, without control characters"
        elif BIDIRECTIONAL.intersection(text):
            problem = "names without characters that reorder text"
        elif len(self._numbers) == MAX_LABELS:
            raise DataError(
                f"{shown(self.path)} has more than {MAX_LABELS:,} different labels; is "
                "dataset.label the column of classes?"
            )
        if problem:
            raise DataError(f"{self._where(text)}; allowed are {problem}")

    def _where(self, text: str) -> str:
        row = f"row {self.first_rows[text] + 1:,} (counted after the header)"
        return f"{shown(self.path)}: label {quoted(text)} in {row}"

    def whole(self, text: str) -> str | None:
        """Return the whole number that a label represents, such as 7 for 007, else None."""
        if number := WHOLE.fullmatch(self._with_points(text)):
            return ("-" if number[1] == "-" and number[2] != "0" else "") + number[2]
        return None

    def classes(self) -> tuple[tuple[str, ...], list[str]]:
        """Return the classes, and notes. Raises DataError for numbers that are not all whole."""
        whole = {text: self.whole(text) for text in self.first_rows}
        others = [text for text, number in whole.items() if number is None]
        if others and all(is_number(self._with_points(text)) for text in whole):
            raise DataError(
                f"{self._where(others[0])}; allowed are whole numbers in digits, such as 1000, or "
                "names; a quantity is no class: is dataset.label the right column?"
            )
        if others:
            return tuple(sorted(whole)), []
        spellings: dict[str, list[str]] = {}
        for text, number in whole.items():
            spellings.setdefault(str(number), []).append(text)
        notes = []
        if several := [number for number, texts in spellings.items() if len(texts) > 1]:
            more = f" ({len(several) - 1:,} more like this)" if len(several) > 1 else ""
            notes.append(
                f"{shown(Path(self.path.name))}: the labels {listed(spellings[several[0]])} are "
                f"one class, {several[0]}{more}"
            )
        return tuple(sorted(spellings, key=int)), notes

    def _with_points(self, text: str) -> str:
        return text.replace(",", ".") if self.has_decimal_commas else text

    def numbers(self, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the class number of each row. Raises DataError for a label not in ``classes``."""
        by_name = {name: number for number, name in enumerate(classes)}
        are_whole = all(WHOLE.fullmatch(name) for name in classes)
        numbers = []
        for text in self.first_rows:
            name = (self.whole(text) or text) if are_whole else text
            if name not in by_name:
                raise DataError(
                    f"{self._where(text)} is no class of the training file; its classes are "
                    f"{listed(classes, 20)}"
                )
            numbers.append(by_name[name])
        return np.take(np.array(numbers, dtype=np.int64), np.concatenate(self.codes))
