"""Measure the results that conf/experiment/*.yaml and the README's table state.

    NNOPT_DATA_DIR=... python benchmarks/experiments.py [EXPERIMENT ...] [KEY=VALUE ...] [--seeds 5]
        [--folder FOLDER]

Each experiment is trained with seeds 0, 1, ... as one sweep, with the given overrides, such as
backend=torch. Without names, the script runs all experiments except those made for a GPU. It prints
mean ± standard deviation (n - 1 in the denominator) of test accuracy and training time. With
--folder, the sweeps are kept, and `python benchmarks/findings.py record experiments FOLDER` records
their runs.
Exits with 1 if a run failed or if an experiment misses its target of accuracy or time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from timing import machine_line, mean_and_std, read_csv

from nnopt.cli.main import run_verb

EXPERIMENTS = Path(__file__).resolve().parents[1] / "conf" / "experiment"

MIN_ACCURACY = {
    "mnist_mlp": 0.98,
    "mnist_mlp_torch": 0.98,
    "mnist_conv": 0.992,
    "fashion_mnist_conv": 0.915,
    "cifar10_three_layer_conv": 0.6,
    "cifar10_vgg": 0.75,
}
"""Targets of the mean test accuracy."""

MAX_SECONDS = {"cifar10_three_layer_conv": 900.0, "cifar10_vgg": 900.0}
"""Targets of the mean training time on two cores."""

ON_A_GPU = ("cifar10_fast", "cifar10_resnet18", "cinic10_vgg")
"""Experiments that gpu_recipes.py measures; this script runs them only if they are named."""


def main() -> int:
    """Print a line for each experiment; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folder(parser)
    names, overrides, options = read_arguments("EXPERIMENT", parser)
    print(machine_line())
    failed = False
    for name in names or experiment_names():
        with sweep_folder(options.folder, name, overrides) as folder:
            code = run_sweep([f"experiment={name}", *overrides], options.seeds, folder)
            failed |= bool(code) or not report(name, overrides, folder)
    return int(failed)


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--folder``."""
    help_ = "keep the sweeps here, for findings.py record experiments FOLDER"
    parser.add_argument("--folder", type=Path, help=help_)


@contextmanager
def sweep_folder(parent: Path | None, name: str, overrides: Sequence[str]) -> Iterator[Path]:
    """Yield the folder of a sweep below ``parent``, or a temporary folder without a parent."""
    if parent is not None:
        yield parent / "+".join([name, *overrides]).replace("/", "-")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def read_arguments(
    name: str, parser: argparse.ArgumentParser
) -> tuple[list[str], list[str], argparse.Namespace]:
    """Return the names, the overrides and all options given on the command line.

    ``name`` is the placeholder for a name in the usage message. The option ``seeds`` is added.
    """
    parser.add_argument("arguments", nargs="*", metavar=f"{name} or KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_intermixed_args()
    overrides = [argument for argument in options.arguments if "=" in argument]
    names = [argument for argument in options.arguments if "=" not in argument]
    return names, overrides, options


def run_sweep(overrides: Sequence[str], seeds: int, folder: Path) -> int:
    """Train with seeds 0, 1, ... as one sweep in the folder; return the exit code."""
    fixed = [f"seed=range({seeds})", "plots=false", f"hydra.sweep.dir='{folder}'"]
    return run_verb(["run", "-m", *overrides, *fixed])


def accuracies(sweep: Path) -> list[float]:
    """Return the test accuracies of a sweep in percent; 0 for a run without a result."""
    with suppress(FileNotFoundError):
        return [100 * float(row["test_accuracy"] or 0) for row in read_csv(sweep / "results.csv")]
    return []


def experiment_names() -> list[str]:
    """Return the names of all experiments except those made for a GPU."""
    return sorted({path.stem for path in EXPERIMENTS.glob("*.yaml")} - set(ON_A_GPU))


def report(name: str, overrides: list[str], sweep: Path) -> bool:
    """Print the line of one experiment; return whether its targets are met."""
    accuracy = accuracies(sweep)
    seconds = [float(row["train_seconds"]) for row in read_csv(sweep / "results.csv")]
    is_met = statistics.mean(accuracy) >= 100 * MIN_ACCURACY.get(name, 0)
    is_met &= statistics.mean(seconds) <= MAX_SECONDS.get(name, math.inf)
    print(
        f"{' '.join([name, *overrides])}: test accuracy {mean_and_std(accuracy, 2)} %, training "
        f"{mean_and_std(seconds, 1)} s, n = {len(accuracy)}{'' if is_met else '  MISSED'}",
        flush=True,
    )
    return is_met


if __name__ == "__main__":
    sys.exit(main())
