"""The tables about the test samples: ``classes.csv``, ``confusion.csv`` and ``predictions.csv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.io.atomic_files import write_text
from nnopt.io.own_files import CLASSES, CONFUSION, PREDICTIONS
from nnopt.results.classification import ClassScores

CLASS_COLUMNS = ("class", "support", "predicted", "recall", "precision", "f1")
CONFUSION_COLUMNS = ("label", "prediction", "count")
PREDICTION_COLUMNS = ("index", "label", "prediction")
"""The first columns of ``predictions.csv``. A column for each class follows."""

NEW_PREDICTION_COLUMNS = ("index", "prediction")
"""The columns of a file of ``nnopt predict`` before those of the classes."""


def write_classes(folder: Path, scores: ClassScores, classes: Sequence[str]) -> None:
    """Write ``classes.csv``, a row for each class. Raises OutputError."""
    columns = scores.support, scores.predicted, scores.recall, scores.precision, scores.f1
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    _write(folder / CLASSES, CLASS_COLUMNS, rows)


def write_confusion(folder: Path, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write ``confusion.csv``, a row for each pair of classes that occurs. Raises OutputError.

    Args:
        folder: The folder of the run.
        counts: Samples by true class (rows) and predicted class (columns), (K, K).
        classes: The names of the classes.
    """
    pairs = np.argwhere(counts).tolist()
    rows = ((classes[label], classes[other], int(counts[label, other])) for label, other in pairs)
    _write(folder / CONFUSION, CONFUSION_COLUMNS, rows)


def write_predictions(
    folder: Path,
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    values: NDArray[np.floating],
    kind: str,
    classes: Sequence[str],
) -> None:
    """Write ``predictions.csv``, a row for each test sample in their order. Raises OutputError.

    Args:
        folder: The folder of the run.
        labels: The labels, (N,).
        predictions: The predicted classes, (N,).
        values: The probabilities or the scores of the classes, (N, K).
        kind: "probability" or "score", the first part of the names of the columns.
        classes: The names of the classes.
    """
    columns = *PREDICTION_COLUMNS, *(f"{kind}_{name}" for name in classes)
    samples = zip(labels.tolist(), predictions.tolist(), values.tolist(), strict=True)
    rows = (
        (index, classes[label], classes[prediction], *row)
        for index, (label, prediction, row) in enumerate(samples)
    )
    _write(folder / PREDICTIONS, columns, rows)


def write_new_predictions(
    path: Path,
    predictions: NDArray[np.int64],
    values: NDArray[np.floating],
    kind: str,
    classes: Sequence[str],
    files: Sequence[str] = (),
) -> None:
    """Write the predictions of samples without labels, a row for each. Raises OutputError.

    Args:
        path: The file.
        predictions: The predicted classes, (N,).
        values: The probabilities or the scores of the classes, (N, K).
        kind: "probability" or "score", the first part of the names of the columns.
        classes: The names of the classes.
        files: The name of the file of each sample, or empty.
    """
    index, prediction = NEW_PREDICTION_COLUMNS
    named = ("file",) if files else ()
    columns = index, *named, prediction, *(f"{kind}_{name}" for name in classes)
    samples = zip(predictions.tolist(), values.tolist(), strict=True)
    rows = (
        (number, *files[number : number + 1], classes[predicted], *row)
        for number, (predicted, row) in enumerate(samples)
    )
    _write(path, columns, rows)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with numbers in full precision. NaN becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
