"""Faults D1 to D12: numbers and training. D7, pruning, has no feature yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Attempt, Command

QUICK = ("plots=false", "hydra.run.dir=out")
SPIRAL = ("dataset=spiral", "dataset.points=20", "architecture.hidden=[8]")


def run(attempt: Command, backend: str, *words: str) -> Attempt:
    return attempt("run", f"backend={backend}", *QUICK, *words)


def arrays(workplace: Path, name: str = "model_last", folder: str = "out") -> dict[str, np.ndarray]:
    with np.load(workplace / folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def summary(workplace: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workplace / "out" / "summary.json").read_text())
    return content


def write_csv(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def features(rows: int, constant: float = 7) -> list[list[object]]:
    """Return rows of one feature that separates two classes, a constant one, and the label."""
    return [[i % 2 + i / 100, constant, i % 2] for i in range(rows)]


# D1, D2 -------------------------------------------------------------------------------------------


def test_d1_loss_not_finite_diverged_and_files_kept(
    attempt: Command, workplace: Path, backend: str
) -> None:
    words = *SPIRAL, "epochs=5", "optimizer.lr=1e20", "architecture.hidden=[8,8]"
    run(attempt, backend, *words).is_refused(5, "training diverged: at step ")
    assert summary(workplace)["status"] == "diverged"
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())
    assert (workplace / "out" / "metrics.csv").exists()


def test_d2_validation_not_finite_never_best(
    attempt: Command, workplace: Path, backend: str
) -> None:
    write_csv(workplace / "train.csv", "a,b,label", features(20))
    write_csv(workplace / "test.csv", "a,b,label", features(6, constant=3e38))
    files = "dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv"
    words = *files, "dataset.normalization=none", "dataset.validation.source=test", "epochs=3"
    network = "architecture=layers", "architecture.layers=[{dense: 64}, {dense: classes}]"
    stop = "early_stopping.patience=2"
    result = run(attempt, backend, *words, *network, stop)
    result.is_refused(5, "the test loss is not finite")
    assert summary(workplace)["best_epoch"] == 0
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())


# Settings that train ------------------------------------------------------------------------------

IMAGE_NORMS = (
    "[{conv2d: 4}, {group_norm: 2}, relu, {conv2d: 4}, instance_norm, {conv2d: 4}, batch_norm, "
    "layer_norm, flatten, {dense: classes}]"
)

TRAINS = {
    "D3 label smoothing near 1": [*SPIRAL, "regularizer.label_smoothing=0.99"],
    "D3 equal logits": [*SPIRAL, "initializer.output=zeros"],
    "D3 logits of 1e4": [*SPIRAL, "optimizer.lr=1000", "optimizer=sgd", "regularizer.max_norm=100"],
    "D4 last batch of 1 dropped": [
        *SPIRAL,
        *("regularizer.norm=batch", "batch_size=47", "last_batch=drop"),
    ],
    "D6 nothing regularized": [
        *SPIRAL,
        *("regularizer.dropout=0", "optimizer.momentum=0", "regularizer.weight_decay=0"),
    ],
    "D6 batch larger than the dataset": [*SPIRAL, "batch_size=100000"],
    "D6 one step": [*SPIRAL, "steps=1"],
    "D8 zero gradients with Adam": [*SPIRAL, "optimizer=adam", "initializer.hidden=zeros"],
    "D8 zero gradients with RMSprop": [*SPIRAL, "optimizer=rmsprop", "initializer.hidden=zeros"],
    "D8 zero gradients with Adagrad": [*SPIRAL, "optimizer=adagrad", "initializer.hidden=zeros"],
}


@pytest.mark.parametrize("words", TRAINS.values(), ids=TRAINS)
def test_run_extreme_setting_stays_finite(
    attempt: Command, workplace: Path, backend: str, words: list[str]
) -> None:
    run(attempt, backend, "epochs=2", *words).is_done()
    assert np.isfinite(summary(workplace)["test_loss"])
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())


def test_d3_one_class_has_no_loss(attempt: Command, workplace: Path, backend: str) -> None:
    write_csv(workplace / "one.csv", "a,label", [[i, "only"] for i in range(20)])
    run(attempt, backend, "dataset=csv", "dataset.train=one.csv", "epochs=2").is_done()
    assert summary(workplace)["test_loss"] == 0


@pytest.mark.parametrize("words", [["batch_size=47"], ["batch_size=1"]], ids=str)
def test_d4_batch_of_one_with_batch_norm_refused(
    attempt: Command, workplace: Path, backend: str, words: list[str]
) -> None:
    result = run(attempt, backend, *SPIRAL, "regularizer.norm=batch", *words)
    result.is_refused(2, words[0].replace("=", " = "), "leaves a batch of 1")


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_d5_constant_feature_finite(
    attempt: Command, workplace: Path, backend: str, norm: str
) -> None:
    write_csv(workplace / "constant.csv", "a,b,label", features(20))
    words = "dataset=csv", "dataset.train=constant.csv", f"regularizer.norm={norm}", "epochs=2"
    run(attempt, backend, *words).is_done()
    assert np.isfinite(summary(workplace)["test_loss"])


def test_d5_zero_images_finite_with_every_norm(
    attempt: Command, workplace: Path, backend: str
) -> None:
    header = ",".join([*(f"pixel{i}" for i in range(16)), "label"])
    write_csv(workplace / "zero.csv", header, [[0] * 16 + [i % 2] for i in range(20)])
    words = "dataset=csv", "dataset.train=zero.csv", "architecture=layers", "epochs=2"
    run(attempt, backend, *words, f"architecture.layers={IMAGE_NORMS}").is_done()
    assert np.isfinite(summary(workplace)["test_loss"])


def test_d6_rate_near_zero_leaves_weights(attempt: Command, workplace: Path, backend: str) -> None:
    runs = [("one", "epochs=1", "1e-30"), ("two", "epochs=3", "1e-30")]
    for folder, epochs, rate in runs:
        words = f"hydra.run.dir={folder}", epochs, f"optimizer.lr={rate}", "plots=false"
        attempt("run", f"backend={backend}", *SPIRAL, *words).is_done()
    first, second = (arrays(workplace, folder=folder) for folder, *_ in runs)
    weights = [name for name in first if name.endswith("weight")]
    assert weights
    assert all((first[name] == second[name]).all() for name in weights)


def test_d9_penalty_overflow_diverged(attempt: Command, workplace: Path, backend: str) -> None:
    words = *SPIRAL, "epochs=6", "optimizer=sgd", "optimizer.lr=1e4", "regularizer.l2=1000"
    run(attempt, backend, *words).is_refused(5, "training diverged")


def test_d12_same_seed_same_bits(attempt: Command, workplace: Path, backend: str) -> None:
    for folder in ("one", "two"):
        words = "epochs=2", "regularizer.dropout=0.2", f"hydra.run.dir={folder}", "plots=false"
        attempt("run", f"backend={backend}", *SPIRAL, *words).is_done()
    first, second = (arrays(workplace, folder=folder) for folder in ("one", "two"))
    assert all((first[name] == second[name]).all() for name in first)
