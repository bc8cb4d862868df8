"""The launcher ``ray``: each point a task on a Ray cluster.

The cluster's nodes share the file system of the sweep's folder, and have this nnopt installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from nnopt.errors import ConfigError, TimeLimitError
from nnopt.results.cores import usable_cores
from nnopt.schema import RayConfig
from nnopt.sweeps.launchers.remote import GRACE_SECONDS, lost, require, thread_limits, work_within
from nnopt.sweeps.task import Outcome, Task

if TYPE_CHECKING:
    from ray import ObjectRef


POLL_SECONDS = 0.1


def connect(config: RayConfig) -> None:
    """Connect this process to the cluster, or start one of this machine.

    Raises ConfigError if Ray or the cluster is not there, or if no node is large enough for a
    point.
    """
    require("ray", "ray", "ray")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if config.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would go to Ray's makers
        ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=config.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"hydra.launcher.address = {config.address!r}: no Ray cluster answers there; start "
                "one with `ray start --head`, or set hydra.launcher.address=null for one of this "
                "machine alone; to one with a token, RAY_AUTH_MODE=token lets in"
            ) from error
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    if not any(_points_on(node["Resources"], config) for node in nodes if node["Alive"]):
        ray.shutdown()
        raise ConfigError(
            f"hydra.launcher.threads = {config.threads}, hydra.launcher.gpus = {config.gpus:g}: no "
            "node of the Ray cluster has so many cores and GPUs; lower them"
        )


def on_ray(tasks: Iterable[Task], config: RayConfig) -> Generator[Outcome, None, None]:
    """The launcher: as many points at once as the cluster has room for, once connected."""
    import ray

    remote = ray.remote(work_within).options(
        num_cpus=config.threads,
        num_gpus=config.gpus,
        max_retries=0,
        runtime_env={"env_vars": thread_limits(config.threads)},
    )
    waiting = iter(tasks)
    running: dict[ObjectRef[Outcome], tuple[Task, float]] = {}
    try:
        while True:
            while len(running) < _room(config) and (task := next(waiting, None)) is not None:
                reference = remote.remote(task, config.timeout, os.getcwd())
                running[reference] = task, time.monotonic()
            if not running:
                return
            # Waiting inside Ray would turn the SystemExit of a signal's handler into Ray's own.
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            if not ended:
                time.sleep(POLL_SECONDS)
            for reference in ended:
                yield _outcome(reference, *running.pop(reference), config)
    finally:
        _cancel(list(running))
        for task, _ in running.values():
            lost(task, "interrupted", "the sweep was stopped")
        ray.shutdown()


def _room(config: RayConfig) -> int:
    """How many points may run at once, of which a cluster that grows may have more every time."""
    import ray

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return config.workers or max(_points_on(resources, config), 1)


def _points_on(resources: dict[str, float], config: RayConfig) -> int:
    """How many points fit on a node, or a cluster, with these resources."""
    fitting = resources.get("CPU", 0) // config.threads
    if config.gpus:
        fitting = min(fitting, resources.get("GPU", 0) // config.gpus)
    return int(fitting)


def _outcome(
    reference: ObjectRef[Outcome], task: Task, started: float, config: RayConfig
) -> Outcome:
    """How the task ended, whatever may have happened to its process or its node."""
    import ray
    from ray.exceptions import RayError

    try:
        outcome: Outcome = ray.get(reference)
    except RayError as error:
        if config.timeout is not None and time.monotonic() - started > config.timeout:
            return lost(task, "timeout", str(TimeLimitError(config.timeout)))
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lost(task, "failed", f"{type(error).__name__}: {said[0] if said else ''}")
    return Outcome(task, outcome.status, outcome.error)


def _cancel(references: list[ObjectRef[Outcome]]) -> None:
    """Let points write what they have, as after Ctrl-C, then end their processes."""
    import ray

    if not references:
        return
    for reference in references:
        ray.cancel(reference)
    _, left = ray.wait(references, num_returns=len(references), timeout=GRACE_SECONDS)
    for reference in left:
        ray.cancel(reference, force=True)
