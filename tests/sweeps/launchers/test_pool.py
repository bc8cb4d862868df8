"""The launcher pool: the effects of a worker's death, and the end of every process."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import descendants, is_alive, own_workers, training_points, wait_until
from threadpoolctl import threadpool_limits

from nnopt.schema import PoolConfig
from nnopt.sweeps.launchers import pool as pool_file
from nnopt.sweeps.launchers.pool import run_in_pool
from nnopt.sweeps.point_folder import read_state
from nnopt.sweeps.task import Task, TaskResult, run_sequentially

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

MakeTask = Callable[..., Task]
Start = Callable[..., "subprocess.Popen[str]"]

# A worker whose behaviour depends on the seed: 1 hangs, 2 hangs and ignores SIGTERM, 3 kills
# itself, 4 crashes in C, 5 starts a process and hangs. With other seeds, it reports its process id
# and environment in a file.
PROGRAM = """
import os, signal, subprocess, sys, time
sys.path = sys.argv[1:]
import nnopt.sweeps.task as file
from nnopt.sweeps.launchers.worker import main

def run_task(task):
    seed = task.point.config.seed
    task.folder.mkdir()
    if seed == 2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 4:
        print("what went wrong", file=sys.stderr, flush=True)
        os.abort()
    if seed == 5:
        child = subprocess.Popen(["sleep", "1000"])
        (task.folder / "child").write_text(str(child.pid))
    (task.folder / "started").touch()
    if seed in (1, 2, 5):
        time.sleep(1000)
    print("not for the terminal")
    names = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
    environment = {name: os.environ.get(name) for name in names}
    (task.folder / "report").write_text(repr((os.getpid(), environment)))
    return file.TaskResult(task, "done")

file.run_task = run_task
main()
"""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers run ``PROGRAM`` of this file, and shorten the grace period."""
    monkeypatch.setattr(pool_file, "PROGRAM", PROGRAM)
    monkeypatch.setattr(pool_file, "GRACE_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Check that every process ends with its test."""
    before = own_workers()
    yield
    assert own_workers() <= before


def config(
    workers: int | None = 1,
    threads: int | None = 1,
    timeout: float | None = None,
    devices: tuple[int | str, ...] | None = None,
) -> PoolConfig:
    return PoolConfig("pool", workers, threads, timeout, devices)


def run_all(tasks: list[Task], settings: PoolConfig) -> dict[int, TaskResult]:
    """Run tasks, and return a map from the seed to the result."""
    with closing(run_in_pool(tasks, settings)) as outcomes:
        return {outcome.task.point.config.seed: outcome for outcome in outcomes}


def report_of(task: Task) -> tuple[int, dict[str, str | None]]:
    report: tuple[int, dict[str, str | None]] = eval((task.folder / "report").read_text())
    return report


def summary_of(task: Task) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((task.folder / "summary.json").read_text("utf-8"))
    return summary


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics file without the durations of the epochs."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_results_of_pool_equal_results_of_sequential_launcher(
    make_task: MakeTask, tmp_path: Path
) -> None:
    """Three points run on two workers, and the training of one point diverges."""
    lrs = {0: 0.1, 1: 1e20, 2: 0.05}
    tasks = [
        make_task(seed, epochs=3, **{"optimizer.lr": lr, "architecture.hidden": (128, 64)})
        for seed, lr in lrs.items()
    ]
    outcomes = run_all(tasks, config(workers=2))
    (tmp_path / "pool").mkdir()
    for task in tasks:
        task.folder.rename(tmp_path / "pool" / task.folder.name)
    with threadpool_limits(1):
        alone = {x.task.point.config.seed: x for x in run_sequentially(tasks)}
    assert [alone[seed].status for seed in lrs] == ["done", "diverged", "done"]
    for seed, task in enumerate(tasks):
        assert outcomes[seed] == alone[seed]
        other = tmp_path / "pool" / task.folder.name
        for name in ("model_last.npz", "model_best.npz", "config.yaml"):
            assert (other / name).read_bytes() == (task.folder / name).read_bytes()
        assert rows_of(other / "metrics.csv") == rows_of(task.folder / "metrics.csv")


@pytest.mark.usefixtures("scripted")
def test_pool_starts_no_more_workers_than_tasks_and_sets_their_threads(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each worker uses a different device."""
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *arguments, **keys: started.append(1) or popen(*arguments, **keys),
    )
    tasks = [make_task(10), make_task(11)]
    run_all(tasks, config(workers=8, threads=3, devices=(4, "GPU-5")))
    assert len(started) == 2
    found = [report_of(task)[1] for task in tasks]
    assert [list(x.values())[:3] for x in found] == [["3"] * 3] * 2
    assert {x["CUDA_VISIBLE_DEVICES"] for x in found} == {"4", "GPU-5"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("workers", "threads"), [(None, 1), (1, 7), (3, 2), (8, 1)])
def test_pool_divides_cores_among_workers(
    workers: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_file, "usable_cores", lambda: 7)
    pool = pool_file._Pool(config(workers, threads=None))
    assert (pool.count, pool._threads) == (workers or 7, threads)


@pytest.mark.usefixtures("scripted")
def test_task_is_requested_only_when_a_pool_worker_is_idle(make_task: MakeTask) -> None:
    tasks: list[Task] = []

    def asked() -> Iterator[Task]:
        for seed in range(10, 16):
            tasks.append(make_task(seed))
            yield tasks[-1]

    with closing(run_in_pool(asked(), config(workers=2))) as outcomes:
        for number, outcome in enumerate(outcomes, start=1):
            assert outcome.status == "done"
            assert any(outcome.task is task for task in tasks)  # not the worker's copy of the task
            # The two workers get two tasks at first, and another one after each yielded result.
            assert len(tasks) <= number + 1
    assert len(tasks) == 6
    assert len({report_of(task)[0] for task in tasks}) <= 2


@pytest.mark.usefixtures("scripted")
def test_death_of_a_pool_worker_fails_one_point(make_task: MakeTask) -> None:
    """A SIGKILL, a crash, a hang and an ignored SIGTERM each fail one point."""
    tasks = [make_task(seed) for seed in (10, 3, 11, 4, 12, 1, 13, 2, 14)]
    outcomes = run_all(tasks, config(workers=2, timeout=1.5))
    assert {seed: outcome.status for seed, outcome in outcomes.items()} == {
        **dict.fromkeys((10, 11, 12, 13, 14), "done"),
        **dict.fromkeys((3, 4), "failed"),
        **dict.fromkeys((1, 2), "timeout"),
    }
    assert (outcomes[3].error or "").startswith("killed by signal 9")
    assert (outcomes[4].error or "").startswith("killed by signal 6")
    assert outcomes[1].error == "took longer than hydra.launcher.timeout = 1.5 s"
    for task in tasks:
        if (outcome := outcomes[task.point.config.seed]).status != "done":
            summary = summary_of(task)
            assert (summary["status"], summary["error"]) == (outcome.status, outcome.error)
            assert summary["id"] == task.point.id
            assert summary["config"]["seed"] == task.point.config.seed
    crash = next(task for task in tasks if task.point.config.seed == 4)
    log = (crash.folder / "run.log").read_text()
    assert "what went wrong" in log
    assert "Fatal Python error: Aborted" in log
    assert "in run_task" in log  # faulthandler prints the location of the crash


@pytest.mark.usefixtures("scripted")
def test_processes_of_a_point_end_with_its_pool_worker(make_task: MakeTask) -> None:
    task = make_task(5)
    outcomes = run_in_pool([task], config(timeout=1.5))
    assert next(outcomes).status == "timeout"
    child = int((task.folder / "child").read_text())
    wait_until(lambda: not is_alive(child), 5)
    outcomes.close()


def test_point_of_killed_worker_has_status_failed(make_task: MakeTask) -> None:
    """A killed worker and a bug each fail one point. The traceback of the bug is in run.log."""
    killed, bug, after = make_task(0, epochs=10_000_000), make_task(2, epochs="2"), make_task(1)
    before = own_workers()

    def kill() -> None:
        wait_until((killed.folder / "metrics.csv").exists)
        (worker,) = own_workers() - before
        os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = run_all([killed, bug, after], config())
    killer.join()
    assert [outcomes[seed].status for seed in range(3)] == ["failed", "done", "failed"]
    assert (outcomes[2].error or "").startswith("TypeError: ")
    assert "Traceback" in (bug.folder / "run.log").read_text()
    summary, other = summary_of(killed), summary_of(after)
    assert summary["status"] == "failed"
    assert summary["error"].startswith("killed by signal 9")
    assert summary["config"] == {**other["config"], "seed": 0, "epochs": 10_000_000}
    assert set(summary) <= set(other)
    assert "failed: killed by signal 9" in (killed.folder / "run.log").read_text()


# A worker that hangs in step 8 while the file "hang" exists.
HANGING = (
    PROGRAM.partition("import nnopt")[0]
    + """
from pathlib import Path
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.sweeps.launchers.worker import main

train_step = NumpyNetwork.train_step

def hang(self, x, y, lr, step):
    while step == 8 and Path("hang").exists():
        time.sleep(0.01)
    return train_step(self, x, y, lr, step)

NumpyNetwork.train_step = hang
main()
"""
)


@pytest.mark.usefixtures("scripted")
def test_point_killed_in_a_long_step_continues(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step does not end in the grace period, so an earlier checkpoint is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool_file, "PROGRAM", HANGING)
    task = make_task(0, epochs=6, **{"checkpoint.interval": 0.0})
    assert run_all([task], config())[0].status == "done"
    whole = (task.folder / "model_last.npz").read_bytes()
    shutil.rmtree(task.folder)
    Path("hang").touch()
    assert run_all([task], config(timeout=2.0))[0].status == "timeout"
    Path("hang").unlink()
    retried = replace(task, replaces=read_state(task.folder).stamp)
    assert run_all([retried], config())[0].status == "done"
    assert summary_of(task)["interruptions"] == 1
    assert (task.folder / "model_last.npz").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("end", [*REQUESTS, signal.SIGKILL])
def test_pool_workers_end_with_sweep(
    start_nnopt: Start, workplace: Path, end: signal.Signals
) -> None:
    overrides = ["epochs=10000000", "plots=false", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    launcher = ["hydra/launcher=pool", "hydra.launcher.workers=2"]
    sweep = start_nnopt("run", "-m", *launcher, *overrides)
    wait_until(lambda: len(training_points(workplace / "sweep")) == 2)
    workers = descendants(sweep.pid)
    assert len(workers) == 2
    sweep.send_signal(end)
    out, err = sweep.communicate(timeout=60)
    wait_until(lambda: not any(map(is_alive, workers)), 10)
    assert "Traceback" not in err
    if end == signal.SIGKILL:
        return
    assert sweep.returncode == (130 if end == signal.SIGINT else 143)
    assert "; `nnopt resume sweep` runs the remaining points" in err
    summaries = [json.loads(x.read_text()) for x in workplace.glob("sweep/*/summary.json")]
    assert [x["status"] for x in summaries] == ["interrupted"] * 2
    assert len(list(workplace.glob("sweep/*/model_last.npz"))) == 2
    assert len(list(workplace.glob("sweep/*/checkpoint_*.npz"))) == 2
    with (workplace / "sweep" / "results.csv").open() as file:
        states = [row["status"] for row in csv.DictReader(file)]
    assert states == ["interrupted", "interrupted", "pending"]
