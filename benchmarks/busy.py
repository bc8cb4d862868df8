"""Compare training with the default number of threads and with one thread on a busy machine.

    NNOPT_DATA_DIR=... python benchmarks/busy.py [--rounds 3] [--load 3] [--backends numpy torch]

Each command runs at the same time as three processes that compute without pause, all on the first
two cores that this process may use. The command is ``nnopt run experiment=mnist_mlp epochs=1``
(784-256-128-10, batches of 128). Commands with default threads and with one thread take turns. For
each backend, the median training time with default threads must be at most 1.6 times the median
with one thread. Exits with 1 otherwise.

Training times are read from ``summary.json`` and exclude the start of Python and PyTorch. The
column "command" contains the ratio of the times of whole commands.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from timing import Table, alternate, machine_line, run_nnopt

from nnopt.sweeps.launchers.remote import THREAD_VARIABLES

LARGEST_RATIO = 1.6
CORES = 2
VARIANTS: dict[str, list[str]] = {"default": [], "one thread": ["backend.threads=1"]}

COMPUTE = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    sum(range(100_000))
"""
"""The program of a process that only computes. It ends when its parent process has ended."""


def main() -> int:
    """Print medians and ratios; return 1 if a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    options = parser.parse_args()
    use_two_cores()
    print(f"{machine_line()}\n{options.load} busy processes on {CORES} cores")
    for backend in options.backends:
        measure(backend, [])  # fills nnopt's cache and the system's cache of files
    table = Table("backend", "default", "one thread", "ratio", "command", label_width=8)
    with busy_processes(options.load):
        for backend in options.backends:
            variants = {name: partial(measure, backend, VARIANTS[name]) for name in VARIANTS}
            measured = alternate(variants, options.rounds)
            (default, default_command), (one, one_command) = (
                map(statistics.median, zip(*pairs, strict=True)) for pairs in measured.values()
            )
            table.row(
                backend,
                f"{default:.1f} s",
                f"{one:.1f} s",
                f"{default / one:.2f}",
                f"{default_command / one_command:.2f}",
                value=default / one,
                at_most=LARGEST_RATIO,
            )
    return int(table.missed)


def use_two_cores() -> None:
    """Restrict this process and its children to the first two cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that only compute, until the end of the ``with`` block."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-c", COMPUTE, str(os.getpid())]))
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def measure(backend: str, overrides: list[str]) -> tuple[float, float]:
    """Return the seconds of one training and of the whole command."""
    variables = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["run", "experiment=mnist_mlp", "epochs=1", "plots=false", f"backend={backend}"]
        command = run_nnopt(*arguments, *overrides, "hydra.run.dir=run", cwd=folder, env=variables)
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
    return summary["train_seconds"], command.seconds


if __name__ == "__main__":
    sys.exit(main())
