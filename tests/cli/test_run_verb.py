"""``nnopt run``: new folders, sweeps that continue after failures, and signals."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Captured = pytest.CaptureFixture[str]

SMALL = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]


def summary_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return loaded


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_command_creates_new_folder_and_updates_latest_link(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "name=first") == 0
    (first,) = workplace.glob("outputs/runs/*")
    assert first.name.endswith("_first")
    assert (workplace / "outputs/latest").resolve() == first
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("epoch 1/2", "epoch 2/2", "test accuracy", f"outputs/runs/{first.name}"):
        assert text in captured.out
    assert nnopt("run", *SMALL, "name=second") == 0
    assert len(list(workplace.glob("outputs/runs/*"))) == 2
    assert (workplace / "outputs/latest").resolve().name.endswith("_second")


def test_points_of_a_large_sweep_have_no_plots(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("config.point", "cli.run"):
        monkeypatch.setattr(f"nnopt.{module}.MAX_POINTS_WITH_PLOTS", 2)
    small = ["epochs=2", "dataset.samples_per_class=20"]

    def plots_of(number: int, *overrides: str) -> tuple[int, bool, bool]:
        """Run a sweep and return its number of points with plots, and two flags.

        The flags tell whether the sweep itself has plots, and whether nnopt printed a note.
        """
        folder = f"hydra.sweep.dir={number}"
        assert nnopt("run", "-m", *small, *overrides, folder) == 0
        drawn = len(list(workplace.glob(f"{number}/*/plots/curves.png")))
        stdout = "plots=true adds" in capsys.readouterr().out
        return drawn, (workplace / str(number) / "plots/curves.svg").is_file(), stdout

    assert plots_of(1, "optimizer.lr=0.1,0.2") == (2, True, False)
    assert plots_of(2, "optimizer.lr=0.1,0.2,0.3") == (0, True, True)
    assert plots_of(3, "optimizer.lr=0.1,0.2,0.3", "plots=true") == (3, True, False)
    assert plots_of(4, "optimizer.lr=0.1,0.2", "plots=false") == (0, False, False)
    assert nnopt("resume", "1", "optimizer.lr=0.3") == 0
    assert len(list(workplace.glob("1/*/plots"))) == 2  # the point added on resume has no plots
    search = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "optimizer.lr=interval(0.1, 0.5)"]
    assert plots_of(5, *search) == (0, True, True)


def test_run_dir_sets_folder_that_a_second_run_cannot_use(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "hydra.run.dir=here/it is") == 0
    metrics = workplace / "here/it is/metrics.csv"
    before = metrics.read_bytes()
    assert not (workplace / "outputs").exists()
    capsys.readouterr()

    assert nnopt("run", *SMALL, "seed=1", "hydra.run.dir=here/it is") == 6
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert "here/it is is not empty" in stderr
    assert metrics.read_bytes() == before
    assert nnopt("run", "-m", *SMALL, "seed=1", "hydra.sweep.dir=here/it is") == 6
    assert metrics.read_bytes() == before


def test_run_dir_that_is_empty_is_used(nnopt: Run, workplace: Path) -> None:
    (workplace / "empty").mkdir()
    assert nnopt("run", *SMALL, "hydra.run.dir=empty") == 0
    assert summary_of(workplace / "empty")["status"] == "done"
    assert [path.name for path in workplace.iterdir()] == ["empty"]


@pytest.mark.parametrize("obstacle", ["file", "below a file"])
def test_run_dir_that_cannot_be_created_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured, obstacle: str
) -> None:
    (workplace / "taken").write_text("mine")
    place = "taken" if obstacle == "file" else "taken/below"
    assert nnopt("run", *SMALL, f"hydra.run.dir={place}") == 6
    assert capsys.readouterr().err.count("\n") == 1
    assert (workplace / "taken").read_text() == "mine"


@pytest.mark.slow
def test_runs_started_in_the_same_second_have_distinct_folders(
    start_nnopt: Start, workplace: Path
) -> None:
    processes = [start_nnopt("run", *SMALL, f"seed={seed}") for seed in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    folders = list(workplace.glob("outputs/runs/*"))
    assert len(folders) == 3
    assert {summary_of(folder)["seed"] for folder in folders} == {0, 1, 2}
    assert (workplace / "outputs/latest").resolve() in folders


def test_sweep_writes_table_and_one_folder_per_point(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", "-m", *SMALL, "optimizer=sgd,adam", "seed=0,1", "name=both") == 0
    (sweep,) = workplace.glob("outputs/sweeps/*")
    assert sweep.name.endswith("_both")
    assert (workplace / "outputs/latest").resolve() == sweep
    rows = table_of(sweep)
    assert [(row["number"], row["optimizer"], row["seed"]) for row in rows] == [
        ("1", "sgd", "0"),
        ("2", "sgd", "1"),
        ("3", "adam", "0"),
        ("4", "adam", "1"),
    ]
    assert {path.name for path in sweep.iterdir()} == {
        *(row["id"] for row in rows),
        *("results.csv", "sweep.json", "lock"),
    }
    for row in rows:
        summary = summary_of(sweep / row["id"])
        assert row["status"] == summary["status"] == "done"
        assert row["error"] == ""
        assert float(row["test_accuracy"]) == summary["test_accuracy"]
    stdout = capsys.readouterr().out
    assert "[3/4] optimizer=adam seed=0  done " in stdout
    assert "epoch" not in stdout
    assert re.search(r"\[1/4\] .* about \d+ s left$", stdout, re.M)
    assert "4 of 4" in stdout


def test_sweep_continues_after_failed_point(nnopt: Run, workplace: Path, capsys: Captured) -> None:
    overrides = ["optimizer.lr=0.1,1e20,0.2", "hydra.sweep.dir=sweep", "epochs=10"]
    assert nnopt("run", "-m", *SMALL, *overrides) == 5
    rows = table_of(workplace / "sweep")
    assert [row["status"] for row in rows] == ["done", "diverged", "done"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "training diverged: at step" in rows[1]["error"]
    assert rows[1]["test_accuracy"] == ""
    captured = capsys.readouterr()
    assert "2 of 3" in captured.out
    assert rows[1]["id"] in captured.err
    assert "Traceback" not in captured.err


def test_sweep_continues_after_bug_in_point(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnopt.recipe import run as run_file
    from nnopt.training.evaluation import evaluate

    real, calls = evaluate, []

    def fail_first(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("planted")
        return real(*arguments)

    monkeypatch.setattr(run_file, "evaluate", fail_first)
    assert nnopt("run", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep") == 5
    rows = table_of(workplace / "sweep")
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert rows[0]["error"] == "ZeroDivisionError: planted"


def test_sweep_with_wrong_point_is_refused_before_start(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    overrides = ["optimizer.lr=0.1,abc,0.2", "batch_size=0,16"]
    assert nnopt("run", "-m", *SMALL, *overrides) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        # 60 samples, 12 of them for validation
        (["regularizer.norm=batch", "batch_size=47"], ["batch_size = 47", "48", "batch_norm1"]),
        (["regularizer.norm=batch", "batch_size=1"], ["batch_size = 1 ", "larger batch_size"]),
        (["drop_last=true", "batch_size=49"], ["batch_size = 49", "drop_last", "48"]),
    ],
)
def test_run_with_impossible_batches_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured, overrides: list[str], named: list[str]
) -> None:
    assert nnopt("run", *SMALL, *overrides) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert all(word in stderr for word in named), stderr
    assert list(workplace.iterdir()) == []


def test_run_that_drops_a_last_batch_of_one_sample_is_done(nnopt: Run, workplace: Path) -> None:
    """Each of the two epochs has 48 samples and one step."""
    overrides = ["regularizer.norm=batch", "batch_size=47", "drop_last=true"]
    assert nnopt("run", *SMALL, *overrides, "hydra.run.dir=here") == 0
    summary = summary_of(workplace / "here")
    assert (summary["status"], summary["epochs"], summary["steps"]) == ("done", 2, 2)


def test_run_that_diverges_has_exit_code_5(nnopt: Run, workplace: Path, capsys: Captured) -> None:
    assert nnopt("run", *SMALL, "optimizer.lr=1e20", "hydra.run.dir=here", "epochs=10") == 5
    assert summary_of(workplace / "here")["status"] == "diverged"
    stderr = capsys.readouterr().err
    assert stderr.count("nnopt: error: ") == 1
    assert "diverged" in stderr


LONG = ["epochs=100000", "dataset.samples_per_class=20", "plots=false", "hydra.run.dir=here"]


def wait_for_rows(folder: Path, count: int) -> None:
    for _ in range(600):
        path = folder / "metrics.csv"
        if path.exists() and path.read_text().count("\n") > count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} rows in {folder}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_interrupted_run_keeps_results(
    start_nnopt: Start, workplace: Path, number: signal.Signals, code: int
) -> None:
    process = start_nnopt("run", *LONG)
    wait_for_rows(workplace / "here", 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    summary = summary_of(workplace / "here")
    assert summary["status"] == "interrupted"
    assert summary["test_accuracy"] is None
    rows = (workplace / "here" / "metrics.csv").read_text().splitlines()[1:]
    assert summary["epochs"] - 1 <= len(rows) <= summary["epochs"] + 1
    assert all(row.count(",") == 10 for row in rows)
    for name in ("model_last", "model_best"):
        with np.load(workplace / "here" / f"{name}.npz", allow_pickle=False) as archive:
            assert all(np.isfinite(archive[key]).all() for key in archive.files)


def test_interrupted_sweep_writes_table(start_nnopt: Start, workplace: Path) -> None:
    overrides = [
        "dataset.samples_per_class=20",
        "plots=false",
        "epochs=1,100000,2",
        "hydra.sweep.dir=sweep",
    ]
    process = start_nnopt("run", "-m", *overrides)
    for _ in range(600):
        folders = [path.parent for path in workplace.glob("sweep/*/metrics.csv")]
        if len(folders) == 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    statuses = [row["status"] for row in table_of(workplace / "sweep")]
    assert statuses == ["done", "interrupted", "pending"]
