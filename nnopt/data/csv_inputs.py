"""Reads inputs without labels from a CSV file, for the predictions of a trained network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnopt.data.csv_columns import Columns, check_names
from nnopt.data.csv_file import read_table
from nnopt.data.csv_text import is_number, lines_of, listed, open_text
from nnopt.data.dataset import InputFormat
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.schema import CsvConfig, DatasetVariant, Validation


def read_csv_inputs(
    path: Path, expected: InputFormat, trained_on: DatasetVariant
) -> tuple[np.ndarray, list[str]]:
    """Return the inputs (N, ...) in a CSV file, and the names of the columns that are not used.

    If the network was trained on a CSV file, the columns are found by the names in that file, in
    any order. Otherwise, the file must have exactly one column for each number of a sample, in the
    order of the inputs.

    Raises:
        DataError: A column is missing, or a cell has no number.
    """
    config = _settings(path, expected, trained_on)
    surplus: list[str] = []

    def find(names: list[str]) -> Columns:
        check_names(names, path)
        positions = _positions(names, expected, config, path)
        used = set(positions)
        surplus.extend(name for index, name in enumerate(names) if index not in used)
        shape = expected.shape if expected.is_image else ()
        return Columns(names, -1, positions, frozenset(), shape)

    inputs = read_table(path, config, find).inputs
    return inputs.astype(expected.dtype, copy=False), surplus


def _settings(path: Path, expected: InputFormat, trained_on: DatasetVariant) -> CsvConfig:
    """Return the settings of the reader: those of the training file, if there was one."""
    if isinstance(trained_on, CsvConfig):
        # The separator is the one that makes the first feature a column, in place of the label.
        first = expected.columns[0] if expected.columns else trained_on.label
        return replace(trained_on, label=first)
    return CsvConfig(
        name="csv",
        subset=None,
        normalization="none",
        validation=Validation("none", 0.5),
        classes=None,
        train=str(path),
        test=None,
        test_fraction=0.5,
        label="",
        drop_columns=(),
        header=_has_header(path),
        separator=None,
        decimal="point",
        shape=None,
        shape_order="chw",
    )


def _has_header(path: Path) -> bool:
    """Return whether the first line of a file has a cell that is no number."""
    with open_text(path) as file:
        line = next(lines_of(file, path), "")
    for separator in ";\t|":
        line = line.replace(separator, ",")
    return not all(is_number(cell.strip().strip('"')) for cell in line.split(","))


def _positions(names: list[str], expected: InputFormat, config: CsvConfig, path: Path) -> list[int]:
    """Return the positions of the features or pixels. Raises DataError."""
    wanted, width = expected.columns, math.prod(expected.shape)
    if len(names) == width and not (config.header and wanted):
        return list(range(width))
    if not wanted:
        raise DataError(
            f"{shown(path)} has {len(names):,} columns, but a sample of the model has {width:,} "
            "numbers, whose names are not known; leave other columns out of the file"
        )
    found = {name: index for index, name in enumerate(names)}
    if missing := [name for name in wanted if name not in found]:
        others = [name for name in names if name not in set(wanted)]
        has = f"; other columns in the file: {listed(others)}" if others else ""
        raise DataError(
            f"{shown(path)} lacks {len(missing):,} of the {width:,} columns of the model: "
            f"{listed(missing)}{has}"
        )
    return [found[name] for name in wanted]
