"""Searches that commands start: training, pruning, resuming, output and files."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnopt.data.load import _decode
from nnopt.recipe.recorder import RunRecorder
from nnopt.results.metrics_file import EpochRow
from nnopt.sweeps.manifest import read_sweep
from nnopt.sweeps.search.execute import plan_resumed_search
from nnopt.sweeps.search.study import JOURNAL

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = [
    "-m",
    "dataset.samples_per_class=20",
    "plots=false",
    "hydra/sweeper=optuna",
    "hydra.sweep.dir=s",
    "hydra.sweeper.pruner=median",
    "hydra.sweeper.warmup_epochs=1",
    "epochs=4",
    "optimizer.lr=tag(log, interval(1e-4, 1))",
    "architecture.hidden=choice([4],[8,4])",
]


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(folder: Path) -> list[dict[str, str]]:
    times = ("train_seconds", "total_seconds", "peak_memory_mb")
    return [{k: v for k, v in row.items() if k not in times} for row in table_of(folder)]


def test_search_command_prunes_trials_and_can_be_resumed(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "hydra.sweeper.trials=6") == 0
    before = {p: p.read_bytes() for p in workplace.glob("s/*/*.*")}
    capsys.readouterr()
    assert nnopt("resume", "s", "hydra.sweeper.trials=9") == 0
    out = capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())

    rows = table_of(workplace / "s")
    assert [row["number"] for row in rows] == [str(n) for n in range(1, 10)]
    statuses = {row["status"] for row in rows}
    assert statuses == {"done", "pruned"}
    (pruned, *_) = (row for row in rows if row["status"] == "pruned")
    assert "by hydra.sweeper.pruner=median: validation_accuracy" in pruned["error"]
    assert pruned["test_accuracy"] == ""
    folder = workplace / "s" / pruned["id"]
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert 1 <= summary["epochs"] < 4
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + summary["epochs"]
    assert np.load(folder / "model_last.npz")["dense1.weight"].shape[1] == 2
    assert "Traceback" not in (folder / "run.log").read_text()

    assert "[7/9]" in out
    assert "[6/9]" not in out
    assert "9 trials: " in out
    best = max(float(r["best_validation_accuracy"]) for r in rows if r["status"] == "done")
    assert f"{best:.6g}" in out
    assert (workplace / "s" / JOURNAL).exists()
    assert "optuna" not in out.lower()
    assert plan_resumed_search(read_sweep(workplace / "s"), [])[1].sweeper.trials == 9  # type: ignore[union-attr]
    for word in ("epochs=5", "seed=0,1"):
        assert nnopt("resume", "s", word) == 2
    assert nnopt("resume", "s", "--retry-failed") == 2
    assert "hydra.sweeper.trials" in capsys.readouterr().err


def test_search_resumed_from_another_folder_finds_data_files(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def write(slope: int) -> None:
        rows = [f"{slope * row % 7},{row % 2}" for row in range(40)]
        (workplace / "here/rows.csv").write_text("\n".join(["x,label", *rows, ""]))
        _decode.cache_clear()  # a new process would start with an empty cache

    mine = workplace / "here/conf/experiment/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\ndefaults:\n  - override /dataset: csv\nepochs: 1\n")
    write(3)
    (workplace / "there").mkdir()
    monkeypatch.chdir(workplace / "here")
    overrides = ["experiment=mine", "dataset.train=rows.csv", "optimizer.lr=interval(0.1, 0.3)"]
    overrides += ["plots=false", "hydra/sweeper=optuna", "hydra.sweeper.trials=1"]
    assert nnopt("run", "-m", *overrides, "hydra.sweep.dir=../there/s") == 0

    monkeypatch.chdir(workplace / "there")
    assert nnopt("resume", "s", "hydra.sweeper.trials=2") == 0
    assert [row["status"] for row in table_of(Path("s"))] == ["done"] * 2
    summaries = [json.loads(path.read_text()) for path in Path("s").glob("*/summary.json")]
    assert summaries[0]["data"] == summaries[1]["data"]

    write(5)
    capsys.readouterr()
    assert nnopt("resume", "s", "hydra.sweeper.trials=3") == 4
    assert "rows.csv: changed since" in capsys.readouterr().err


def test_search_with_failed_trial_exits_with_5(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    overrides = ["optimizer.lr=0.1,1e20", "hydra.sweeper.trials=6", "hydra.sweeper.pruner=none"]
    small = [word for word in SMALL if not word.startswith(("optimizer.lr", "architecture"))]
    assert nnopt("run", *small, *overrides) == 5
    captured = capsys.readouterr()
    assert "training diverged" in captured.err
    assert "repeated draws: " in captured.out
    assert {row["status"] for row in table_of(workplace / "s")} == {"done", "diverged"}


@pytest.mark.slow
def test_table_of_search_killed_and_resumed_equals_table_of_whole_search(
    start_nnopt: Callable[..., subprocess.Popen[str]], nnopt: Run, workplace: Path
) -> None:
    overrides = [*SMALL, "hydra.sweeper.trials=12", "hydra.sweeper.startup_trials=4"]
    assert nnopt("run", *overrides, "hydra.sweep.dir=whole") == 0
    journal = workplace / "s" / JOURNAL
    command = ["run", *overrides]
    for size in (2_000, 12_000):
        process = start_nnopt(*command)
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.01)
        process.kill()
        process.wait()
        command = ["resume", "s"]
    assert len(table_of(workplace / "s")) < 12
    assert nnopt("resume", "s") == 0
    assert without_times(workplace / "s") == without_times(workplace / "whole")


def test_search_interrupted_and_resumed_continues_its_point(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*SMALL, "hydra.sweeper.trials=6", "checkpoint.interval=0"]
    assert nnopt("run", *arguments, "hydra.sweep.dir=whole") == 0
    write_row = RunRecorder.write_row

    def interrupt(recorder: RunRecorder, row: EpochRow) -> None:
        write_row(recorder, row)
        if row.epoch == 2 and len(list(workplace.glob("s/*/config.yaml"))) == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "write_row", interrupt)
        assert nnopt("run", *arguments) == 143
    capsys.readouterr()
    assert nnopt("resume", "s") == 0
    assert "points that continue from a checkpoint: 1\n" in capsys.readouterr().out
    assert without_times(workplace / "s") == without_times(workplace / "whole")
    summaries = [json.loads(path.read_text()) for path in workplace.glob("s/*/summary.json")]
    assert sorted(summary["interruptions"] for summary in summaries) == [0, 0, 0, 0, 0, 1]


def test_planning_of_sweeps_and_searches_does_not_import_optuna() -> None:
    program = (
        "import sys\n"
        "import nnopt.cli.resume\n"
        "from nnopt.config.compose import make_plan\n"
        "make_plan(['seed=0,1'], multirun=True)\n"
        "make_plan(['hydra/sweeper=optuna', 'epochs=1,2'], multirun=True)\n"
        "sys.exit('optuna' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


@pytest.mark.parametrize("launcher", ["sequential", "pool"])
def test_resumed_search_repeats_points_with_lost_results(
    nnopt: Run, workplace: Path, capfd: pytest.CaptureFixture[str], launcher: str
) -> None:
    overrides = ["dataset.samples_per_class=20", "epochs=1", "plots=false", "hydra.sweep.dir=s"]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.trials=3", "optimizer.lr=interval(0.1,0.5)"]
    assert nnopt("run", "-m", *overrides, *search, f"hydra/launcher={launcher}") == 0
    before = without_times(workplace / "s")
    first, second, third = (workplace / "s" / row["id"] for row in before)
    text = (first / "summary.json").read_text()
    (first / "summary.json").write_text(text.replace('"done"', '"dona"', 1))
    (second / "summary.json").unlink()
    kept = (third / "summary.json").read_bytes()
    capfd.readouterr()

    assert nnopt("resume", "s") == 0
    assert without_times(workplace / "s") == before
    assert (third / "summary.json").read_bytes() == kept
    captured = capfd.readouterr()
    notes = [line for line in captured.err.splitlines() if "runs again" in line]
    assert len(notes) == 1
    assert f"{first.name}/summary.json is damaged: status is" in notes[0]
    assert "points done  3 of 3" in captured.out
    assert captured.out.splitlines()[0] == "2 points run again, because results are lost"
    assert nnopt("resume", "s") == 0
    captured = capfd.readouterr()
    assert "runs again" not in captured.err
    assert "lost" not in captured.out
    (third / "summary.json").unlink()
    assert nnopt("resume", "s") == 0
    assert "1 point runs again, because results are lost" in capfd.readouterr().out.splitlines()


def test_resumed_search_does_not_repeat_pruned_trial_with_damaged_summary(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "hydra.sweeper.trials=9") == 0
    (row, *_) = (row for row in table_of(workplace / "s") if row["status"] == "pruned")
    file = workplace / "s" / row["id"] / "summary.json"
    file.write_text("{}")
    capsys.readouterr()
    nnopt("resume", "s")
    assert "runs again" not in capsys.readouterr().err
    assert file.read_text() == "{}"
