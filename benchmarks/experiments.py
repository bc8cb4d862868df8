"""Measure what the headers of conf/experiment/*.yaml and the README's table say.

    NNOPT_DATA_DIR=... python benchmarks/experiments.py [EXPERIMENT ...] [--seeds 5]

Runs each experiment with seeds 0, 1, ... as one sweep; prints mean ± standard deviation (n - 1 in
the denominator) of test accuracy, seconds of training, and the machine. Exits with 1 if a point
failed or if an experiment falls short of its bar.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path

from nnopt.cli import run_verb

EXPERIMENTS = Path(__file__).resolve().parents[1] / "conf" / "experiment"

BARS = {"mnist_mlp": 0.98, "mnist_mlp_torch": 0.98}
"""Mean test accuracy that has to be reached."""


def main() -> int:
    """Print a line for each experiment; 1 if one falls short."""
    parser = argparse.ArgumentParser()
    parser.add_argument("experiments", nargs="*", default=names())
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    failed = False
    for name in options.experiments:
        with tempfile.TemporaryDirectory() as folder:
            sweep = Path(folder) / "sweep"
            words = ["-m", f"experiment={name}", f"seed=range({options.seeds})"]
            code = run_verb(["run", *words, "plots=false", f"hydra.sweep.dir='{sweep}'"])
            if code:
                failed = True
                continue
            failed |= not report(name, sweep)
    return int(failed)


def names() -> list[str]:
    """All experiments."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def report(name: str, sweep: Path) -> bool:
    """Print the line of one experiment; is its bar reached?"""
    with open(sweep / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["test_accuracy"]) for row in rows]
    seconds = [float(row["train_seconds"]) for row in rows]
    machine = json.loads(next(sweep.glob("*/summary.json")).read_text())["machine"]
    reached = statistics.mean(accuracies) >= BARS.get(name, 0)
    print(
        f"{name}: test accuracy {mean_and_std([100 * a for a in accuracies], 2)} %, "
        f"training {mean_and_std(seconds, 1)} s, n = {len(rows)}, "
        f"{machine['usable_cores']} cores of {machine['cpu']}{'' if reached else '  MISSED'}",
        flush=True,
    )
    return reached


def mean_and_std(values: list[float], digits: int) -> str:
    """ "98.31 ± 0.06"."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
