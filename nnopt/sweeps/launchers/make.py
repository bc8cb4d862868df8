"""Creation of the launcher that the group ``hydra/launcher`` selects."""

from __future__ import annotations

import os
from functools import partial

from nnopt.errors import ConfigError
from nnopt.schema import LauncherConfig, PoolConfig, RayConfig, SubmititConfig
from nnopt.sweeps.task import Launcher, run_sequentially


def make_launcher(config: LauncherConfig) -> Launcher:
    """Return the launcher. Raises ConfigError if a package, cluster or program is missing."""
    if isinstance(config, PoolConfig):
        if not hasattr(os, "killpg"):
            raise ConfigError(
                "hydra/launcher=pool needs process groups, which Windows lacks; choose another"
            )
        from nnopt.sweeps.launchers.pool import run_in_pool

        return partial(run_in_pool, config=config)
    if isinstance(config, RayConfig):
        from nnopt.sweeps.launchers.ray_cluster import connect, run_on_ray

        connect(config)
        return partial(run_on_ray, config=config)
    if isinstance(config, SubmititConfig):
        from nnopt.sweeps.launchers.slurm import require_submitit, run_as_jobs

        require_submitit(config)
        return partial(run_as_jobs, config=config)
    return run_sequentially
