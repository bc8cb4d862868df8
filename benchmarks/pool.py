"""A sweep's rate with two worker processes over its rate in one process.

    python benchmarks/pool.py [--rounds 3]

The same sweep of eight points, which need nothing but the processor, as two commands: points one
after another in one process of one thread, and ``hydra/launcher=pool`` with two workers of one
thread each. Whole commands are timed, start included; the two take turns, so that a drift of the
machine's speed meets both. What counts is the ratio of the medians: at least 1.8. Exits with 1
below it. Needs two cores that nobody else uses.
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

from nnopt.sweep.elsewhere import thread_limits

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
BAR = 1.8

SWEEP = [
    *("dataset.points=4000", "architecture.hidden=[128, 64]", "batch_size=64", "epochs=120"),
    *("plots=false", "optimizer.lr=0.01,0.02,0.05,0.1", "seed=0,1"),
]
POINTS = 8

LAUNCHERS = {
    "one process": [],
    "two workers": ["hydra/launcher=pool", "hydra.launcher.workers=2", "hydra.launcher.threads=1"],
}


def main() -> int:
    """Print the seconds and rates; 1 if the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    for _ in range(rounds):
        for name, words in LAUNCHERS.items():
            seconds[name].append(measure(words))
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in medians.items():
        print(f"{name:>12}  {taken:6.1f} s  {POINTS / taken:5.2f} points a second")
    ratio = medians["one process"] / medians["two workers"]
    verdict = "ok" if ratio >= BAR else "MISSED"
    print(f"two workers of one thread: {ratio:.2f} times the rate; bar {BAR} {verdict}")
    return int(ratio < BAR)


def measure(words: list[str]) -> float:
    """Seconds of one sweep, as a command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [NNOPT, "run", "-m", *SWEEP, *words]
        environment = {**os.environ, **thread_limits(1)}
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
