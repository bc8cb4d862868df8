"""One run: its files, their columns and keys, and reproducibility from the seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from nnopt.config.compose import make_plan
from nnopt.config.validate import read_config
from nnopt.errors import DivergedError, TrainingError
from nnopt.recipe.recorder import RunRecorder
from nnopt.recipe.run import run
from nnopt.results.metrics_file import EpochRow, FileRow, MetricsFile, read_metrics

Run = Callable[..., int]

SMALL = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]

SUMMARY_KEYS = {
    "sha256",
    "files",
    "interruptions",
    "checkpoint_seconds",
    "status",
    "error",
    "id",
    "name",
    "seed",
    "overrides",
    "data",
    "test_loss",
    "test_accuracy",
    "test_top5_accuracy",
    "test_macro_f1",
    "test_calibration_error",
    "train_loss",
    "train_accuracy",
    "generalization_gap",
    "best_validation_loss",
    "best_validation_accuracy",
    "best_epoch",
    "averaged_epochs",
    "started",
    "finished",
    "final_train_loss",
    "final_train_accuracy",
    "epochs",
    "steps",
    "steps_per_epoch",
    "stopped_early",
    "target_reached",
    "steps_to_target",
    "epochs_to_target",
    "seconds_to_target",
    "suggested_lr",
    "parameters",
    "flops_per_sample",
    "sparsity",
    "compression_ratio",
    "theoretical_speedup",
    "measured_step_speedup",
    "measured_predict_speedup",
    "pruning",
    "train_seconds",
    "total_seconds",
    "peak_memory_mb",
    "peak_device_memory_mb",
    "versions",
    "git",
    "machine",
    "threads",
    "config",
}


def finish(directory: Path, *overrides: str) -> dict[str, Any]:
    """Run one configuration in a new folder, and return the content of its summary.json."""
    (point,) = make_plan([*SMALL, *overrides]).points
    directory.mkdir()
    run(point, directory)
    return summary_of(directory)


def summary_of(directory: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((directory / "summary.json").read_text("utf-8"))
    return loaded


def weights(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def without_seconds(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_run_writes_its_files(workplace: Path) -> None:
    summary = finish(workplace / "a", "seed=3", "regularizer.l2=0.01", "max_steps=4")
    assert {path.name for path in (workplace / "a").iterdir()} == {
        "classes.csv",
        "config.yaml",
        "confusion.csv",
        "metrics.csv",
        "model.json",
        "model_best.npz",
        "model_last.npz",
        "run.log",
        "summary.json",
    }
    assert set(summary) == SUMMARY_KEYS
    expected = {"status": "done", "error": None, "seed": 3, "name": "spiral_mlp", "epochs": 2}
    assert {key: summary[key] for key in expected} == expected
    # The 48 training samples give two steps per epoch, with 32 and 16 samples.
    assert (summary["steps"], summary["parameters"]) == (4, 387)
    assert summary["flops_per_sample"] == 771
    assert 0 < summary["train_seconds"] < summary["total_seconds"]
    assert summary["peak_memory_mb"] > 10
    assert summary["overrides"][-3:] == ["seed=3", "regularizer.l2=0.01", "max_steps=4"]
    assert "torch" not in summary["versions"] or summary["versions"]["torch"]
    assert "NaN" not in (workplace / "a" / "summary.json").read_text()


def test_metrics_of_a_run_have_specified_columns(workplace: Path) -> None:
    summary = finish(workplace / "a", "regularizer.l2=0.01", "schedule=cosine")
    lines = (workplace / "a" / "metrics.csv").read_text().splitlines()
    assert lines[0] == (
        "epoch,step,lr,train_loss,train_accuracy,validation_loss,validation_accuracy,penalty,"
        "gradient_norm,seconds,sparsity"
    )
    rows = read_metrics(workplace / "a" / "metrics.csv")
    assert [(row.epoch, row.step) for row in rows] == [(1, 2), (2, 4)]
    assert rows[-1].train_loss == summary["final_train_loss"]
    best = rows[summary["best_epoch"] - 1]
    assert best.validation_accuracy == summary["best_validation_accuracy"]
    assert best.validation_loss == summary["best_validation_loss"]
    assert all(row.penalty > 0 and row.gradient_norm > 0 for row in rows)


def test_config_file_contains_configuration_of_the_run(workplace: Path) -> None:
    summary = finish(workplace / "a", "optimizer=adam", "architecture.hidden=[5,4]")
    container = OmegaConf.to_container(OmegaConf.load(workplace / "a" / "config.yaml"))
    assert container == summary["config"]
    (point,) = make_plan([*SMALL, "optimizer=adam", "architecture.hidden=[5,4]"]).points
    assert read_config(container) == point.config  # type: ignore[arg-type]
    assert summary["id"] == point.id


@pytest.mark.parametrize("which", ["best", "last"])
def test_test_loss_is_that_of_the_configured_weights(workplace: Path, which: str) -> None:
    overrides = ["epochs=6", "optimizer.lr=1", f"test_weights={which}", "seed=2"]
    summary = finish(workplace / "a", *overrides)
    from nnopt.backends.numpy import build_loader, build_network
    from nnopt.recipe.prepare import prepare
    from nnopt.training.evaluation import evaluate

    (point,) = make_plan([*SMALL, *overrides]).points
    prepared = prepare(point.config)
    network = build_network(prepared.architecture, point.config)
    test = prepared.dataset.test
    loader = build_loader(test, prepared.dataset.normalization, point.config)
    losses = {}
    for name in ("best", "last"):
        network.load(weights(workplace / "a" / f"model_{name}.npz"))
        losses[name] = evaluate(
            network, loader.evaluation_batches(), test.labels[test.rows], point.config
        ).loss
    assert losses["best"] != losses["last"]
    assert summary["test_loss"] == losses[which]


def test_weight_files_contain_plain_arrays(workplace: Path) -> None:
    finish(workplace / "a", "regularizer.norm=batch", "backend.dtype=float32")
    found = weights(workplace / "a" / "model_last.npz")
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "dense1.weight": ((64, 2), "float32"),
        "batch_norm1.weight": ((64,), "float32"),
        "batch_norm1.bias": ((64,), "float32"),
        "batch_norm1.running_mean": ((64,), "float32"),
        "batch_norm1.running_var": ((64,), "float32"),
        "dense2.weight": ((3, 64), "float32"),
        "dense2.bias": ((3,), "float32"),
    }


RANDOM = ["regularizer=all", "regularizer.norm=none", "optimizer=adam"]


def test_run_with_same_seed_gives_same_bits(workplace: Path) -> None:
    for name in ("a", "b"):
        finish(workplace / name, *RANDOM, "seed=4")
    finish(workplace / "c", *RANDOM, "seed=5")
    assert without_seconds(workplace / "a") == without_seconds(workplace / "b")
    assert without_seconds(workplace / "a") != without_seconds(workplace / "c")
    first, second = (weights(workplace / name / "model_last.npz") for name in "ab")
    for name, array in first.items():
        assert_array_equal(array, second[name])


def test_sweep_point_equals_single_run_for_any_order_of_the_points(
    nnopt: Run, workplace: Path
) -> None:
    finish(workplace / "alone", *RANDOM, "seed=1")
    expected = without_seconds(workplace / "alone")
    for number, seeds in enumerate(("0,1", "1,0")):
        folder = f"hydra.sweep.dir=sweep{number}"
        assert nnopt("run", "-m", *SMALL, *RANDOM, f"seed={seeds}", folder) == 0
        (found,) = workplace.glob(f"sweep{number}/*-s1-*")
        assert without_seconds(found) == expected
        assert summary_of(found)["id"] == summary_of(workplace / "alone")["id"]


def test_run_with_two_features_plots_decision_boundary(workplace: Path) -> None:
    finish(workplace / "a", "plots=true")
    assert {path.stem for path in (workplace / "a" / "plots").iterdir()} == {
        "confusion",
        "curves",
        "decision_boundary",
        "schedule",
        "weights",
    }


def test_log_of_a_run_contains_epochs_and_status(workplace: Path) -> None:
    finish(workplace / "a", "seed=1")
    log = (workplace / "a" / "run.log").read_text("utf-8")
    for overrides in ("seed=1", "epoch 2: ", "test accuracy", "status: done"):
        assert overrides in log


def test_run_without_validation_has_empty_cells(workplace: Path) -> None:
    overrides = ["dataset.validation.source=none", "test_weights=last"]
    summary = finish(workplace / "a", *overrides)
    rows = without_seconds(workplace / "a")
    assert all(row["validation_loss"] == row["validation_accuracy"] == "" for row in rows)
    assert summary["best_validation_accuracy"] is None
    assert summary["status"] == "done"


def test_run_of_one_step_has_equal_last_and_best_weights(workplace: Path) -> None:
    summary = finish(workplace / "a", "optimizer.lr=0", "max_steps=1", "batch_size=1000")
    assert (summary["epochs"], summary["steps"]) == (1, 1)
    last, best = (weights(workplace / "a" / f"model_{name}.npz") for name in ("last", "best"))
    for name, array in last.items():
        assert_array_equal(array, best[name])


def test_run_that_diverges_keeps_rows_and_finite_weights(workplace: Path) -> None:
    (point,) = make_plan(
        [*SMALL, "epochs=20", "optimizer.lr=1e20", "regularizer.grad_clip=0"]
    ).points
    (workplace / "a").mkdir()
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr than 1e\+20"):
        run(point, workplace / "a")
    summary = summary_of(workplace / "a")
    assert set(summary) == SUMMARY_KEYS
    assert summary["status"] == "diverged"
    assert summary["error"].startswith("training diverged: at step ")
    assert "the outputs of layer dense" in summary["error"]
    assert len(without_seconds(workplace / "a")) == summary["epochs"] < 20
    for name in ("last", "best"):
        found = weights(workplace / "a" / f"model_{name}.npz")
        assert len(found) == 4
        assert all(np.isfinite(array).all() for array in found.values())
    assert "Traceback" in (workplace / "a" / "run.log").read_text("utf-8")


def test_run_with_bug_has_status_failed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nnopt.recipe.run

    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(nnopt.recipe.run, "evaluate", fail)
    (point,) = make_plan(SMALL).points
    (workplace / "a").mkdir()
    with pytest.raises(ZeroDivisionError):
        run(point, workplace / "a")
    summary = summary_of(workplace / "a")
    assert (summary["status"], summary["error"]) == ("failed", "ZeroDivisionError: planted")
    assert "planted" in (workplace / "a" / "run.log").read_text("utf-8")


def test_callbacks_receive_epochs_and_may_stop_the_run(workplace: Path) -> None:
    """The row of an epoch is written before callbacks run. Callbacks do not change results."""
    (workplace / "callbacks").mkdir()
    received: list[tuple[EpochRow, bool]] = []

    def record(row: EpochRow, best: bool) -> None:
        received.append((row, best))
        assert read_metrics(workplace / "callbacks" / "metrics.csv") == [row for row, _ in received]

    def stop(row: EpochRow, best: bool) -> None:
        if row.epoch == 2:
            raise TrainingError("enough")

    point = make_plan([*SMALL, "epochs=4"]).points[0]
    with pytest.raises(TrainingError, match="enough"):
        run(point, workplace / "callbacks", [record, stop])
    summary = json.loads((workplace / "callbacks" / "summary.json").read_text("utf-8"))
    assert (summary["status"], summary["error"], summary["epochs"]) == ("failed", "enough", 2)
    assert (workplace / "callbacks" / "model_last.npz").exists()

    whole = finish(workplace / "whole", *SMALL, "epochs=4")
    rows = read_metrics(workplace / "whole" / "metrics.csv")
    assert [replace(row, seconds=0) for row, _ in received] == [
        replace(row, seconds=0) for row in rows[:2]
    ]
    assert whole["epochs"] == 4
    assert received[0][1]  # the first epoch is the best so far


@pytest.mark.parametrize("is_written", [False, True])
def test_run_interrupted_while_writing_row_loses_no_row(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    append, calls = MetricsFile.append, []

    def interrupted(file: MetricsFile, *rows: FileRow) -> None:
        calls.append(rows)
        if len(calls) == 2 and not is_written:
            raise KeyboardInterrupt
        append(file, *rows)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsFile, "append", interrupted)
    (point,) = make_plan([*SMALL, "epochs=4"]).points
    (workplace / "a").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(point, workplace / "a")
    rows = read_metrics(workplace / "a" / "metrics.csv")
    assert [row.epoch for row in rows] == [1, 2]
    assert summary_of(workplace / "a")["epochs"] == 2


def test_early_stopping_is_recorded_in_the_summary(workplace: Path) -> None:
    overrides = ["epochs=50", "optimizer.lr=0", "early_stopping.patience=3"]
    summary = finish(workplace / "a", *overrides)
    assert summary["stopped_early"] is True
    assert (summary["best_epoch"], summary["epochs"]) == (1, 4)


def test_run_with_swa_but_no_average_prints_note(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        "epochs=10",
        "optimizer.lr=0",
        "early_stopping.patience=2",
        "regularizer.swa_start=0.5",
    ]
    assert finish(workplace / "a", *overrides)["averaged_epochs"] == 0
    message = (
        "regularizer.swa_start = 0.5 averages from the end of epoch 5 on, but the best weights, "
        "which "
    )
    assert f"note: {message}" in capsys.readouterr().out
    assert f"WARNING {message}" in (workplace / "a" / "run.log").read_text("utf-8")


def test_run_with_swa_records_averaged_epochs(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["epochs=4", "regularizer.swa_start=0.5", "test_weights=last"]
    assert finish(workplace / "a", *overrides)["averaged_epochs"] == 3
    assert finish(workplace / "b")["averaged_epochs"] is None
    assert "regularizer.swa_start" not in capsys.readouterr().out


def test_layer_statistics_are_optional_and_change_nothing(workplace: Path) -> None:
    """The statistics change neither the metrics, nor the weights, nor the id of the point."""
    overrides = ["plots=true", "regularizer.dropout=0.2"]
    plain = finish(workplace / "plain", *overrides)
    watched = finish(workplace / "watched", *overrides, "layer_statistics=true")
    assert not (workplace / "plain" / "layers.csv").exists()
    assert not (workplace / "plain" / "plots" / "layer_statistics.png").exists()
    assert (workplace / "watched" / "plots" / "layer_statistics.png").exists()
    with (workplace / "watched" / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ["dense1", "relu1", "dropout1", "dense2"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [
        (epoch, name) for epoch in "12" for name in names
    ]
    assert all(float(row["activation_std"]) > 0 for row in rows)
    assert [bool(row["dead_fraction"]) for row in rows] == [False, True, False, False] * 2
    assert [bool(row["gradient_std"]) for row in rows] == [True, False, False, True] * 2

    assert without_seconds(workplace / "plain") == without_seconds(workplace / "watched")
    first, second = (weights(workplace / name / "model_last.npz") for name in ("plain", "watched"))
    for name, array in first.items():
        assert_array_equal(array, second[name])
    assert plain["id"] == watched["id"]


CONV = "[{conv2d: 3}, batch_norm, relu, max_pool2d, flatten, {dense: classes}]"


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_run_of_convolutional_network_plots_filters(workplace: Path, backend: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 36))
    header = ",".join(["label", *(f"pixel{k}" for k in range(36))])
    lines = [",".join(map(str, [k % 2, *row])) for k, row in enumerate(pixels)]
    (workplace / "images.csv").write_text("\n".join([header, *lines]) + "\n")
    (point,) = make_plan(
        [
            "dataset=csv",
            "dataset.train=images.csv",
            f"backend={backend}",
            "architecture=layers",
            f"architecture.layers={CONV}",
            "epochs=1",
            "layer_statistics=true",
        ]
    ).points
    (workplace / "a").mkdir()
    run(point, workplace / "a")
    names = {path.stem for path in (workplace / "a" / "plots").iterdir()}
    assert {"filters", "feature_maps", "layer_statistics", "samples"} <= names


def test_run_recorder_without_exit_writes_status_interrupted(workplace: Path) -> None:
    """A signal right after ``__enter__`` may prevent the call of ``__exit__``."""
    (point,) = make_plan(SMALL).points
    recording = RunRecorder(point, workplace, (), quiet=True).recording()
    recording.__enter__()
    del recording
    summary = summary_of(workplace)
    assert (summary["status"], summary["error"]) == ("interrupted", "interrupted")
