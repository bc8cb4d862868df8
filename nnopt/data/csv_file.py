"""Samples as rows of CSV files: one column of labels, the others pixels or features.

Columns named pixel... become uint8 images (Kaggle's ``fashion-mnist_train.csv`` loads as it is),
all others float32 features. Labels are whole numbers from 0 on, or names; the classes are the
different labels, sorted, so labels 1, 5 and 9 become the classes 0, 1, 2 called "1", "5", "9".
"""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data.files import check_regular, file_sha256, unreadable
from nnopt.data.source import Decoded, Source, channel_statistics
from nnopt.errors import ConfigError, DataError
from nnopt.results.files import shown
from nnopt.schema import CsvConfig, Validation

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_CHUNK = 10_000  # bounds the memory for text and 64-bit numbers

Table = tuple[np.ndarray, list[str]]
"""Inputs (M, C, H, W) uint8 or (M, D) float32, and the labels as they stand in the file."""


def locate(config: CsvConfig, root: Path, working: Path) -> Source[CsvConfig]:
    """The files, relative to ``root`` or else to the working directory. Raises DataError."""
    paths = {"train": _find("dataset.train", config.train, root, working)}
    if config.test is not None:
        paths["test"] = _find("dataset.test", config.test, root, working)
    names = {
        part: str(path.relative_to(root) if path.is_relative_to(root) else path)
        for part, path in paths.items()
    }
    return Source(
        name=config.name,
        place=" and ".join(map(str, paths.values())),
        files=paths,
        settings=replace(without_selection(config), train=names["train"], test=names.get("test")),
        decoder=_decode,
    )


def without_selection(config: CsvConfig) -> CsvConfig:
    """Return the configuration without the choice of rows and their scaling.

    These keys are applied after decoding. The decoder cannot read them, so they are not part of the
    cache's keys, and every other key is, a later one too.
    """
    return replace(
        config,
        classes=None,
        subset=None,
        normalization="none",
        test_fraction=0.5,
        validation=Validation("none", 0.5),
    )


def _find(key: str, name: str, root: Path, working: Path) -> Path:
    candidates = [root / name, working / name]
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
    tables = {part: _read_table(path, config) for part, path in paths.items()}
    shapes = {part: inputs.shape[1:] for part, (inputs, _) in tables.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(
            f"{shown(paths['train'])} has samples of shape {shapes['train']}, "
            f"{shown(paths['test'])} of {shapes['test']}; they must be the same"
        )
    classes = class_names(tables["train"][1], paths["train"])
    parts = {
        part: (inputs, _numbers(labels, classes, paths[part]))
        for part, (inputs, labels) in tables.items()
    }
    sources = {getattr(config, part): file_sha256(path) for part, path in paths.items()}
    is_image = parts["train"][0].ndim == 4
    mean, std = channel_statistics(parts["train"][0]) if is_image else ((), ())
    return Decoded(classes, parts, sources, mean, std)


def _refuse_repeated_columns(path: Path) -> None:
    """pandas would rename the second of two columns: a second label would become a feature."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(
            f"{shown(path)} has more than one column {repeated[0]!r}; rename or drop it"
        )


def _read_table(path: Path, config: CsvConfig) -> Table:
    import pandas as pd

    try:
        columns = list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
        _refuse_repeated_columns(path)
        features = _feature_columns(columns, config.label, path)
        shape = _shape(features, config.shape, path)
        blocks: list[np.ndarray] = []
        labels: list[str] = []
        with (
            warnings.catch_warnings(),
            pd.read_csv(
                path,
                chunksize=ROWS_PER_CHUNK,
                dtype={config.label: str},
                na_filter=False,  # "NA" may be a class; an empty feature cell is found below
                index_col=False,
                encoding="utf-8-sig",
                low_memory=False,
            ) as chunks,
        ):
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            for chunk in chunks:
                labels += chunk[config.label].tolist()
                values = _numeric(chunk[features], path)
                blocks.append(_pixels(values, features, chunk.index, path) if shape else values)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{shown(path)} is no CSV file with a header line: {reason}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not labels:
        raise DataError(f"{shown(path)} has a header line but 0 rows; expected some")
    inputs = np.concatenate(blocks)
    return (inputs.reshape(-1, *shape) if shape else inputs), labels


def _feature_columns(columns: list[str], label: str, path: Path) -> list[str]:
    if label not in columns:
        nearest = difflib.get_close_matches(label, columns, n=3, cutoff=0.0)
        raise DataError(
            f"{shown(path)} has no column {label!r} (dataset.label); its {len(columns)} columns "
            f"include {', '.join(map(repr, nearest))}"
        )
    features = [column for column in columns if column != label]
    if not features:
        raise DataError(f"{shown(path)} has no column beside {label!r}; expected features")
    return features


def _shape(features: list[str], wanted: tuple[int, ...] | None, path: Path) -> tuple[int, ...]:
    """(C, H, W) of images, or () for features."""
    count = len(features)
    if wanted is None:
        if not all(name.startswith("pixel") for name in features):
            return ()
        side = math.isqrt(count)
        if side * side != count:
            raise ConfigError(
                f"dataset.shape: {shown(path)} has {count} pixel columns, which make no square of "
                "one channel; give [channels, height, width], the order of the columns"
            )
        return 1, side, side
    if len(wanted) not in (1, 3):
        raise ConfigError(
            f"dataset.shape={list(wanted)}: allowed are [channels, height, width] or [features]"
        )
    if math.prod(wanted) != count:
        raise DataError(
            f"dataset.shape={list(wanted)} means {math.prod(wanted)} columns beside the label, but "
            f"{shown(path)} has {count}"
        )
    return wanted if len(wanted) == 3 else ()


def _numeric(frame: pd.DataFrame, path: Path) -> NDArray[np.float32]:
    """The cells as numbers (rows, columns). Raises DataError at the first that is none."""
    import pandas as pd

    def numbers(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.dtype.kind in "iuf":
            return column
        return pd.to_numeric(column.astype(str), errors="coerce")

    values = frame.apply(numbers).to_numpy(dtype=np.float64)
    largest = np.finfo(np.float32).max
    bad = np.argwhere(~(np.abs(values) <= largest))  # NaN is not <= anything
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{shown(path)}: row {frame.index[row] + 1:,} (counted after the header), column "
            f"{frame.columns[column]!r} holds {str(frame.iat[row, column])!r}; expected a finite "
            "number"
        )
    result: NDArray[np.float32] = values.astype(np.float32)
    return result


def _pixels(
    values: NDArray[np.float32], features: list[str], index: pd.Index, path: Path
) -> NDArray[np.uint8]:
    bad = np.argwhere((values < 0) | (values > 255) | (values != np.rint(values)))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{shown(path)}: row {index[row] + 1:,} (counted after the header), column "
            f"{features[column]!r} holds {values[row, column]:g}; pixels are whole numbers from 0 "
            "to 255"
        )
    return values.astype(np.uint8)


def class_names(labels: list[str], path: Path) -> tuple[str, ...]:
    """The different labels, sorted: by value if all are whole numbers, else by name."""
    different = set(labels)
    if all(re.fullmatch(r"\s*\d+\s*", label) for label in different):
        return tuple(map(str, sorted({int(label) for label in different})))
    numeric = all(_is_number(label) for label in different)
    for index, label in enumerate(labels):
        is_bad = numeric and not label.strip().isdecimal()
        if is_bad or label.strip().lower() in ("", "nan"):
            raise DataError(
                f"{shown(path)}: label {label!r} at index {index:,} (row {index + 1:,}); allowed "
                "are whole numbers from 0 on, or names"
            )
    return tuple(sorted({label.strip() for label in different}))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() == ""
    return True


def _numbers(labels: list[str], classes: tuple[str, ...], path: Path) -> NDArray[np.int64]:
    """The class number of each label. Raises DataError for one that is no class."""
    numbers = {name: number for number, name in enumerate(classes)}
    whole = all(name.isdecimal() for name in classes)
    result = np.empty(len(labels), dtype=np.int64)
    for index, label in enumerate(labels):
        name = label.strip()
        if whole and name.isdecimal():
            name = str(int(name))
        if name not in numbers:
            raise DataError(
                f"{shown(path)}: label {label!r} at index {index:,} (row {index + 1:,}) is no "
                f"class of the training file; its classes are {', '.join(classes[:20])}"
            )
        result[index] = numbers[name]
    return result
