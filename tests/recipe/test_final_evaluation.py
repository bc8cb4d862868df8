"""Evaluations after training: the training part, the tables of the test part, and the target."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from nnopt.config.compose import make_plan
from nnopt.data.dataset import Dataset
from nnopt.errors import TimeLimitError
from nnopt.recipe.prepare import prepare
from nnopt.recipe.run import run
from nnopt.results.metrics import AFTER_TRAINING
from nnopt.results.metrics_file import read_metrics

SMALL = ("epochs=3", "dataset.samples_per_class=30", "plots=false", "architecture.hidden=[8]")
FLOAT64 = ("backend.dtype=float64",)


def finish(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run one configuration in a new folder, and return the content of its summary.json."""
    (point,) = make_plan([*SMALL, *overrides]).points
    folder.mkdir()
    run(point, folder)
    return summary_of(folder)


def summary_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return loaded


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logits_of(dataset: Dataset, weights: Path) -> np.ndarray:
    """Return the logits of a network dense, batch norm, ReLU, dense for the training part."""
    raw = dataset.train.take(dataset.train.rows).astype(np.float64)
    with np.load(weights) as archive:
        arrays = dict(archive)
    x = dataset.normalization.of_features(raw) @ arrays["dense1.weight"].T
    if "batch_norm1.weight" in arrays:
        deviation = np.sqrt(arrays["batch_norm1.running_var"] + 1e-5)
        x = (x - arrays["batch_norm1.running_mean"]) / deviation
        x = x * arrays["batch_norm1.weight"] + arrays["batch_norm1.bias"]
    else:
        x = x + arrays["dense1.bias"]
    logits: np.ndarray = np.maximum(x, 0) @ arrays["dense2.weight"].T + arrays["dense2.bias"]
    return logits


# the training part --------------------------------------------------------------------------------

REGULARIZED = ("regularizer.dropout=0.5", "regularizer.norm=batch", "regularizer.l2=0.1")


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("tested", ["best", "last"])
def test_training_part_is_evaluated_in_evaluation_mode_with_the_tested_weights(
    workplace: Path, backend: str, tested: str
) -> None:
    """Validation samples and samples outside of the subset do not count."""
    words = (*REGULARIZED, *FLOAT64, "dataset.subset=50", f"test_weights={tested}")
    words = (*words, f"backend={backend}", "early_stopping.monitor=loss", "optimizer.lr=0.3")
    summary = finish(workplace / "a", *words)
    (point,) = make_plan([*SMALL, *words]).points
    dataset = prepare(point.config).dataset
    train, logits = dataset.train, logits_of(dataset, workplace / f"a/model_{tested}.npz")
    assert len(train) == summary["data"]["samples"]["train"] == 50
    labels = train.labels[train.rows]
    accuracy = reference.accuracy_score(labels, logits.argmax(axis=1))
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert summary["train_accuracy"] == pytest.approx(accuracy, rel=1e-12)
    loss = reference.log_loss(labels, probabilities, labels=[0, 1, 2])
    assert summary["train_loss"] == pytest.approx(loss, rel=1e-10)
    assert summary["generalization_gap"] == accuracy - summary["test_accuracy"]
    assert summary["train_accuracy"] != summary["final_train_accuracy"]


def test_evaluation_of_the_training_part_changes_no_other_result(workplace: Path) -> None:
    found = {x: finish(workplace / x, f"evaluation.train={x}") for x in ("true", "false")}
    of_train = ("train_loss", "train_accuracy", "generalization_gap")
    assert [found["false"][name] for name in of_train] == [None, None, None]
    assert None not in [found["true"][name] for name in of_train]
    assert found["true"]["id"] == found["false"]["id"]
    for name in {*AFTER_TRAINING} - {*of_train}:
        assert found["true"][name] == found["false"][name]
    for name in ("model_best.npz", "model_last.npz", "classes.csv", "confusion.csv"):
        files = [workplace / x / name for x in ("true", "false")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_training_part_is_evaluated_after_removal_of_units(workplace: Path) -> None:
    words = ("pruning=structured", "pruning.sparsity=0.5", "pruning.start=1", *FLOAT64)
    summary = finish(workplace / "a", *words)
    (point,) = make_plan([*SMALL, *words]).points
    dataset = prepare(point.config).dataset
    with np.load(workplace / "a/model_best.npz") as arrays:
        assert len(arrays["dense1.bias"]) == 4
    train, logits = dataset.train, logits_of(dataset, workplace / "a/model_best.npz")
    predictions = logits.argmax(axis=1)
    assert summary["train_accuracy"] == np.mean(predictions == train.labels[train.rows])


def test_max_time_ends_the_evaluation_of_the_training_part(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test part has been evaluated, and a checkpoint preserves the training."""
    late = "nnopt.recipe.checkpoints.CheckpointWriter._is_over_time"
    evaluated: list[str] = []
    monkeypatch.setattr("nnopt.recipe.run.record_test", lambda *_: evaluated.append("test"))
    monkeypatch.setattr(late, lambda _: bool(evaluated))
    with pytest.raises(TimeLimitError):
        finish(workplace / "a", "max_time=1000")
    summary = summary_of(workplace / "a")
    assert (summary["status"], summary["train_accuracy"]) == ("timeout", None)
    assert (workplace / "a" / "checkpoint_a.npz").exists()


def test_max_time_without_checkpoints_does_not_end_a_complete_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training would be lost."""
    late = "nnopt.recipe.checkpoints.CheckpointWriter._is_over_time"
    monkeypatch.setattr(late, lambda self: self._loop.training.is_finished)
    summary = finish(workplace / "a", "max_time=1000", "checkpoint.interval=null")
    assert summary["status"] == "done"
    assert summary["train_accuracy"] is not None


# the test part ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_tables_of_the_test_part_agree_with_scikit_learn(workplace: Path, backend: str) -> None:
    words = ("dataset.classes=7", f"backend={backend}", "evaluation.predictions=true")
    summary = finish(workplace / "a", *words)
    rows = table_of(workplace / "a" / "predictions.csv")
    (point,) = make_plan([*SMALL, *words]).points
    dataset = prepare(point.config).dataset
    labels, names = dataset.test.labels[dataset.test.rows], dataset.classes
    assert [row["label"] for row in rows] == [names[k] for k in labels]
    columns = [f"probability_{name}" for name in names]
    probabilities = np.array([[float(row[name]) for name in columns] for row in rows])
    predictions = probabilities.argmax(axis=1)
    assert [row["prediction"] for row in rows] == [names[k] for k in predictions]
    assert summary["test_accuracy"] == reference.accuracy_score(labels, predictions)
    top5 = reference.top_k_accuracy_score(labels, probabilities, k=5, labels=range(7))
    assert summary["test_top5_accuracy"] == pytest.approx(top5, rel=1e-12)
    macro = reference.f1_score(labels, predictions, average="macro")
    assert summary["test_macro_f1"] == pytest.approx(macro, rel=1e-12)
    loss = reference.log_loss(labels, probabilities, labels=range(7))
    assert summary["test_loss"] == pytest.approx(loss, rel=1e-12)
    recall = reference.recall_score(labels, predictions, average=None)
    classes = table_of(workplace / "a" / "classes.csv")
    assert [float(row["recall"]) for row in classes] == pytest.approx(recall, rel=1e-12)
    matrix = reference.confusion_matrix(labels, predictions)
    counts = {(row["label"], row["prediction"]): int(row["count"]) for row in
              table_of(workplace / "a" / "confusion.csv")}  # fmt: skip
    assert counts == {(names[i], names[j]): matrix[i, j] for i, j in np.argwhere(matrix)}


@pytest.mark.parametrize("loss", ["hinge", "mse"])
def test_predictions_without_probabilities_are_scores_without_calibration_error(
    workplace: Path, loss: str
) -> None:
    summary = finish(workplace / "a", f"loss={loss}", "evaluation.predictions=true")
    assert summary["test_calibration_error"] is None
    assert summary["test_top5_accuracy"] is None  # 3 classes
    assert summary["test_macro_f1"] > 0
    row = table_of(workplace / "a" / "predictions.csv")[0]
    assert list(row)[3:] == ["score_arm 1", "score_arm 2", "score_arm 3"]


def test_predictions_are_written_only_on_request(workplace: Path) -> None:
    finish(workplace / "a")
    assert not (workplace / "a" / "predictions.csv").exists()


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_backends_give_equal_metrics_and_statistics_of_layers(workplace: Path, loss: str) -> None:
    words = (f"loss={loss}", *FLOAT64, "layer_statistics=true", "regularizer.norm=batch")
    words = (*words, "target.metric=train_loss", "target.value=1.2", "dataset.classes=6")
    found = [finish(workplace / x, *words, f"backend={x}") for x in ("numpy", "torch")]
    names = (*AFTER_TRAINING, "target_reached", "steps_to_target", "epochs_to_target")
    for name in names:
        assert found[0][name] == pytest.approx(found[1][name], abs=1e-10), name
    tables = [table_of(workplace / x / "layers.csv") for x in ("numpy", "torch")]
    assert {bool(row["update_ratio"]) for row in tables[0]} == {True, False}
    for rows in zip(*tables, strict=True):
        for name in ("weight_norm", "update_ratio"):
            values = [float(row[name] or "nan") for row in rows]
            assert values[0] == pytest.approx(values[1], rel=1e-10, nan_ok=True)


@pytest.mark.parametrize("optimizer", ["momentum", "schedule_free_sgd"])
def test_layer_statistics_do_not_change_the_training(workplace: Path, optimizer: str) -> None:
    words = ("backend=torch", f"optimizer={optimizer}", "regularizer.norm=batch")
    for value in ("true", "false"):
        finish(workplace / value, *words, f"layer_statistics={value}")
    for name in ("model_best.npz", "model_last.npz"):
        files = [workplace / x / name for x in ("true", "false")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_update_ratio_is_that_of_the_last_step_of_the_epoch(workplace: Path) -> None:
    """With one step per epoch, the weights before the step are those after the epoch before."""
    words = ("batch_size=1000", "layer_statistics=true", "test_weights=last", *FLOAT64)
    weights = []
    for epochs in (1, 2):
        finish(workplace / f"{epochs}", *words, f"epochs={epochs}", "early_stopping.monitor=loss")
        with np.load(workplace / f"{epochs}" / "model_last.npz") as arrays:
            weights.append(arrays["dense1.weight"])
    rows = table_of(workplace / "2" / "layers.csv")
    row = next(x for x in rows if (x["layer"], x["epoch"]) == ("dense1", "2"))
    change = np.linalg.norm(weights[1] - weights[0]) / np.linalg.norm(weights[0])
    assert float(row["update_ratio"]) == pytest.approx(change, rel=1e-12)
    assert float(row["weight_norm"]) == pytest.approx(np.linalg.norm(weights[1]), rel=1e-12)


# the target ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["validation_accuracy", "validation_loss", "train_accuracy"])
def test_target_of_a_run_equals_first_row_of_metrics_that_reaches_it(
    workplace: Path, metric: str
) -> None:
    words = ("epochs=20", "optimizer.lr=0.1", f"target.metric={metric}", "target.value=0.6")
    summary = finish(workplace / "a", *words)
    rows = read_metrics(workplace / "a" / "metrics.csv")
    sign = -1 if metric.endswith("loss") else 1
    first = next(row for row in rows if sign * getattr(row, metric) >= sign * 0.6)
    assert 1 < first.epoch < 20
    assert summary["target_reached"] is True
    assert summary["steps_to_target"] == first.step
    assert summary["epochs_to_target"] == first.epoch
    assert summary["steps_per_epoch"] * first.epoch == first.step
    seconds = sum(row.seconds for row in rows[: first.epoch])
    assert summary["seconds_to_target"] == pytest.approx(seconds, rel=1e-12)


def test_target_within_an_epoch_has_a_fraction_of_epochs(workplace: Path) -> None:
    """An epoch has 3 steps; the validation part is evaluated after steps 2, 3, 4, 6, ..."""
    words = ("target.metric=validation_loss", "target.value=100", "early_stopping.validate_every=2")
    summary = finish(workplace / "a", *words)
    assert (summary["steps_per_epoch"], summary["steps_to_target"]) == (3, 2)
    assert summary["epochs_to_target"] == pytest.approx(2 / 3)
    first = read_metrics(workplace / "a" / "metrics.csv")[0]
    assert 0 < summary["seconds_to_target"] < first.seconds


def test_target_that_is_not_reached_is_recorded_as_missed(workplace: Path) -> None:
    summary = finish(workplace / "a", "target.metric=train_accuracy", "target.value=1")
    assert summary["target_reached"] is False
    names = ("steps_to_target", "epochs_to_target", "seconds_to_target")
    assert [summary[name] for name in names] == [None] * 3
    assert (summary["steps"], summary["epochs"]) == (9, 3)
    assert summary["config"]["target"] == {"metric": "train_accuracy", "value": 1.0}
    assert finish(workplace / "b")["target_reached"] is None


def test_target_is_reached_only_after_the_last_pruning(workplace: Path) -> None:
    """The epochs before the last pruning have another network than the one that is tested."""
    words = ("target.metric=validation_loss", "target.value=100")
    pruning = ("pruning=magnitude", "pruning.sparsity=0.5", "pruning.start=2")
    assert finish(workplace / "a", *words)["steps_to_target"] == 3
    assert finish(workplace / "b", *words, *pruning)["steps_to_target"] == 9


WITHOUT_VALIDATION = "dataset.validation.source=none test_weights=last"

WRONG_TARGETS = {
    "target.value=0.8": "target.value = 0.8 has no effect without target.metric; set target.metric",
    "target.metric=train_loss": "needs target.value, a number of at least 0; set target.value=LOSS",
    "target.metric=train_accuracy": "needs target.value, a number above 0 and at most 1",
    "target.metric=train_accuracy target.value=80": "set target.value=0.8 for 80 %",
    "target.metric=train_accuracy target.value=0": "must be above 0 and at most 1",
    "target.metric=train_acc target.value=1": (
        "did you mean 'train_accuracy'? allowed: validation_accuracy, validation_loss, "
        "train_accuracy, train_loss, null"
    ),
    "target.metric=train_loss target.value=-1": "target.value = -1.0: needs to be at least 0",
    "target.metric=train_loss target.value=x": "target.value = 'x': needs a number or null",
    f"target.metric=validation_loss target.value=1 {WITHOUT_VALIDATION}": (
        "target.metric = 'validation_loss' needs validation data, but dataset.validation.source"
    ),
}


@pytest.mark.parametrize(("words", "message"), WRONG_TARGETS.items(), ids=WRONG_TARGETS)
def test_wrong_target_is_refused_with_one_message(
    nnopt: Callable[..., int], capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert nnopt("run", *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("outputs").exists()
