"""The number of threads of a training: one rule for both backends.

A training uses one thread for each FLOPS_PER_THREAD floating-point operations that its largest
layer performs in the forward pass of a batch, but at most one thread for each core. Threads that
share a layer wait for each other: a small layer gains little from a second thread on a quiet
machine, and becomes 2 to 40 times slower on a busy one, where each thread has to wait for a core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nnopt.architecture.network import Architecture
from nnopt.results.cores import usable_cores
from nnopt.schema import Config

FLOPS_PER_THREAD = 2**26
"""About a millisecond of a core's time. ``docs/backends.md`` has the measurements."""

Reason = Literal["backend.threads", "work", "cores", "library"]


@dataclass(frozen=True)
class ThreadChoice:
    """The number of threads, and what decided it: the key ``backend.threads``, the work of a step,
    the cores that may be used, or a limit of the matrix library, such as ``OMP_NUM_THREADS``."""

    count: int
    reason: Reason

    def as_record(self) -> dict[str, Any]:
        """Return the entries of ``summary.json``."""
        return {"used": self.count, "chosen_by": self.reason}


def choose_threads(
    requested: int | None, flops: int, cores: int, library_threads: int
) -> ThreadChoice:
    """Return the number of threads for a largest layer of ``flops``.

    requested: ``backend.threads``, which is used as it is. library_threads: the threads that the
    matrix library would use by itself.
    """
    if requested is not None:
        return ThreadChoice(requested, "backend.threads")
    wanted = max(-(-flops // FLOPS_PER_THREAD), 1)
    if wanted <= min(cores, library_threads):
        return ThreadChoice(wanted, "work")
    if cores <= library_threads:
        return ThreadChoice(cores, "cores")
    return ThreadChoice(library_threads, "library")


def threads_for(architecture: Architecture, config: Config, library_threads: int) -> ThreadChoice:
    """Return the threads of a training of this network.

    library_threads: the threads that the backend's matrix library would use by itself.
    """
    flops = flops_on_processor(architecture, config)
    return choose_threads(config.backend.threads, flops, usable_cores() or 1, library_threads)


def flops_on_processor(architecture: Architecture, config: Config) -> int:
    """Return the operations of the largest layer for one batch, or for the largest part of a batch
    with ``accumulation``. A network on an accelerator leaves none to the processor."""
    if config.backend.device != "cpu":
        return 0
    samples = -(-config.batch_size // config.accumulation)
    return samples * max(layer.flops for layer in architecture.walk() if not layer.inner)
