"""Points that continue from their checkpoints, when a task runs again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnopt.results.checkpoint_file import Content, read_checkpoint, write_checkpoint
from nnopt.results.metrics_file import EpochRow
from nnopt.results.summary import read_summary, write_summary
from nnopt.sweeps.manifest import with_values
from nnopt.sweeps.point_folder import read_state
from nnopt.sweeps.task import Task, run_sequentially, run_task
from nnopt.terminal.interruption import interrupt

MakeTask = Callable[..., Task]


def stop(row: EpochRow, is_best: bool) -> None:
    """Interrupt a point after its second epoch. The point then writes a checkpoint."""
    if row.epoch == 2:
        interrupt(KeyboardInterrupt())


def fail(row: EpochRow, is_best: bool) -> None:
    if row.epoch == 3:
        raise RuntimeError("a bug")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


@pytest.fixture
def task(make_task: MakeTask) -> Task:
    return make_task(0, epochs=4, **{"checkpoint.interval": 0.0})


@pytest.mark.parametrize("status", ["failed", "timeout", "diverged"])
def test_task_that_ended_early_continues_unless_it_diverged(task: Task, status: str) -> None:
    assert run_task(replace(task, after_epoch=(fail,))).status == "failed"
    write_summary(task.folder, {**read_summary(task.folder).values, "status": status})
    state = read_state(task.folder)
    # Without ``replaces``, an ended point is not repeated: another process may have ended it.
    assert run_task(task).status == status
    assert run_task(replace(task, replaces=state.stamp)).status == "done"
    assert summary_of(task.folder)["interruptions"] == (status != "diverged")


def test_task_repeated_after_interruption_gives_equal_bits(task: Task) -> None:
    """SLURM repeats the same task when it requeues a job."""
    assert run_task(task).status == "done"
    whole, accuracy = files_of(task.folder), summary_of(task.folder)["test_accuracy"]
    (task.folder / "summary.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        run_task(replace(task, after_epoch=(stop,)))
    assert summary_of(task.folder)["status"] == "interrupted"
    assert run_task(task).status == "done"
    assert files_of(task.folder) == whole
    summary = summary_of(task.folder)
    assert (summary["interruptions"], summary["test_accuracy"]) == (1, accuracy)


def test_task_with_replaced_data_values_continues(task: Task) -> None:
    """The values below the key ``data`` come from the task, not from the checkpoint."""
    stored = with_values(task.point, "data", cache="photos", download=True)
    with pytest.raises(KeyboardInterrupt):
        run_task(replace(task, point=stored, after_epoch=(stop,)))
    safe = with_values(task.point, "data", cache=None, download=False)
    assert run_task(replace(task, point=safe)).status == "done"
    summary = summary_of(task.folder)
    assert (summary["interruptions"], summary["config"]) == (1, safe.container)


def test_max_time_applies_to_each_point_of_sequential_launcher(make_task: MakeTask) -> None:
    tasks = [make_task(seed, epochs=10_000_000, max_time=0.2) for seed in (0, 1)]
    for _ in range(2):
        tasks = [replace(x, replaces=read_state(x.folder).stamp) for x in tasks]
        before = [summary_of(x.folder)["steps"] if x.replaces else 0 for x in tasks]
        results = [(x.status, x.error) for x in run_sequentially(tasks)]
        assert results == [("timeout", "took longer than max_time = 0.2 s")] * 2
        after = [summary_of(task.folder)["steps"] for task in tasks]
        assert all(new > old for new, old in zip(after, before, strict=True))


def test_interruption_while_point_fails_is_raised(task: Task) -> None:
    """Without the exception, the sweep would start the next point."""

    def stop_and_fail(row: EpochRow, is_best: bool) -> None:
        interrupt(KeyboardInterrupt())
        raise RuntimeError("a bug")

    with pytest.raises(KeyboardInterrupt):
        run_task(replace(task, after_epoch=(stop_and_fail,)))
    assert summary_of(task.folder)["status"] == "interrupted"


def test_task_with_damaged_checkpoints_starts_over(task: Task) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_task(replace(task, after_epoch=(stop,)))
    for path in task.folder.glob("checkpoint_*"):
        path.write_bytes(b"damaged")
    assert run_task(task).status == "done"
    assert summary_of(task.folder)["interruptions"] == 0


def test_task_with_checkpoint_of_another_network_starts_over(task: Task) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_task(replace(task, after_epoch=(stop,)))
    for path in task.folder.glob("checkpoint_*"):
        checkpoint = read_checkpoint(path)
        values, arrays = checkpoint.training.values, {**checkpoint.training.arrays}
        del arrays["last/dense1.weight"]
        write_checkpoint(path, replace(checkpoint, training=Content(values, arrays)))
    assert run_task(task).status == "done"
    summary = summary_of(task.folder)
    assert (summary["status"], summary["interruptions"]) == ("done", 0)
