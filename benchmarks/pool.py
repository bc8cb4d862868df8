"""Measure how much faster a sweep is with two worker processes than in one process.

    python benchmarks/pool.py [--rounds 3]

A sweep of eight runs, which draw no plots, is timed in one process with one thread, and with
``hydra/launcher=pool`` and two workers with one thread each. Whole commands are timed and take
turns. Exits with 1 if the ratio of the medians is below 1.8.

The benchmark needs two free cores. The row "two by hand" shows the limit of the machine: two
commands run at the same time, each with half of the sweep. Cores that share caches, power or a
hypervisor run slower together than alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial

from timing import NNOPT, Table, alternate, machine_line

from nnopt.sweeps.launchers.remote import thread_limits

MIN_RATIO = 1.8

SWEEP = [
    *(
        "dataset.samples_per_class=4000",
        "architecture.hidden=[128, 64]",
        "batch_size=64",
        "epochs=120",
    ),
    *("plots=false", "optimizer.lr=0.01,0.02,0.05,0.1"),
]
POINTS = 8

POOL = ["hydra/launcher=pool", "hydra.launcher.workers=2", "hydra.launcher.threads=1"]
COMMANDS = {
    "one process": [["seed=0,1"]],
    "two workers": [["seed=0,1", *POOL]],
    "two by hand": [["seed=0"], ["seed=1"]],
}
"""Variant -> its commands, which run at the same time: the overrides that follow SWEEP."""


def main() -> int:
    """Print times and ratios; return 1 if the target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    variants = {name: partial(seconds, commands) for name, commands in COMMANDS.items()}
    medians = {name: statistics.median(x) for name, x in alternate(variants, rounds).items()}
    print(machine_line())
    table = Table("variant", "time", "points/s", "ratio", label_width=12)
    for name, taken in medians.items():
        ratio = medians["one process"] / taken
        target = {"at_least": MIN_RATIO} if name == "two workers" else {}
        cells = f"{taken:.1f} s", f"{POINTS / taken:.2f}", f"{ratio:.2f}"
        table.row(name, *cells, value=ratio, **target)
    return int(table.missed)


def seconds(commands: list[list[str]]) -> float:
    """Run commands at the same time, and return the seconds until the last one has ended."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"cwd": folder, "env": {**os.environ, **thread_limits(1)}}
        started = time.perf_counter()
        processes = [
            subprocess.Popen(
                [NNOPT, "run", "-m", *SWEEP, *overrides], stdout=subprocess.DEVNULL, **options
            )
            for overrides in commands
        ]
        codes = [process.wait() for process in processes]
        taken = time.perf_counter() - started
    assert not any(codes), codes
    return taken


if __name__ == "__main__":
    sys.exit(main())
