"""CSV files that people have, each with the results or the message that it must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command


def run(attempt: Command, workplace: Path, *words: str, folder: str = "out") -> dict[str, Any]:
    """Train on CSV files, and return the summary of the run."""
    attempt("run", "dataset=csv", f"hydra.run.dir={folder}", *words).is_done()
    summary: dict[str, Any] = json.loads((workplace / folder / "summary.json").read_text())
    return summary


def write_table(path: Path, header: str, rows: np.ndarray) -> None:
    lines = [",".join(f"{value:g}" for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")


TRAIN = ("epochs=10", "batch_size=8", "plots=false")


@pytest.fixture
def two_labels(workplace: Path) -> None:
    """Write a table of x, a label that x decides, and a label by chance."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 200)
    table = np.stack([x, x > 0, random.integers(0, 2, 200)], axis=1)
    write_table(workplace / "two.csv", "x,decided,chance", table)


@pytest.mark.usefixtures("two_labels")
def test_cache_other_label_column_is_learned(
    attempt: Command, workplace: Path, backend: str
) -> None:
    words = *TRAIN, f"backend={backend}", "dataset.train=two.csv"
    accuracies = [
        run(attempt, workplace, *words, f"dataset.label={label}", folder=f"{number}-{label}")
        for number, label in enumerate(["decided", "chance", "decided"])
    ]
    first, other, again = (summary["test_accuracy"] for summary in accuracies)
    assert first > 0.9
    assert other < 0.8
    assert again == first


@pytest.mark.usefixtures("two_labels")
def test_cache_labels_of_one_sweep_are_kept_apart(
    attempt: Command, workplace: Path, backend: str
) -> None:
    words = *TRAIN, f"backend={backend}", "dataset.train=two.csv", "hydra.sweep.dir=out"
    attempt("run", "-m", "dataset=csv", *words, "dataset.label=decided,chance").is_done()
    accuracies = {
        summary["config"]["dataset"]["label"]: summary["test_accuracy"]
        for path in (workplace / "out").glob("*/summary.json")
        for summary in [json.loads(path.read_text())]
    }
    assert accuracies["decided"] > 0.9
    assert accuracies["chance"] < 0.8


def test_cache_folds_swapped_are_swapped(attempt: Command, workplace: Path, backend: str) -> None:
    """The network can only predict the larger class, so the accuracy is its share of the test."""
    shares = {"fold1": 0.7, "fold2": 0.9}
    for fold, share in shares.items():
        table = np.stack([np.zeros(40), np.arange(40) >= 40 * share], axis=1)
        write_table(workplace / f"{fold}.csv", "x,label", table)
    for train, test in (("fold1", "fold2"), ("fold2", "fold1")):
        words = *TRAIN, f"dataset.train={train}.csv", f"dataset.test={test}.csv"
        summary = run(attempt, workplace, *words, f"backend={backend}", folder=train)
        assert summary["test_accuracy"] == pytest.approx(shares[test])
