"""Which launcher goes with ``hydra/launcher=...``."""

from __future__ import annotations

import os
from functools import partial

from nnopt.errors import ConfigError
from nnopt.schema import LauncherConfig, PoolConfig, RayConfig, SubmititConfig
from nnopt.sweeps.task import Launcher, one_after_another


def make_launcher(config: LauncherConfig) -> Launcher:
    """Who works on the points. No point starts yet.

    Raises ConfigError if a package, a cluster or a program is missing that it needs.
    """
    if isinstance(config, PoolConfig):
        if not hasattr(os, "killpg"):
            raise ConfigError("hydra/launcher=pool needs process groups, which Windows lacks")
        from nnopt.sweeps.launchers.pool import in_processes

        return partial(in_processes, config=config)
    if isinstance(config, RayConfig):
        from nnopt.sweeps.launchers.ray_cluster import connect, on_ray

        connect(config)
        return partial(on_ray, config=config)
    if isinstance(config, SubmititConfig):
        from nnopt.sweeps.launchers.slurm import as_jobs, require_submitit

        require_submitit(config)
        return partial(as_jobs, config=config)
    return one_after_another
