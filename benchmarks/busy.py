"""Training time on a busy machine: the default threads over ``backend.threads=1``.

    NNOPT_DATA_DIR=... python benchmarks/busy.py [--rounds 3] [--load 3] [--backends numpy torch]

Each command runs at the same time as three processes that only compute, all on the first two cores
that this process may use. The command is ``nnopt run experiment=mnist_mlp epochs=1``
(784-256-128-10, batches of 128). The variants take turns. For each backend, the ratio of the median
training times must be at most 1.6. Exits with 1 above it.

The training times are those of ``summary.json``, without the start of Python and PyTorch. A last
column has the whole command. The other processes end with this one, however it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt.sweeps.launchers.remote import THREAD_VARIABLES

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
BAR = 1.6
CORES = 2
COMMAND = ["run", "experiment=mnist_mlp", "epochs=1", "plots=false"]
VARIANTS: dict[str, list[str]] = {"default": [], "one thread": ["backend.threads=1"]}

COMPUTE = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    sum(range(100_000))
"""
"""The program of a process that only computes. It ends when its parent process has ended."""

Times = tuple[float, float]
"""Seconds of the training, and of the whole command."""


def main() -> int:
    """Print medians and ratios; 1 if a bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    options = parser.parse_args()
    use_two_cores()
    for backend in options.backends:
        measure(backend, [])  # fills the cache of data and of imported files
    seconds: dict[tuple[str, str], list[Times]] = {
        (backend, name): [] for backend in options.backends for name in VARIANTS
    }
    with busy_processes(options.load):
        for _ in range(options.rounds):
            for backend, name in seconds:
                taken = measure(backend, VARIANTS[name])
                seconds[backend, name].append(taken)
                print(f"{backend}, {name}: {taken[0]:.1f} s, {taken[1]:.1f} s", flush=True)
    print(f"\n{options.load} busy processes on {CORES} cores, medians of {options.rounds} runs")
    print(f"{'backend':>8} {'default':>9} {'one thread':>11} {'ratio':>6}  bar         command")
    failed = False
    for backend in options.backends:
        medians = [
            [statistics.median(times) for times in zip(*seconds[backend, name], strict=True)]
            for name in VARIANTS
        ]
        ratio, of_command = (default / one for default, one in zip(*medians, strict=True))
        failed |= (missed := ratio > BAR)
        print(
            f"{backend:>8} {medians[0][0]:>7.1f} s {medians[1][0]:>9.1f} s {ratio:>6.2f}  "
            f"{BAR} {'MISSED' if missed else 'ok':<6} {of_command:>8.2f}"
        )
    return int(failed)


def use_two_cores() -> None:
    """Keep this process, and those that it starts, on the first two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that only compute, until the end of the block."""
    words = [sys.executable, "-c", COMPUTE, str(os.getpid())]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen(words))
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def measure(backend: str, words: list[str]) -> Times:
    """Return the seconds of one training and of its command."""
    variables = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        command = [NNOPT, *COMMAND, f"backend={backend}", *words, "hydra.run.dir=run"]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, check=True)
        taken = time.perf_counter() - started
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return summary["train_seconds"], taken


if __name__ == "__main__":
    sys.exit(main())
