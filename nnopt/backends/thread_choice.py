"""The number of threads of a training: one rule for both backends.

The largest layer is the one with the most floating-point operations (FLOPs) in the forward pass of
a micro-batch. A training uses one thread for each FLOPS_PER_THREAD of these operations, but no more
threads than cores, and no more than the matrix library's default. Threads that share a layer wait
for each other: a small layer on a busy machine is 2 to 40 times slower with two threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nnopt.architecture.network import Architecture
from nnopt.results.cores import usable_cores
from nnopt.schema import Config

FLOPS_PER_THREAD = 2**26
"""Work of a core in about a millisecond, in FLOPs. ``docs/backends.md`` has the measurements."""

Reason = Literal["backend.threads", "work", "cores", "library"]


@dataclass(frozen=True)
class ThreadChoice:
    """The number of threads, and the key or limit that determined this number."""

    count: int
    reason: Reason

    def as_record(self) -> dict[str, Any]:
        """Return the choice as entries of ``summary.json``."""
        return {"used": self.count, "chosen_by": self.reason}


def choose_threads(
    requested: int | None, flops: int, cores: int, library_threads: int
) -> ThreadChoice:
    """Choose the number of threads for a largest layer of ``flops`` FLOPs per micro-batch.

    ``requested`` is the value of ``backend.threads``, which has priority. ``library_threads`` is
    the default number of threads of the matrix library.
    """
    if requested is not None:
        return ThreadChoice(requested, "backend.threads")
    count = max(-(-flops // FLOPS_PER_THREAD), 1)
    if count <= min(cores, library_threads):
        return ThreadChoice(count, "work")
    if cores <= library_threads:
        return ThreadChoice(cores, "cores")
    return ThreadChoice(library_threads, "library")


def threads_for(architecture: Architecture, config: Config, library_threads: int) -> ThreadChoice:
    """Return the result of ``choose_threads`` for a network."""
    flops = flops_on_processor(architecture, config)
    return choose_threads(config.backend.threads, flops, usable_cores() or 1, library_threads)


def flops_on_processor(architecture: Architecture, config: Config) -> int:
    """Return the largest layer's FLOPs for one micro-batch, or 0 on an accelerator."""
    if config.backend.device != "cpu":
        return 0
    samples = -(-config.batch_size // config.accumulation_steps)
    return samples * max(layer.flops for layer in architecture.walk() if not layer.inner)
