"""Measure the test accuracy of the defaults, on every dataset and with every optimizer.

    NNOPT_DATA_DIR=... python benchmarks/defaults.py [PART ...] [KEY=VALUE ...] [--seeds 5]

The parts are ``datasets``, ``backends`` (the datasets with PyTorch), ``networks`` and
``optimizers``. If none is named, all parts run. Each command runs with seeds 0, 1, ... and has one
row of the table: the mean, the standard deviation and the minimum of the test accuracy in percent,
and the smallest accepted minimum. Commands with n = 1 run only with seed 0, and have lower targets.
Exits with 1 if a minimum misses its target or a run failed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from experiments import accuracies, read_arguments, run_sweep
from timing import Table

from nnopt.backends.numpy.update_rules import OPTIMIZERS as NUMPY_OPTIMIZERS


@dataclass(frozen=True)
class Row:
    """Overrides, and the test accuracy in percent that every seed must reach."""

    overrides: tuple[str, ...]
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

BACKENDS = [Row((*row.overrides, "backend=torch"), row.bound, row.one_seed) for row in DATASETS]

SMALL = ("dataset.subset=6000", "epochs=2")

NETWORKS = [
    Row((f"dataset={name}", f"architecture={architecture}", *SMALL, "backend=torch"), bound, True)
    for name, bound in (("mnist", 60.0), ("cifar10", 18.0))
    for architecture in ("three_layer_conv", "vgg", "resnet")
] + [
    Row(("dataset=mnist", "epochs=1", *overrides), 90.0, True)
    for overrides in (
        ("architecture.hidden=[256,128]",),
        ("batch_size=128",),
        ("architecture.hidden=[256,128]", "batch_size=128"),
        ("regularizer=batch_norm",),
        ("regularizer=dropout",),
    )
]

EVERYWHERE = tuple(NUMPY_OPTIMIZERS)
TORCH_ONLY = ("lion", "muon", "schedule_free_sgd", "schedule_free_adamw")

OPTIMIZERS = [
    Row((f"dataset={name}", f"optimizer={optimizer}", *overrides, *backend), bound, True)
    for name, overrides, bound in (
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
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts, overrides, options = read_arguments("PART", parser)
    if unknown := sorted(set(parts) - set(PARTS)):
        sys.exit(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    table = Table("command", "mean", "std", "min", "n", label_width=60)
    for row in (row for part in parts or PARTS for row in PARTS[part]):
        arguments = [*row.overrides, *overrides]
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.redirect_stdout(io.StringIO()):
                code = run_sweep(arguments, 1 if row.one_seed else options.seeds, Path(folder))
            found = accuracies(Path(folder)) or [0.0]
        lowest = math.nan if code else min(found)
        deviation = f"{statistics.stdev(found):.2f}" if len(found) > 1 else "–"
        cells = f"{statistics.mean(found):.2f}", deviation, f"{min(found):.2f}", str(len(found))
        table.row(" ".join(arguments), *cells, value=lowest, at_least=row.bound)
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())
