"""Measure what the headers of conf/experiment/*.yaml and the README's table say.

    NNOPT_DATA_DIR=... python benchmarks/experiments.py [EXPERIMENT ...] [KEY=VALUE ...] [--seeds 5]

Runs each experiment, of all but those made for a GPU if none is named, with seeds 0, 1, ... as one
sweep, with the settings given, such as backend=torch; prints mean ± standard deviation (n - 1 in
the denominator) of test accuracy, seconds of training, and the machine. Exits with 1 if a point
failed, if an experiment falls short of its bar, or if one that has to end within a time did not.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path

from nnopt.cli.main import run_verb

EXPERIMENTS = Path(__file__).resolve().parents[1] / "conf" / "experiment"

BARS = {
    "mnist_mlp": 0.98,
    "mnist_mlp_torch": 0.98,
    "mnist_conv": 0.992,
    "fashion_mnist_conv": 0.915,
    "cifar10_three_layer_conv": 0.6,
    "cifar10_vgg": 0.75,
}
"""Mean test accuracy that has to be reached."""

SECONDS = {"cifar10_three_layer_conv": 900.0, "cifar10_vgg": 900.0}
"""Mean time of training allowed on two cores."""

ON_A_GPU = ("cifar10_fast", "cifar10_resnet18", "cinic10_vgg")
"""Measured by gpu_recipes.py, and here only if they are named."""


def main() -> int:
    """Print a line for each experiment; 1 if one falls short."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT or KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_intermixed_args()
    settings = [word for word in options.words if "=" in word]
    experiments = [word for word in options.words if "=" not in word]
    failed = False
    for name in experiments or names():
        with tempfile.TemporaryDirectory() as folder:
            sweep = Path(folder) / "sweep"
            words = ["-m", f"experiment={name}", f"seed=range({options.seeds})", *settings]
            code = run_verb(["run", *words, "plots=false", f"hydra.sweep.dir='{sweep}'"])
            if code:
                failed = True
                continue
            failed |= not report(name, settings, sweep)
    return int(failed)


def names() -> list[str]:
    """All experiments but those made for a GPU."""
    return sorted({path.stem for path in EXPERIMENTS.glob("*.yaml")} - set(ON_A_GPU))


def report(name: str, settings: list[str], sweep: Path) -> bool:
    """Print the line of one experiment; are its bars reached?"""
    with open(sweep / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["test_accuracy"]) for row in rows]
    seconds = [float(row["train_seconds"]) for row in rows]
    machine = json.loads(next(sweep.glob("*/summary.json")).read_text())["machine"]
    reached = statistics.mean(accuracies) >= BARS.get(name, 0)
    reached &= statistics.mean(seconds) <= SECONDS.get(name, math.inf)
    print(
        f"{' '.join([name, *settings])}: test accuracy "
        f"{mean_and_std([100 * a for a in accuracies], 2)} %, "
        f"training {mean_and_std(seconds, 1)} s, n = {len(rows)}, "
        f"{machine['usable_cores']} cores of {machine['cpu']}{'' if reached else '  MISSED'}",
        flush=True,
    )
    return reached


def mean_and_std(values: list[float], digits: int) -> str:
    """ "98.31 ± 0.06"; of a single value, which has no deviation, "98.31"."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
