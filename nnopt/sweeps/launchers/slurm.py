"""The launcher ``submitit``: each point a job of SLURM, or of submitit's stand-in for it.

The nodes share the file system of the sweep's folder, and find this nnopt under the same Python.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnopt.errors import ConfigError, OutputError, TimeLimitError
from nnopt.io.atomic_files import fresh_folder, shown
from nnopt.io.own_files import SUBMITIT
from nnopt.io.paths import absolute_folder
from nnopt.schema import SubmititConfig
from nnopt.sweeps.launchers.remote import GRACE_SECONDS, lost, require, thread_limits, work_within
from nnopt.sweeps.task import Outcome, Task
from nnopt.terminal.interruption import stop_on_signals

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job

POLL_SECONDS = {"local": 0.1, "slurm": 2.0}
"""Between two looks at the jobs: at processes, or for a file of each job's. SLURM itself is asked
by submitit, less and less often."""

MARGIN_SECONDS = 60.0
"""More that SLURM gives a job than the point may take, for Python and its packages to load."""


def require_submitit(config: SubmititConfig) -> None:
    """Raises ConfigError if submitit is not installed, if SLURM is not there, or if something is
    asked for that only SLURM has."""
    require("submitit", "slurm", "submitit")
    problems = []
    if config.cluster == "local":
        problems += [
            f"hydra.launcher.{key} = {value!r} is for SLURM and has no effect with "
            "hydra.launcher.cluster=local; leave it out"
            for key in ("memory", "partition", "options")
            if (value := getattr(config, key))
        ]
    elif shutil.which("srun") is None:
        problems.append(
            "hydra.launcher.cluster = 'slurm': there is no srun on this machine; start the sweep "
            "where SLURM's commands are, or set hydra.launcher.cluster=local"
        )
    if problems:
        raise ConfigError(problems)


def as_jobs(tasks: Iterable[Task], config: SubmititConfig) -> Generator[Outcome, None, None]:
    """The launcher: so many jobs at once, each submitted when another has ended."""
    waiting, running = iter(tasks), list[tuple["Job[Outcome]", Task]]()
    executor: AutoExecutor | None = None
    limits = thread_limits(config.threads)
    try:
        while True:
            while len(running) < config.workers and (task := next(waiting, None)) is not None:
                if executor is None:
                    executor = _executor(config, _job_folder(config, task), limits)
                with _environment(limits):  # which local jobs inherit
                    job = executor.submit(_work, task, config.timeout, os.getcwd())
                running.append((job, task))
            if not running:
                return
            ended = [pair for pair in running if pair[0].done()]
            for pair in ended:
                running.remove(pair)
                yield _outcome(*pair, config)
            if not ended:
                time.sleep(POLL_SECONDS[config.cluster])
    finally:
        _cancel([job for job, _ in running], config)
        for _, task in running:
            lost(task, "interrupted", "the sweep was stopped")


def _job_folder(config: SubmititConfig, task: Task) -> Path:
    """Make a new folder for the scripts, logs and results of this process's jobs.

    submitit unpickles the results, so no file may be there before its jobs. Raises ConfigError for
    a path that would break a line of a script, OutputError if the folder cannot be made.
    """
    if config.folder is None:
        path = Path(os.path.abspath(task.folder.parent / SUBMITIT))
    else:
        path = Path(absolute_folder(config.folder, "hydra.launcher.folder"))
    if not str(path).isprintable():
        raise ConfigError(
            f"{str(path)!r}: the scripts of jobs would hold this path, which has a line break or "
            "another control character; choose another folder with hydra.launcher.folder=DIR"
        )
    if path.is_symlink():
        raise OutputError(f"{shown(path)} is a link, which nnopt never makes; remove it")
    return fresh_folder(path, time.strftime("%Y-%m-%d_%H-%M-%S"))


def _executor(config: SubmititConfig, folder: Path, limits: Mapping[str, str]) -> AutoExecutor:
    """What submits jobs with the configured resources."""
    import submitit

    executor = submitit.AutoExecutor(
        folder, cluster=config.cluster, slurm_max_num_timeout=0, local_max_num_timeout=0
    )
    executor.update_parameters(
        name="nnopt",
        nodes=1,
        tasks_per_node=1,
        cpus_per_task=config.threads,
        gpus_per_node=config.gpus,
        mem_gb=config.memory,
        timeout_min=math.ceil((config.timeout + MARGIN_SECONDS) / 60),
        slurm_partition=config.partition,
        slurm_additional_parameters=config.options,
        slurm_setup=[f"export {name}={value}" for name, value in limits.items()],
    )
    return executor


def _work(task: Task, seconds: float, directory: str) -> Outcome:
    """What a job does. ``scancel`` sends SIGTERM before it kills: the point writes what it has."""
    stop_on_signals()
    return work_within(task, seconds, directory)


def _outcome(job: Job[Outcome], task: Task, config: SubmititConfig) -> Outcome:
    """How the job ended, whatever may have happened to it or its node."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    where = f"job {job.job_id}, whose output is in {job.paths.stderr}"
    if config.cluster == "local" and not job.paths.result_pickle.exists():
        return lost(task, "failed", f"the process ended without a result: {where}")
    try:
        outcome = job.result()
    except (FailedJobError, UncompletedJobError):
        if "TIMEOUT" in job.state:
            return lost(task, "timeout", str(TimeLimitError(config.timeout)))
        return lost(task, "failed", f"ended in the state {job.state}: {where}")
    return Outcome(task, outcome.status, outcome.error)


def _cancel(jobs: list[Job[Outcome]], config: SubmititConfig) -> None:
    """End the jobs; local ones have ended when this returns, unless they refuse to."""
    for job in jobs:
        job.cancel(check=False)
    deadline = time.monotonic() + GRACE_SECONDS
    while config.cluster == "local" and time.monotonic() < deadline:
        if all(job.done() for job in jobs):
            break
        time.sleep(POLL_SECONDS["local"])


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes that start within."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
