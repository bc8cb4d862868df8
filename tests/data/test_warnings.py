"""Warnings about absent classes and about labels among the features."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from data_files import csv_config, data_config

from nnopt.data import csv_file, load
from nnopt.data.dataset import Part
from nnopt.data.warnings import warn_of_label_among_features
from nnopt.errors import DataError
from nnopt.schema import Validation


def test_absent_classes_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "train.csv").write_text("label,x\n" + "a,1\n" * 10 + "b,2\n" * 10 + "c,3\n")
    (tmp_path / "test.csv").write_text("label,x\na,1\n")
    config = csv_config("train.csv", test="test.csv", validation=Validation("train", 0.2))
    with caplog.at_level(logging.WARNING, "nnopt"):
        load(config, data_config(tmp_path), seed=0)
    assert "no validation sample of class c among 4" in caplog.messages
    assert "no test sample of class b, c among 1" in caplog.messages
    load(replace(config, classes=("a",)), data_config(tmp_path), seed=0)
    assert any(message.startswith("a is the only class") for message in caplog.messages)


# a label among the features -----------------------------------------------------------------------

NAMES = ("ant", "bee", "cat")

# Number of classes, feature value of each class, number of rows.
LABELS_AMONG: dict[str, tuple[int, list[float], int]] = {
    "the label itself": (3, [0, 1, 2], 60),
    "other numbers": (3, [7.5, -1, 1e9], 60),
    "two classes": (2, [1, 0], 60),
    "just enough rows": (2, [5, 3], 22),
    "more rows than one chunk": (3, [2, 0, 1], 400),
}


def labels_among(
    root: Path,
    caplog: pytest.LogCaptureFixture,
    features: dict[str, list[float]],
    count: int,
    labels: list[int] | None = None,
) -> list[str]:
    """Load a table with these features; return its warnings about labels among the features.

    ``labels`` are the classes of the rows. By default, row k has the class k % count.
    """
    rows = list(zip(*features.values(), strict=True))
    labels = labels or [k % count for k in range(len(rows))]
    lines = [
        f"{NAMES[label]},{','.join(map(str, row))}" for label, row in zip(labels, rows, strict=True)
    ]
    (root / "train.csv").write_text("\n".join([f"label,{','.join(features)}", *lines]) + "\n")
    (root / "test.csv").write_text(f"label,{','.join(features)}\nant{',0' * len(features)}\n")
    with caplog.at_level(logging.WARNING, "nnopt"):
        load(csv_config("train.csv", test="test.csv"), data_config(root), seed=0)
    return [message for message in caplog.messages if "constant within each" in message]


def noise(count: int) -> list[float]:
    return np.random.default_rng(0).standard_normal(count).tolist()


@pytest.mark.parametrize(("classes", "values", "rows"), LABELS_AMONG.values(), ids=LABELS_AMONG)
def test_feature_that_repeats_the_label_is_reported_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    classes: int,
    values: list[float],
    rows: int,
) -> None:
    target = [values[k % classes] for k in range(rows)]
    features = {"x": noise(rows), "target": target}
    (message,) = labels_among(tmp_path, caplog, features, classes)
    assert message == (
        f"feature 'target' is constant within each of the {classes} classes and different between "
        f"them, in all {rows} training samples; if it repeats the label, leave it out with "
        "dataset.drop_columns=['target']"
    )


@pytest.mark.parametrize(
    ("copies", "subject", "rest"),
    [
        (2, "feature 'd0' and 1 other are", ""),
        (7, "feature 'd0' and 6 others are", ""),
        (20, "feature 'd0' and 19 others are", ""),
        (21, "feature 'd0' and 20 others are", " and 1 more"),
        (1_100, "feature 'd0' and 1,099 others are", " and 1,080 more"),
    ],
)
def test_features_that_repeat_the_label_are_reported_with_at_most_20_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, copies: int, subject: str, rest: str
) -> None:
    features = {"x": noise(60)}
    features |= {f"d{k}": [float(row % 3) for row in range(60)] for k in range(copies)}
    (message,) = labels_among(tmp_path, caplog, features, 3)
    names = ",".join(f"'d{k}'" for k in range(min(copies, 20)))
    assert message == (
        f"{subject} constant within each of the 3 classes and different between them, in all 60 "
        "training samples; if they repeat the label, leave them out with "
        f"dataset.drop_columns=[{names}]{rest}"
    )


def test_features_without_stored_names_are_reported_by_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a feature is not the number of its column, so no column can be named."""
    monkeypatch.setattr(csv_file, "MAX_NAMES_LENGTH", 3)
    features = {"x": noise(60), "target": [float(k % 3) for k in range(60)]}
    (message,) = labels_among(tmp_path, caplog, features, 3)
    assert message.startswith("feature number 1 is constant within each of the 3 classes")
    assert message.endswith("leave it out with dataset.drop_columns")


NO_LABELS: dict[str, tuple[list[float], int]] = {
    "two classes have the same value": ([k % 3 > 0 for k in range(60)], 3),
    "a class has two values": ([k % 3 if k != 57 else 3 for k in range(60)], 3),
    "one row differs": ([k % 3 if k != 59 else 0 for k in range(60)], 3),
    "a constant": ([1.0] * 60, 3),
    "numbers": (noise(60), 3),
    "few rows": ([k % 2 for k in range(21)], 2),
    "few repeats of a class": ([k % 3 for k in range(22)], 3),
    "one class": ([1.0] * 60, 1),
}
# Samples of each class, and whether a feature that is constant within each class is reported.
RARE = {
    "1 of 200": ([199, 1], False),
    "2 of 200": ([198, 2], False),
    "4 of 200": ([196, 4], False),
    "5 of 200": ([195, 5], True),
    "the third class": ([100, 96, 4], False),
    "three classes": ([100, 95, 5], True),
}


@pytest.mark.parametrize(("target", "classes"), NO_LABELS.values(), ids=NO_LABELS)
def test_feature_that_may_be_no_copy_of_the_label_is_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, target: list[float], classes: int
) -> None:
    features = {"x": noise(len(target)), "target": [float(value) for value in target]}
    assert labels_among(tmp_path, caplog, features, classes) == []


@pytest.mark.parametrize(("counts", "is_reported"), RARE.values(), ids=RARE)
def test_copy_of_the_label_is_reported_only_if_each_class_has_at_least_five_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, counts: list[int], is_reported: bool
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    features: dict[str, list[float]] = {"x": noise(len(labels)), "target": (1 - labels).tolist()}
    found = labels_among(tmp_path, caplog, features, len(counts), labels.tolist())
    assert len(found) == is_reported


class CheckedPart(Part):
    """A part whose file check raises DataError after ``checks_left`` successful checks."""

    checks_left: ClassVar[int] = 0

    def check_file(self) -> None:
        if not CheckedPart.checks_left:
            raise DataError("cut short")
        CheckedPart.checks_left -= 1


class CheckedArray(np.ndarray):
    """Inputs that count how often they are read."""

    reads: ClassVar[int] = 0

    def __getitem__(self, key: Any) -> Any:
        CheckedArray.reads += 1
        return np.asarray(self)[key]


def test_search_for_label_among_features_checks_mapped_file_before_every_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(200) % 2
    inputs = labels[:, None].astype(np.float64).view(CheckedArray)
    part = CheckedPart(inputs, labels, np.arange(200))
    for left in range(100):
        monkeypatch.setattr(CheckedPart, "checks_left", left)
        monkeypatch.setattr(CheckedArray, "reads", 0)
        try:
            warn_of_label_among_features(("x",), part)
        except DataError:
            assert CheckedArray.reads == left
        else:
            break
    assert CheckedArray.reads == left > 2
    assert "feature 'x' is constant within each of the 2 classes" in caplog.text
