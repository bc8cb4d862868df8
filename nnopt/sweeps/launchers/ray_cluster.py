"""The launcher ``ray``, which runs each point as a task on a Ray cluster.

The nodes share the file system of the sweep's folder and have the same installation of nnopt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from nnopt.errors import ConfigError, TimeLimitError
from nnopt.results.cores import usable_cores
from nnopt.schema import RayConfig
from nnopt.sweeps.launchers.remote import (
    GRACE_SECONDS,
    record_lost_task,
    require_package,
    run_task_within,
    thread_limits,
)
from nnopt.sweeps.task import Task, TaskResult
from nnopt.terminal.interruption import stop_on_signals

if TYPE_CHECKING:
    from ray import ObjectRef

POLL_SECONDS = 0.1


def connect(config: RayConfig) -> None:
    """Connect to a cluster, or start one on this machine. Raises ConfigError."""
    require_package("ray", "ray", "ray")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if config.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # disables Ray's usage reports
        ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=config.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.address = {config.address!r}: no Ray cluster answers there; start "
                "one with `ray start --head`, or set hydra.launcher.address=null to use only this "
                "machine; a cluster that requires a token needs RAY_AUTH_MODE=token"
            ) from error
    stop_on_signals()  # again, because Ray has replaced the signal handlers
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    if not any(_points_on(node["Resources"], config) for node in nodes if node["Alive"]):
        ray.shutdown()
        raise ConfigError(
            f"hydra.launcher.threads = {config.threads}, hydra.launcher.gpus = {config.gpus:g}: no "
            "node of the Ray cluster has this many cores and GPUs; set lower values"
        )


def run_on_ray(tasks: Iterable[Task], config: RayConfig) -> Generator[TaskResult, None, None]:
    """Run tasks on the cluster to which ``connect`` has connected. Implements ``Launcher``."""
    import ray

    remote = ray.remote(run_task_within).options(
        num_cpus=config.threads,
        num_gpus=config.gpus,
        max_retries=0,
        runtime_env={"env_vars": thread_limits(config.threads)},
    )
    waiting = iter(tasks)
    running: dict[ObjectRef[TaskResult], tuple[Task, float]] = {}
    try:
        while True:
            while len(running) < _room(config) and (task := next(waiting, None)) is not None:
                reference = remote.remote(task, config.timeout, os.getcwd())
                running[reference] = task, time.monotonic()
            if not running:
                return
            # A longer timeout would turn the SystemExit of a signal handler into an error of Ray.
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            if not ended:
                time.sleep(POLL_SECONDS)
            for reference in ended:
                yield _result(reference, *running.pop(reference), config)
    finally:
        _cancel(list(running))
        for task, _ in running.values():
            record_lost_task(task, "interrupted", "the sweep was stopped")
        ray.shutdown()


def _room(config: RayConfig) -> int:
    """Return how many points may run at once: ``config.workers``, or as many as the cluster can."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return config.workers or max(_points_on(resources, config), 1)


def _points_on(resources: dict[str, float], config: RayConfig) -> int:
    """Return how many points can run at once with the resources of a node or cluster."""
    fitting = resources.get("CPU", 0) // config.threads
    if config.gpus:
        fitting = min(fitting, resources.get("GPU", 0) // config.gpus)
    return int(fitting)


def _result(
    reference: ObjectRef[TaskResult], task: Task, started: float, config: RayConfig
) -> TaskResult:
    """Return the result of a task, even if its process or its node was killed."""
    import ray
    from ray.exceptions import RayError

    try:
        result: TaskResult = ray.get(reference)
    except RayError as error:
        if config.timeout is not None and time.monotonic() - started > config.timeout:
            return record_lost_task(task, "timeout", str(TimeLimitError(config.timeout)))
        line = next(filter(None, map(str.strip, str(error).splitlines())), "")
        return record_lost_task(task, "failed", f"{type(error).__name__}: {line}")
    return TaskResult(task, result.status, result.error)


def _cancel(references: list[ObjectRef[TaskResult]]) -> None:
    """Interrupt the points, so that they write their results; kill points that do not end."""
    import ray

    for reference in references:
        ray.cancel(reference)
    if references:
        _, left = ray.wait(references, num_returns=len(references), timeout=GRACE_SECONDS)
        for reference in left:
            ray.cancel(reference, force=True)
