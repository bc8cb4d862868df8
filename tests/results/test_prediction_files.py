"""The tables about the test samples, as pandas reads them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.testing import assert_array_equal

from nnopt.results.classification import class_scores
from nnopt.results.metrics import confusion_matrix, softmax
from nnopt.results.prediction_files import write_classes, write_confusion, write_predictions

CLASSES = ("cat", 'a "b", c', "größe\nx", "unused")
LABELS, PREDICTIONS = np.array([0, 1, 1, 2, 0]), np.array([0, 2, 1, 2, 0])
COUNTS = confusion_matrix(LABELS, PREDICTIONS, 4)


def exact(path: Path) -> pd.DataFrame:
    """Read a table with Python's conversion of numbers, which restores every bit."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table.columns:
        with suppress(ValueError):
            table[name] = [float(cell) if cell else np.nan for cell in table[name]]
    return table


def test_classes_file_contains_every_class_in_full_precision(tmp_path: Path) -> None:
    scores = class_scores(COUNTS)
    write_classes(tmp_path, scores, CLASSES)
    table = exact(tmp_path / "classes.csv")
    assert list(table.columns) == ["class", "support", "predicted", "recall", "precision", "f1"]
    assert table["class"].tolist() == list(CLASSES)
    assert table.support.tolist() == [2, 2, 1, 0]
    assert table.predicted.tolist() == [2, 1, 2, 0]
    for name in ("recall", "precision", "f1"):
        assert_array_equal(table[name], getattr(scores, name))


def test_confusion_file_contains_the_pairs_that_occur(tmp_path: Path) -> None:
    write_confusion(tmp_path, COUNTS, CLASSES)
    table = pd.read_csv(tmp_path / "confusion.csv")
    assert list(table.columns) == ["label", "prediction", "count"]
    matrix = table.pivot(index="label", columns="prediction", values="count")
    assert_array_equal(
        matrix.reindex(index=CLASSES, columns=CLASSES, fill_value=0).fillna(0), COUNTS
    )
    assert (table["count"] > 0).all()


def test_predictions_file_contains_every_sample_in_full_precision(tmp_path: Path) -> None:
    probabilities = softmax(np.random.default_rng(0).standard_normal((5, 4)))
    write_predictions(tmp_path, LABELS, PREDICTIONS, probabilities, "probability", CLASSES)
    table = exact(tmp_path / "predictions.csv")
    assert table["index"].tolist() == list(range(5))
    assert table["label"].tolist() == [CLASSES[k] for k in LABELS]
    assert table["prediction"].tolist() == [CLASSES[k] for k in PREDICTIONS]
    columns = [f"probability_{name}" for name in CLASSES]
    assert list(table.columns) == ["index", "label", "prediction", *columns]
    assert_array_equal(table[columns], probabilities)
