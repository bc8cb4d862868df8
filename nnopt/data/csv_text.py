"""Reads the text of a CSV file: unpacking, lines, separator and header."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, TextIO

from nnopt.data.dataset_files import GZIP_FLOOR, GZIP_RATIO, check_regular, unreadable
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import quoted
from nnopt.schema import CsvConfig

MAX_LINE_LENGTH = 2**24  # characters
MAX_HEADER_LINES = 1_000  # names in quotation marks can contain line breaks

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
PACKED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7-zip",
}

UNPACKING_ERRORS = (
    *(EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile),
    *(NotImplementedError, RuntimeError),  # raised for an unknown compression or a password
)


def is_number(text: str) -> bool:
    """Return whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return a text with the first ``most`` names, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(quoted, names[:most])) + more


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a CSV file: plain, gzipped, or the only one in a ZIP. Reading may raise DataError."""
    check_regular(path)
    try:
        with ExitStack() as stack:
            raw: IO[bytes] = stack.enter_context(path.open("rb"))
            packed: IO[bytes] | gzip.GzipFile | None = None
            start = raw.read(8)
            raw.seek(0)
            if start.startswith(b"\x1f\x8b"):
                packed = gzip.GzipFile(fileobj=raw)
            elif start.startswith(b"PK\x03\x04"):
                archive = stack.enter_context(zipfile.ZipFile(raw))
                packed = stack.enter_context(archive.open(_only_table(archive, path)))
            else:
                _check_start(start, path)
            if packed is not None:
                raw = io.BufferedReader(_Bounded(packed, path))  # type: ignore[type-var]
            yield io.TextIOWrapper(raw, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown(path)} is not UTF-8 text: byte 0x{error.object[error.start]:02x} "
            f"({error.reason}); save the table as CSV in UTF-8"
        ) from error
    except UNPACKING_ERRORS as error:
        raise DataError(f"{shown(path)} cannot be unpacked: {error}; unpack it yourself") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _check_start(start: bytes, path: Path) -> None:
    """Raise DataError if the first bytes are those of a packed file or of UTF-16 text."""
    for magic, name in PACKED.items():
        if start.startswith(magic):
            raise DataError(f"{shown(path)} is packed with {name}; unpack it first")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start:
        raise DataError(
            f"{shown(path)} is not UTF-8 text, perhaps UTF-16; save the table as CSV in UTF-8"
        )


def _only_table(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """Return the only CSV file of an archive; other files are ignored. Raises DataError."""
    names = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not member.filename.startswith("__MACOSX/")
        and PurePosixPath(member.filename).suffix.lower() in (".csv", ".tsv", ".txt")
    ]
    if len(names) != 1:
        found = listed([member.filename for member in names or archive.infolist()])
        count = "no CSV file" if not names else f"{len(names):,} CSV files"
        raise DataError(
            f"{shown(path)} is a ZIP archive with {count} ({found}), expected one; unpack the table"
        )
    return names[0]


class _Bounded(io.RawIOBase):
    """A stream of unpacked bytes that raises DataError if there are too many."""

    def __init__(self, packed: IO[bytes] | gzip.GzipFile, path: Path) -> None:
        self._packed, self._path = packed, path
        self._left = max(GZIP_FLOOR, GZIP_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        content = self._packed.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise DataError(
                f"{shown(self._path)} unpacks to more than {GZIP_FLOOR:,} bytes and to "
                f"more than {GZIP_RATIO} times its size; if you trust the file, unpack it yourself"
            )
        buffer[: len(content)] = content
        return len(content)


def lines_of(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines that are not blank. Raises DataError for a line that is too long."""
    while line := file.readline(MAX_LINE_LENGTH + 1):
        if len(line) > MAX_LINE_LENGTH:
            raise DataError(
                f"{shown(path)} has a line of more than {MAX_LINE_LENGTH:,} characters, which "
                f"begins with {quoted(line)}; is it a CSV file?"
            )
        if line.strip(" \r\n"):
            yield line


class Header(NamedTuple):
    """The names of all columns, the first line with values, and the separator of the cells."""

    names: list[str]
    first: str
    separator: str


def read_header(lines: Iterator[str], config: CsvConfig, path: Path) -> Header:
    """Read the names of the columns; without a header, number the columns. Raises DataError."""
    line, given = _record(lines, path), config.separator
    separator = None if given is None else SEPARATORS.get(given, given)
    if line.lower().startswith("sep=") and len(line.strip("\r\n")) == 5:  # written by Excel
        separator = separator or line[4]
        line = _record(lines, path)
    if separator is None:
        separator = _find_separator(line, config, path)
    names = [name.strip() for name in split(line, separator, path)]
    if config.header:
        first = next(lines, "")
    else:
        first, names = line, [str(number) for number in range(len(names))]
    if not first:
        raise DataError(f"{shown(path)} has a header line but 0 rows; expected some")
    has_whole_record = names[-1] == "" and first.count('"') % 2 == 0
    if has_whole_record and len(split(first, separator, path)) == len(names) - 1:
        names.pop()  # the header ends with a separator, but the rows do not
    return Header(names, first, separator)


def _record(lines: Iterator[str], path: Path) -> str:
    """Return the first line, joined with the next ones while a quotation mark is open."""
    text = ""
    for line in islice(lines, MAX_HEADER_LINES):
        text += line
        if text.count('"') % 2 == 0 or len(text) > MAX_LINE_LENGTH:
            return text
    if not text:
        raise DataError(f"{shown(path)} is no CSV file with a header line: it is empty")
    raise DataError(f"{shown(path)}: a quotation mark in the header is never closed")


def split(line: str, separator: str, path: Path) -> list[str]:
    """Return the cells of one record. Raises DataError."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{shown(path)} is no CSV file: {error}, in the line that begins with "
            f"{quoted(line.rstrip())}"
        ) from error


def _find_separator(line: str, config: CsvConfig, path: Path) -> str:
    """Return the separator that makes the label a column, else the only one found, else a comma."""
    columns = {}
    for word, separator in SEPARATORS.items():
        with suppress(DataError):
            names = split(line, separator, path)
            if len(names) > 1:
                columns[word] = [name.strip(" \r\n") for name in names]
    for word, names in columns.items():
        if config.header and str(config.label) in names:
            return SEPARATORS[word]
    if len(columns) > 1:
        raise ConfigError(
            f"dataset.separator: the first line of {shown(path)}, {quoted(line.rstrip())}, could "
            f"be divided by {' or '.join(columns)}; set dataset.separator={next(iter(columns))} or "
            "another"
        )
    return SEPARATORS[next(iter(columns), "comma")]
