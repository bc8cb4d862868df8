"""The launcher ``submitit``, which runs each point as a job of SLURM or as a local process.

The nodes share the file system of the sweep's folder and have the same installation of nnopt.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
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
from nnopt.sweeps.launchers.remote import (
    GRACE_SECONDS,
    record_lost_task,
    require_package,
    run_task_within,
    thread_limits,
)
from nnopt.sweeps.task import Task, TaskResult
from nnopt.terminal.interruption import Interruption

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.core.utils import DelayedSubmission

POLL_SECONDS = {"local": 0.1, "slurm": 2.0}
"""Pause between two checks for ended jobs. submitit itself queries SLURM at growing intervals."""

SIGNAL_SECONDS = 30
"""Time between submitit's signal and the limit of a job. SLURM may send the signal 60 s earlier."""

MARGIN_SECONDS = 60.0 + 60.0 + SIGNAL_SECONDS
"""Time between the limits of a point and of its job, for the start of Python and the signal."""

PREEMPTION_SECONDS = 300.0
"""Maximum time from SIGTERM to the signal after which submitit requeues a job of SLURM."""


def require_submitit(config: SubmititConfig) -> None:
    """Raise ConfigError if submitit or SLURM is missing, or a local job has a SLURM option."""
    require_package("submitit", "slurm", "submitit")
    problems = []
    if config.cluster == "local":
        problems = [
            f"hydra.launcher.{key} = {value!r} is for SLURM and has no effect with "
            "hydra.launcher.cluster=local; leave it out"
            for key in ("memory", "partition", "options")
            if (value := getattr(config, key))
        ]
    elif shutil.which("srun") is None:
        problems = [
            "hydra.launcher.cluster = 'slurm': there is no srun on this machine; start the sweep "
            "where SLURM's commands are, or set hydra.launcher.cluster=local"
        ]
    if problems:
        raise ConfigError(problems)


def run_as_jobs(tasks: Iterable[Task], config: SubmititConfig) -> Generator[TaskResult, None, None]:
    """Run each task as a job, at most ``config.workers`` at once. Implements ``Launcher``."""
    waiting, running = iter(tasks), dict["Job[TaskResult]", Task]()
    executor: AutoExecutor | None = None
    limits = thread_limits(config.threads)
    try:
        while True:
            while len(running) < config.workers and (task := next(waiting, None)) is not None:
                if executor is None:
                    executor = _executor(config, _job_folder(config, task), limits)
                with _environment(limits):  # inherited by local jobs
                    running[executor.submit(_Work(), task, config.timeout, os.getcwd())] = task
            if not running:
                return
            ended = [job for job in running if job.done()]
            for job in ended:
                yield _result(job, running.pop(job), config)
            if not ended:
                time.sleep(POLL_SECONDS[config.cluster])
    finally:
        _cancel(list(running), config)
        for task in running.values():
            record_lost_task(task, "interrupted", "the sweep was stopped")


def _job_folder(config: SubmititConfig, task: Task) -> Path:
    """Make a new folder for job files. In an old one, submitit might unpickle a downloaded file."""
    path = (task.folder.parent / SUBMITIT).absolute()
    if config.folder is not None:
        path = Path(absolute_folder(config.folder, "hydra.launcher.folder"))
    if not str(path).isprintable():
        raise ConfigError(
            f"{str(path)!r}: the scripts of jobs would contain this path, which has a line break "
            "or another control character; choose another folder with hydra.launcher.folder=DIR"
        )
    if path.is_symlink():
        raise OutputError(f"{shown(path)} is a link, which nnopt never creates; remove it")
    return fresh_folder(path, time.strftime("%Y-%m-%d_%H-%M-%S"))


def _executor(config: SubmititConfig, folder: Path, limits: Mapping[str, str]) -> AutoExecutor:
    """Return the submitit executor with the configured resources."""
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
        slurm_signal_delay_s=SIGNAL_SECONDS,
        slurm_partition=config.partition,
        slurm_additional_parameters=config.options,
        slurm_setup=[f"export {name}={value}" for name, value in limits.items()],
    )
    return executor


class _Work:
    """The function of a job. With a method ``checkpoint``, submitit requeues a preempted job."""

    def __call__(self, task: Task, seconds: float, directory: str) -> TaskResult:
        """Run a task in a job. After SIGTERM, the point writes its results and a checkpoint.

        submitit's signal of preemption has the same effect. submitit then requeues the job, which
        continues from the checkpoint. SLURM may send SIGTERM before the signal of preemption.
        """
        from submitit import JobEnvironment

        environment = JobEnvironment()
        preemption = getattr(signal, f"SIG{environment.USR_SIG}")
        requeue = signal.getsignal(preemption)
        is_preempted = False

        def interrupt(number: int, frame: object) -> None:
            nonlocal is_preempted
            is_preempted = True
            signal.raise_signal(signal.SIGTERM)

        if preemption != signal.SIGTERM:
            signal.signal(preemption, interrupt)
        try:
            return run_task_within(task, seconds, directory)
        except Interruption as stop:
            signal.signal(preemption, requeue)
            if is_preempted or stop.number == preemption:
                signal.raise_signal(preemption)
            elif environment.cluster == "slurm":
                time.sleep(PREEMPTION_SECONDS)
            raise
        finally:
            signal.signal(preemption, requeue)

    def checkpoint(self, *arguments: Any) -> DelayedSubmission:
        """Return the call that continues the task in the requeued job."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def _result(job: Job[TaskResult], task: Task, config: SubmititConfig) -> TaskResult:
    """Return the result of a job, even if the job or its node was killed."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    where = f"job {job.job_id}, whose output is in {job.paths.stderr}"
    if config.cluster == "local" and not job.paths.result_pickle.exists():
        return record_lost_task(task, "failed", f"the process ended without a result: {where}")
    try:
        result = job.result()
    except (FailedJobError, UncompletedJobError):
        if "TIMEOUT" in job.state:
            return record_lost_task(task, "timeout", str(TimeLimitError(config.timeout)))
        return record_lost_task(task, "failed", f"ended in the state {job.state}: {where}")
    return TaskResult(task, result.status, result.error)


def _cancel(jobs: list[Job[TaskResult]], config: SubmititConfig) -> None:
    """Cancel the jobs. Points of local jobs have GRACE_SECONDS to write their results."""
    if config.cluster == "local":  # submitit would kill the jobs after a second
        for job in jobs:
            if not job.done():
                os.kill(int(job.job_id), signal.SIGTERM)  # the job's process forwards the signal
        _wait(jobs)
    for job in jobs:
        job.cancel(check=False)
    if config.cluster == "local":
        _wait(jobs)


def _wait(jobs: list[Job[TaskResult]]) -> None:
    """Wait until the jobs have ended, at most for GRACE_SECONDS."""
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and not all(job.done() for job in jobs):
        time.sleep(POLL_SECONDS["local"])


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started within the context."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)
