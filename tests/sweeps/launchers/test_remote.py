"""Code shared by launchers: time limits, and results of points whose process has died."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import summary_values

from nnopt.errors import ConfigError
from nnopt.io.atomic_files import write_json
from nnopt.io.locks import hold
from nnopt.recipe.checkpoints import latest_checkpoint
from nnopt.recipe.recorder import AfterEpoch
from nnopt.sweeps.launchers import remote as elsewhere
from nnopt.sweeps.launchers.remote import record_lost_task, require_package, run_task_within
from nnopt.sweeps.point_folder import read_state
from nnopt.sweeps.task import Task, TaskResult
from nnopt.terminal.interruption import Interruption

MakeTask = Callable[..., Task]


@pytest.fixture(autouse=True)
def own_folder_and_much_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    # A task that does not end within the grace period would kill its process, which is pytest.
    monkeypatch.setattr(elsewhere, "GRACE_SECONDS", 600)


def test_task_over_time_limit_keeps_results(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(0, epochs=10_000_000)
    handler = signal.getsignal(signal.SIGALRM)
    outcome = run_task_within(task, 1.5, str(tmp_path))
    assert outcome == TaskResult(task, "timeout", "took longer than hydra.launcher.timeout = 1.5 s")
    summary = json.loads((task.folder / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == (outcome.status, outcome.error)
    rows = (task.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) - 1 == summary["epochs"] > 0
    with np.load(task.folder / "model_last.npz") as weights:
        assert all(np.isfinite(weights[name]).all() for name in weights.files)
    assert signal.getsignal(signal.SIGALRM) is handler


def test_time_limit_during_logging_is_not_lost(make_task: MakeTask, tmp_path: Path) -> None:
    class Clock(io.StringIO):
        def write(self, text: str) -> int:
            if "epoch 3" in text:
                signal.raise_signal(signal.SIGALRM)
            return len(text)

    handler, logger = logging.StreamHandler(Clock()), logging.getLogger("nnopt")
    logger.addHandler(handler)
    try:
        outcome = run_task_within(make_task(0, epochs=5), 600, str(tmp_path))
    finally:
        logger.removeHandler(handler)
    assert outcome.status == "timeout"


def raise_at(epoch: int, number: signal.Signals) -> AfterEpoch:
    """Return a callback that raises the signal ``number`` after the epoch ``epoch``."""
    return lambda row, is_best: signal.raise_signal(number) if row.epoch == epoch else None


def test_task_over_time_limit_continues_and_gives_equal_bits(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(0, epochs=5)
    assert run_task_within(task, None, str(tmp_path)).status == "done"
    whole = (task.folder / "model_last.npz").read_bytes()
    shutil.rmtree(task.folder)
    late = replace(task, after_epoch=(raise_at(3, signal.SIGALRM),))
    assert run_task_within(late, 600, str(tmp_path)).status == "timeout"
    retried = replace(task, replaces=read_state(task.folder).stamp)
    assert run_task_within(retried, 600, str(tmp_path)).status == "done"
    assert read_state(task.folder).summary["interruptions"] == 1
    assert (task.folder / "model_last.npz").read_bytes() == whole


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Interruption)]
)
def test_signal_from_ray_becomes_an_exception_after_a_checkpoint(
    make_task: MakeTask, tmp_path: Path, number: signal.Signals, expected: type[BaseException]
) -> None:
    def exit_at_once(number: int, frame: object) -> None:
        raise SystemExit(1)

    before = signal.signal(signal.SIGTERM, exit_at_once)
    try:
        task = make_task(0, epochs=5)
        with pytest.raises(expected):
            run_task_within(replace(task, after_epoch=(raise_at(3, number),)), None, str(tmp_path))
        assert signal.getsignal(signal.SIGTERM) is exit_at_once
    finally:
        signal.signal(signal.SIGTERM, before)
    summary = read_state(task.folder).summary
    assert (summary["status"], summary["epochs"]) == ("interrupted", 3)
    checkpoint = latest_checkpoint(task.folder)
    assert checkpoint is not None
    assert checkpoint.step == summary["steps"]


def test_task_within_time_limit_is_not_stopped_later(make_task: MakeTask, tmp_path: Path) -> None:
    assert run_task_within(make_task(0), 600, str(tmp_path)).status == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert run_task_within(make_task(1), None, str(tmp_path)).status == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_task_runs_in_working_directory_of_sweep(make_task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    run_task_within(make_task(0), None, str(tmp_path / "below"))
    assert Path(os.getcwd()) == tmp_path / "below"


@pytest.mark.parametrize("status", ["done", "failed", "diverged", "pruned"])
def test_lost_task_that_has_ended_returns_its_own_result(make_task: MakeTask, status: str) -> None:
    task = make_task(0)
    task.folder.mkdir()
    write_json(task.folder / "summary.json", summary_values(status=status, error="its own"))
    assert record_lost_task(task, "interrupted", "another") == TaskResult(task, status, "its own")


@pytest.mark.parametrize(
    ("status", "recorded"), [("failed", "interrupted"), ("timeout", "timeout")]
)
def test_lost_task_after_signal_is_interrupted_unless_it_timed_out(
    make_task: MakeTask, status: str, recorded: str
) -> None:
    task = make_task(0)
    task.folder.mkdir()
    values = summary_values(status="interrupted", error="interrupted by SIGTERM", steps=3)
    write_json(task.folder / "summary.json", values)
    assert record_lost_task(task, status, "another").status == recorded
    assert read_state(task.folder).summary["steps"] == 3


def test_lost_task_does_not_keep_summary_of_earlier_attempt(make_task: MakeTask) -> None:
    """The process of a retried point dies before the point starts."""
    task = make_task(0)
    task.folder.mkdir()
    values = summary_values(status="failed", error="its own", epochs=3)
    write_json(task.folder / "summary.json", values)
    task = replace(task, replaces=read_state(task.folder).stamp)
    assert record_lost_task(task, "failed", "another") == TaskResult(task, "failed", "another")
    assert read_state(task.folder).error == "another"
    assert read_state(task.folder).summary["epochs"] is None


def test_lost_task_held_by_another_process_has_status_running(make_task: MakeTask) -> None:
    task = make_task(0)
    task.folder.mkdir()
    with hold(task.folder):
        assert record_lost_task(task, "failed", "gone").status == "running"
    assert not (task.folder / "summary.json").exists()


@pytest.mark.parametrize(
    "before",
    [
        None,
        "{half",
        json.dumps(summary_values(status="interrupted", epochs=3)),
        json.dumps(summary_values(status="running", epochs=3)),
    ],
)
def test_lost_task_without_final_summary_gets_one(make_task: MakeTask, before: str | None) -> None:
    task = make_task(4)
    if before is not None:
        task.folder.mkdir()
        (task.folder / "summary.json").write_text(before)
    assert record_lost_task(task, "failed", "gone") == TaskResult(task, "failed", "gone")
    summary = json.loads((task.folder / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "gone")
    assert summary["epochs"] == (3 if before and "epochs" in before else None)


def test_error_about_missing_package_mentions_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"no_such_package.*'\.\[ray\]'"):
        require_package("no_such_package", "ray", "ray")
    require_package("json", "ray", "ray")
