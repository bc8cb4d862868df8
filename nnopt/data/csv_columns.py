"""Finds the columns of a table: label, features or pixels, and their order."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnopt.data.csv_text import is_number, listed
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import quoted
from nnopt.schema import CsvConfig

MAX_COLUMNS = 2**20
MAX_COMPARED_NAMES = 2_000  # number of names that are searched for similar ones

PIXEL = re.compile(r"(pixel|px)[ _.-]?(\d{1,9})", re.IGNORECASE | re.ASCII)
GRID_PIXEL = re.compile(r"(\d{1,5})x(\d{1,5})", re.IGNORECASE | re.ASCII)
OTHER_PIXEL = re.compile(r"pixel.*\d", re.IGNORECASE | re.ASCII)  # such as pixel_r0_c1
NUMBERED = re.compile(r"(\D*)(\d{1,9})", re.ASCII)
UNNAMED = re.compile(r"(Unnamed: \d+(_level_\d+)?)?")


@dataclass(frozen=True)
class Columns:
    """The columns of a table. A position is the index of a column in the file, from 0."""

    names: Sequence[str]
    label: int  # position; -1 in a table without labels
    features: Sequence[int]  # positions of the features or pixels, in the order of the inputs
    dropped: frozenset[str]  # names of the dropped columns
    shape: tuple[int, ...]  # (C, H, W) of images, () for features

    @property
    def has_labels(self) -> bool:
        """Whether the table has a column of labels."""
        return self.label >= 0

    @property
    def feature_names(self) -> list[str]:
        """Names of the features or pixels in the order of the inputs."""
        return [self.names[position] for position in self.features]


def find_columns(names: list[str], config: CsvConfig, path: Path) -> Columns:
    """Find the columns of the training file. Raises DataError or ConfigError."""
    check_names(names, path)
    dropped = {position(names, item) for item in config.drop_columns}
    kept = [index for index in range(len(names)) if index not in dropped]
    label = _label(names, config, path)
    if label in dropped:
        raise ConfigError(
            f"dataset.drop_columns={list(config.drop_columns)} contains the column of labels of "
            f"{shown(path)}, {quoted(names[label])}; take it out of the list"
        )
    if unnamed := [index for index in kept if UNNAMED.fullmatch(names[index])]:
        without = ",".join(map(str, (*config.drop_columns, unnamed[0])))
        raise DataError(
            f"{shown(path)}: column {unnamed[0] + 1} of {len(names):,} has no name; is it the "
            "index that pandas writes, or a separator too many? leave it out with "
            f"dataset.drop_columns=[{without}], or name it"
        )
    features = [index for index in kept if index != label]
    if not features:
        raise DataError(
            f"{shown(path)} has no features: the label, {quoted(names[label])}, is the only column "
            "that is not dropped"
        )
    if config.header:
        _check_header(names, features, label, config, path)
    shape, order = _shape([names[index] for index in features], config, path)
    removed = frozenset(names).difference(names[index] for index in kept)
    return Columns(names, label, [features[index] for index in order], removed, shape)


def match_columns(names: list[str], train: Columns, config: CsvConfig, path: Path) -> Columns:
    """Find the columns of another file by their names in ``train``. Raises DataError."""
    check_names(names, path)
    required = [train.names[train.label], *train.feature_names]
    allowed = {*required, *train.dropped, *map(str, config.drop_columns if config.header else ())}
    indices = {name: index for index, name in enumerate(names)}
    missing = [name for name in required if name not in indices]
    extra = [name for name in names if name not in allowed]
    if missing or extra:
        faults = {"it lacks": missing, "it has also": extra}
        lines = [f"{fault} {listed(columns)}" for fault, columns in faults.items() if columns]
        hint = (
            "; test files without labels cannot be used: leave dataset.test out"
            if missing == required[:1] and not extra
            else "; rename columns, or leave some out of both files with dataset.drop_columns=[...]"
        )
        raise DataError(
            f"{shown(path)} has other columns than the training file: {' and '.join(lines)}{hint}"
        )
    features = [indices[name] for name in required[1:]]
    return Columns(names, indices[required[0]], features, train.dropped, train.shape)


def check_dropped(config: CsvConfig, tables: Sequence[Sequence[str]], path: Path) -> None:
    """Raise DataError for an entry of ``dataset.drop_columns`` that is absent in all files."""
    for item in config.drop_columns:
        if all(position(names, item) is None for names in tables):
            raise DataError(_no_column("dataset.drop_columns", item, tables[0], path))


def position(names: Sequence[str], item: int | str) -> int | None:
    """Return the position of a column given by name or number; None if it is absent."""
    if str(item) in names:
        return names.index(str(item))
    if isinstance(item, str) and re.fullmatch(r"-?\d{1,9}", item, re.ASCII):
        item = int(item)
    if isinstance(item, int) and -len(names) <= item < len(names):
        return item % len(names)
    return None


def _label(names: list[str], config: CsvConfig, path: Path) -> int:
    if (found := position(names, config.label)) is not None:
        return found
    if not config.header:
        raise ConfigError(
            f"dataset.label={config.label}: with dataset.header=false the {len(names):,} columns "
            f"of {shown(path)} have no names; give a number from 0 to {len(names) - 1}, or -1 for "
            "the last column"
        )
    raise DataError(_no_column("dataset.label", config.label, names, path) + _without_header(names))


def _no_column(key: str, item: int | str, names: Sequence[str], path: Path) -> str:
    near = difflib.get_close_matches(str(item), names[:MAX_COMPARED_NAMES], n=3, cutoff=0.0)
    missing = f"{shown(path)} has no column {quoted(str(item))} ({key})"
    if len(names) == 1:
        return (
            f"{missing}; its first line, {quoted(names[0])}, is read as the name of one column; if "
            "it has several names, set dataset.separator; if it has none, delete it"
        )
    if len(names) <= len(near):
        return f"{missing}; its columns are {listed(list(names))}"
    return f"{missing}; its {len(names):,} columns include {listed(near)}"


def _without_header(names: Sequence[str]) -> str:
    if sum(map(is_number, names)) * 2 < len(names):
        return ""
    return "; if the first line has values, set dataset.header=false and dataset.label to a number"


def check_names(names: list[str], path: Path) -> None:
    """Raise DataError for too many columns, and for two columns with the same non-empty name."""
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{shown(path)} has {len(names):,} columns; the limit is {MAX_COLUMNS:,}")
    if repeated := [name for name, count in Counter(names).items() if count > 1 and name]:
        raise DataError(
            f"{shown(path)} has more than one column {quoted(repeated[0])}; rename or delete all "
            f"but one{_without_header(names)}"
        )


def _check_header(
    names: list[str], features: list[int], label: int, config: CsvConfig, path: Path
) -> None:
    """Raise DataError if all features have numbers as names, except 0, 1, ... and 1, 2, ..."""
    if not all(is_number(names[index]) for index in features):
        return
    if str(config.label) == names[label] and not is_number(names[label]):
        return  # the first line contains the name of the label, so it is a header
    numbers = [name for name in names if name != names[label]]
    counts = [[str(number) for number in range(one, len(names) + one)] for one in (0, 1)]
    if len(names) > 2 and any(
        numbers in (count[:-1], [x for x in count if x != names[label]]) for count in counts
    ):
        return
    raise DataError(
        f"{shown(path)}: the first line, {listed(names, 3)}, may be values, not names; if so, set "
        "dataset.header=false, else rename the label column to a word, there and in dataset.label"
    )


def _shape(
    names: list[str], config: CsvConfig, path: Path
) -> tuple[tuple[int, ...], Sequence[int]]:
    """Return the shape (C, H, W) of images, or () for features; and the order of the columns."""
    shape = _pixel_shape(names, path) if config.shape is None else config.shape
    if config.shape is not None and len(shape) not in (1, 3):
        raise ConfigError(
            f"dataset.shape={list(shape)}: allowed are [channels, height, width] or [features]"
        )
    if shape and math.prod(shape) != len(names):
        others = "the label" + " and the dropped columns" * bool(config.drop_columns)
        remedy = ", or leave columns out with dataset.drop_columns=[...]"
        remedy = remedy if len(names) > math.prod(shape) else ""
        raise DataError(
            f"dataset.shape={list(shape)} means {math.prod(shape):,} columns, but {shown(path)} "
            f"has {len(names):,} in addition to {others}; correct dataset.shape{remedy}"
        )
    if len(shape) == 3:
        return shape, _pixel_order(names, path)
    if config.shape_order != "chw":
        raise ConfigError(
            f"dataset.shape_order={config.shape_order}: {shown(path)} has features, not "
            "pixels; set dataset.shape=[channels,height,width] or leave dataset.shape_order out"
        )
    return (), range(len(names))


def _pixel_shape(names: list[str], path: Path) -> tuple[int, ...]:
    """Return the shape of the images if the columns have the names of pixels, else ()."""
    patterns = (PIXEL, GRID_PIXEL, OTHER_PIXEL)
    others = [name for name in names if not any(x.fullmatch(name) for x in patterns)]
    if len(others) == len(names):
        return ()
    if others:
        named = [*others[:5], *["..."] * (len(others) > 5)]
        raise DataError(
            f"{shown(path)} has {len(names) - len(others):,} columns of pixels, and also "
            f"{listed(others)}: leave these out with dataset.drop_columns=[{','.join(named)}], or"
            f" take all columns as features with dataset.shape=[{len(names)}]"
        )
    grid = [pixel for name in names if (pixel := GRID_PIXEL.fullmatch(name))]
    rows, columns = (len({int(pixel[k]) for pixel in grid}) for k in (1, 2))
    if len(grid) == rows * columns == len(names):
        return 1, rows, columns
    side = math.isqrt(len(names))
    if side * side != len(names):
        raise ConfigError(
            f"dataset.shape: {shown(path)} has {len(names):,} pixel columns, which make no square "
            "image with one channel; give [channels, height, width], and dataset.shape_order=hwc "
            "if all channels of one pixel come before the next pixel"
        )
    return 1, side, side


def _pixel_order(names: list[str], path: Path) -> Sequence[int]:
    """Return the columns' indices, sorted by the numbers in the names; unsorted without numbers."""
    for pattern in (GRID_PIXEL, PIXEL, NUMBERED):
        found = [match for name in names if (match := pattern.fullmatch(name))]
        if len(found) == len(names):
            break
    else:
        return range(len(names))
    if pattern is GRID_PIXEL:
        keys = [(int(match[1]), int(match[2])) for match in found]
        top, left = (min(key[k] for key in keys) for k in (0, 1))
        width = len({key[1] for key in keys})
        numbers = [(row - top) * width + column - left for row, column in keys]
    else:
        if len({match[1].lower() for match in found}) > 1:
            return range(len(names))
        numbers = [int(match[2]) for match in found]
    order = sorted(range(len(names)), key=numbers.__getitem__)
    if [numbers[index] - numbers[order[0]] for index in order] != list(range(len(names))):
        raise DataError(
            f"{shown(path)}: the numbers of the pixel columns, {listed(names, 3)}, have gaps or "
            "repeat, so the position of a pixel is unknown; rename the columns, or take them as "
            f"features with dataset.shape=[{len(names)}]"
        )
    return order
