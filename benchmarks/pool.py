"""A sweep's rate with two worker processes over its rate in one process.

    python benchmarks/pool.py [--rounds 3]

The same sweep of eight points, which need nothing but the processor: one after another in one
process of one thread, and with ``hydra/launcher=pool`` and two workers of one thread each. Whole
commands are timed, start included; they take turns, so that a drift of the machine's speed meets
all. What counts is the ratio of the medians: at least 1.8. Exits with 1 below it.

Needs two cores that nobody else uses. What the machine has to give is told by a third way: the two
halves of the sweep, started by hand as two commands at once, of one thread each. Cores that share
caches, power or a hypervisor with others run slower together than alone, and so does this.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from nnopt.sweeps.launchers.remote import thread_limits

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
BAR = 1.8

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
WAYS = {
    "one process": [["seed=0,1"]],
    "two workers": [["seed=0,1", *POOL]],
    "two by hand": [["seed=0"], ["seed=1"]],
}
"""What is shown -> the last words of each command, all started at once."""


def main() -> int:
    """Print the seconds and rates; 1 if the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, commands in WAYS.items():
            seconds[name].append(measure(commands))
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in medians.items():
        print(f"{name:>12}  {taken:6.1f} s  {POINTS / taken:5.2f} points a second")
    ratio, possible = (
        medians["one process"] / medians[name] for name in ("two workers", "two by hand")
    )
    verdict = "ok" if ratio >= BAR else "MISSED"
    print(f"two workers of one thread: {ratio:.2f} times the rate; bar {BAR} {verdict}")
    print(f"two commands by hand: {possible:.2f} times the rate")
    return int(ratio < BAR)


def measure(commands: list[list[str]]) -> float:
    """Seconds until the last of some sweeps, each a command, has ended."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **thread_limits(1)}
        started = time.perf_counter()
        processes = [
            subprocess.Popen(
                [NNOPT, "run", "-m", *SWEEP, *words],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            for words in commands
        ]
        codes = [process.wait() for process in processes]
        taken = time.perf_counter() - started
    assert not any(codes), codes
    return taken


if __name__ == "__main__":
    sys.exit(main())
