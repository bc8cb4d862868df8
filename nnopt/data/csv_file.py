"""Reads CSV files whose rows are samples: one column has labels, the others pixels or features.

Columns with the names of pixels become uint8 images, other columns become float64 features. The
classes are the sorted labels: labels 1, 5 and 9 are the classes 0, 1 and 2, named "1", "5" and "9".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.data.csv_columns import Columns, check_dropped, find_columns, match_columns
from nnopt.data.csv_labels import Labels
from nnopt.data.csv_rows import RowReader
from nnopt.data.csv_text import lines_of, listed, open_text, read_header
from nnopt.data.dataset_files import check_regular, file_sha256
from nnopt.data.source import Decoded, Source
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import quoted
from nnopt.schema import CsvConfig, Validation

MAX_NAMES_LENGTH = 2**20  # characters in the names of all features together
MIN_COUNTED_ROWS = 10  # in fewer rows, a feature may equal the row number by chance


@dataclass
class Table:
    """A decoded CSV file."""

    inputs: np.ndarray  # (M, C, H, W) uint8 or (M, D) float64
    labels: Labels
    columns: Columns
    note: str  # says that different numbers are equal in float64; empty if there are none


def locate(config: CsvConfig, root: Path, working: Path) -> Source[CsvConfig]:
    """Find the files, relative to ``root`` or else to the working directory. Raises DataError."""
    paths, names = {}, {}
    for part, name in (("train", config.train), ("test", config.test)):
        if name is not None:
            path = paths[part] = _find(f"dataset.{part}", name, root, working)
            names[part] = str(path.relative_to(root) if path.is_relative_to(root) else path)
    # Keys that do not affect decoding get fixed values, so that they do not change the cache key.
    settings = replace(
        config,
        train=names["train"],
        test=names.get("test"),
        classes=None,
        subset=None,
        normalization="none",
        test_fraction=0.5,
        validation=Validation("none", 0.5),
    )
    return Source(config.name, " and ".join(map(str, paths.values())), paths, settings, _decode)


def _find(key: str, name: str, root: Path, working: Path) -> Path:
    if not name:
        raise ConfigError(f"{key} is empty; give the path of a CSV file")
    expanded = os.path.expanduser(name)
    candidates = [root / expanded, working / expanded]
    for path in candidates:
        if os.path.exists(path):  # unlike Path.exists, False for a name that is too long
            check_regular(path)
            return path
    looked = " or ".join(dict.fromkeys(shown(path) for path in candidates))
    raise DataError(
        f"{key}={name} not found: looked for {looked}; give a path relative to data.root or to the "
        "working directory"
    )


def _decode(config: CsvConfig, paths: Mapping[str, Path]) -> Decoded:
    first = paths["train"]
    train = read_table(first, config, lambda names: find_columns(names, config, first))
    tables = {"train": train}
    if "test" in paths:
        other, columns = paths["test"], train.columns
        tables["test"] = read_table(
            other, config, lambda names: match_columns(names, columns, config, other)
        )
    check_dropped(config, [table.columns.names for table in tables.values()], paths["train"])
    classes, notes = train.labels.classes()
    parts = {part: (x.inputs, x.labels.numbers(classes)) for part, x in tables.items()}
    sources = {getattr(config, part): file_sha256(path) for part, path in paths.items()}
    features = tuple(train.columns.feature_names)
    if sum(map(len, features)) > MAX_NAMES_LENGTH:
        features = ()
    remarks = [("train", _row_numbers(train)), ("train", _first_line(train, config))]
    remarks += [(part, table.note) for part, table in tables.items()]
    notes += [f"{shown(Path(paths[part].name))}: {text}" for part, text in remarks if text]
    return Decoded(classes, parts, sources, notes=tuple(notes), features=features)


def read_table(path: Path, config: CsvConfig, find: Callable[[list[str]], Columns]) -> Table:
    """Read a whole file. ``find`` returns the columns for the names of all columns."""
    with open_text(path) as file:
        lines = lines_of(file, path)
        header = read_header(lines, config, path)
        columns = find(header.names)
        reader = RowReader(chain([header.first], lines), columns, header.separator, config, path)
        width = len(columns.features)
        inputs = np.empty((0, width), np.uint8 if columns.shape else np.float64)
        labels, count = Labels(path, config.decimal == "comma"), 0
        for values, texts in reader.chunks():
            rows = slice(count, count + len(values))
            if rows.stop > len(inputs):  # large arrays grow without a copy
                inputs.resize((rows.stop + len(inputs) // 4, width), refcheck=False)
            if columns.shape:
                _check_pixels(values, columns, rows.start, path)
            inputs[rows] = values
            count = rows.stop
            labels.add(texts)
        inputs.resize((count, width), refcheck=False)
    return Table(_images(inputs, columns.shape, config), labels, columns, reader.note)


def _images(inputs: np.ndarray, shape: tuple[int, ...], config: CsvConfig) -> np.ndarray:
    """Return rows of pixels as images (M, C, H, W). Return rows of features unchanged."""
    if not shape:
        return inputs
    channels, height, width = shape
    if config.shape_order == "chw":
        return inputs.reshape(-1, channels, height, width)
    return inputs.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)


def _check_pixels(values: NDArray[np.float64], columns: Columns, before: int, path: Path) -> None:
    bad = np.argwhere((values < 0) | (values > 255) | (values != np.rint(values)))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{shown(path)}: row {before + row + 1:,} (counted after the header), column "
            f"{quoted(columns.feature_names[column])} holds {values[row, column]:g}; pixels are "
            "whole numbers from 0 to 255; to read the columns as features, set "
            f"dataset.shape=[{values.shape[1]}]"
        )


def _first_line(table: Table, config: CsvConfig) -> str:
    """Return a note if the first line may have either names or values (example: 0, 1, 2)."""
    names = table.columns.names
    if config.header and all(name.isdecimal() for name in names):
        return (
            f"the first line, {listed(names, 3)}, is read as names; if it has values, set "
            "dataset.header=false"
        )
    if not config.header and np.array_equal(table.inputs[0].reshape(-1), table.columns.features):
        return (
            "the first line counts the columns and is read as values; if it has names, set "
            "dataset.header=true"
        )
    return ""


def _row_numbers(table: Table) -> str:
    """Return a note on the first feature that counts the rows, like an index."""
    if table.inputs.ndim == 4 or len(table.inputs) < MIN_COUNTED_ROWS:
        return ""
    for column in np.flatnonzero(table.inputs[1] - table.inputs[0] == 1):
        values = table.inputs[:, column]
        if np.array_equal(values, values[0] + np.arange(len(values))):
            name = table.columns.feature_names[column]
            return (
                f"column {quoted(name)} counts the rows and is used as a feature; if it is an "
                f"index, leave it out with dataset.drop_columns=[{name}]"
            )
    return ""
