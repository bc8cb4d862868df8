"""Measure what the defaults give: every dataset with nothing set but the epochs, every optimizer.

    NNOPT_DATA_DIR=... python benchmarks/defaults.py [PART ...] [KEY=VALUE ...] [--seeds 5]

The parts are ``datasets``, ``backends`` (the datasets with PyTorch), ``networks`` and
``optimizers``; all of them if none is named. Each row is one command line with seeds 0, 1, ...
It prints mean, standard deviation and minimum of the test accuracy in percent, and the bound of
the minimum. Exits with 1 if a minimum is not above its bound, or if a point failed. Rows with
n = 1 train seed 0 alone, to see that nothing stays at chance.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nnopt.cli.main import run_verb


@dataclass(frozen=True)
class Row:
    """Words of a command line, and the test accuracy in percent that every seed has to exceed."""

    words: tuple[str, ...]
    bound: float
    one_seed: bool = False


IMAGES = (("mnist", 96.0), ("fashion_mnist", 84.0), ("cifar10", 42.0))

DATASETS = [
    Row(("dataset=spiral",), 95.0),
    Row(("dataset=moons",), 97.0),
    Row(("dataset=circles",), 95.0),
    *(Row((f"dataset={name}", "epochs=3"), bound) for name, bound in IMAGES),
    Row(("dataset=cinic10", "epochs=20"), 15.0, one_seed=True),
]

BACKENDS = [Row((*row.words, "backend=torch"), row.bound, row.one_seed) for row in DATASETS]

SMALL = ("dataset.subset=6000", "epochs=2")

NETWORKS = [
    Row((f"dataset={name}", f"architecture={architecture}", *SMALL, "backend=torch"), bound, True)
    for name, bound in (("mnist", 60.0), ("cifar10", 18.0))
    for architecture in ("three_layer_conv", "vgg", "resnet")
] + [
    Row(("dataset=mnist", "epochs=1", *words), 90.0, True)
    for words in (
        ("architecture.hidden=[256,128]",),
        ("batch_size=128",),
        ("architecture.hidden=[256,128]", "batch_size=128"),
        ("regularizer=batch_norm",),
        ("regularizer=dropout",),
    )
]

EVERYWHERE = ("sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw")
TORCH_ONLY = ("lion", "muon", "schedule_free_sgd", "schedule_free_adamw")

OPTIMIZERS = [
    Row((f"dataset={name}", f"optimizer={optimizer}", *words, *backend), bound, True)
    for name, words, bound in (
        ("spiral", (), 70.0),
        ("mnist", ("epochs=1",), 85.0),
        ("fashion_mnist", ("epochs=1",), 75.0),
        ("cifar10", ("epochs=1",), 30.0),
    )
    for optimizer, backend in (
        *((optimizer, ()) for optimizer in EVERYWHERE),
        *((optimizer, ("backend=torch",)) for optimizer in TORCH_ONLY),
    )
]

PARTS = {
    "datasets": DATASETS,
    "backends": BACKENDS,
    "networks": NETWORKS,
    "optimizers": OPTIMIZERS,
}


def main() -> int:
    """Print the table; 1 if a bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", metavar="PART or KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_intermixed_args()
    settings = [word for word in options.words if "=" in word]
    parts = [word for word in options.words if "=" not in word]
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    failed = False
    print(f"{'mean':>6} {'std':>5} {'min':>6} {'bound':>5} {'n':>2}  command", flush=True)
    for row in (row for part in parts or PARTS for row in PARTS[part]):
        failed |= not measure(row, settings, options.seeds)
    return int(failed)


def measure(row: Row, settings: list[str], seeds: int) -> bool:
    """Train a row and print its line; is every seed above the bound?"""
    words = [*row.words, *settings]
    count = 1 if row.one_seed else seeds
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "sweep"
        fixed = [f"seed=range({count})", "plots=false", f"hydra.sweep.dir='{sweep}'"]
        with contextlib.redirect_stdout(io.StringIO()):
            code = run_verb(["run", "-m", *words, *fixed])
        if not (sweep / "results.csv").exists():
            print(f"FAILED, exit code {code}: {' '.join(words)}", flush=True)
            return False
        with open(sweep / "results.csv", newline="") as file:
            found = [100 * float(r["test_accuracy"] or 0) for r in csv.DictReader(file)]
    reached = code == 0 and min(found) > row.bound
    deviation = f"{statistics.stdev(found):5.2f}" if len(found) > 1 else f"{'–':>5}"
    print(
        f"{statistics.mean(found):6.2f} {deviation} {min(found):6.2f} {row.bound:5.1f} "
        f"{len(found):>2}  {' '.join(words)}{'' if reached else '  MISSED'}",
        flush=True,
    )
    return reached


if __name__ == "__main__":
    sys.exit(main())
