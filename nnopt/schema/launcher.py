"""``conf/hydra/launcher/``: who works on the points of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class SequentialConfig:
    """One point after another, in the process of the sweep itself."""

    name: Literal["sequential"]


@dataclass(frozen=True)
class PoolConfig:
    """Processes on this machine. ``timeout`` is in seconds; ``devices`` are dealt out in turn."""

    name: Literal["pool"]
    workers: Annotated[int | None, Range(minimum=1, maximum=1024)]
    threads: Annotated[int | None, Range(minimum=1, maximum=1024)]
    timeout: Annotated[float | None, Range(above=0)]
    devices: tuple[int | str, ...] | None


@dataclass(frozen=True)
class RayConfig:
    """Tasks on a Ray cluster; a null ``address`` starts one of this machine, for the sweep."""

    name: Literal["ray"]
    address: str | None
    workers: Annotated[int | None, Range(minimum=1, maximum=100_000)]
    threads: Annotated[int, Range(minimum=1, maximum=1024)]
    gpus: Annotated[float, Range(minimum=0, maximum=1024)]
    timeout: Annotated[float | None, Range(above=0)]


@dataclass(frozen=True)
class SubmititConfig:
    """Jobs of SLURM, or of submitit's stand-in for it on this machine. ``memory`` is in GB,
    ``options`` a map from the names of sbatch's options to their values."""

    name: Literal["submitit"]
    cluster: Literal["slurm", "local"]
    workers: Annotated[int, Range(minimum=1, maximum=100_000)]
    threads: Annotated[int, Range(minimum=1, maximum=1024)]
    gpus: Annotated[int, Range(minimum=0, maximum=1024)]
    memory: Annotated[float | None, Range(above=0)]
    partition: str | None
    options: Any
    timeout: Annotated[float, Range(above=0)]
    folder: str | None


LauncherConfig = SequentialConfig | PoolConfig | RayConfig | SubmititConfig

LAUNCHERS: Mapping[str, type] = {
    "sequential": SequentialConfig,
    "pool": PoolConfig,
    "ray": RayConfig,
    "submitit": SubmititConfig,
}
"""Value of ``name`` -> the dataclass of its keys."""
