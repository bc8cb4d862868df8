"""Check that two installations of nnopt give the same bits.

    NNOPT_DATA_DIR=... python benchmarks/same_results.py OLD_NNOPT NEW_NNOPT

Each argument is an executable ``nnopt``. Twelve configurations are trained with both executables,
in both backends. The script compares all weights, ``metrics.csv`` without the times, and
``layers.csv``, and it exits with 1 if a result differs. Use it to compare nnopt before and after a
change of the code that must not change any result. The data are a subset of MNIST.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from nnopt.schema import FIRST_KEYS

IMAGES = ["dataset=mnist", "dataset.subset=512", "epochs=2", "batch_size=64", "plots=false"]
CONV = [*IMAGES, "dataset.subset=256"]
EVERY = "sgd", "nesterov", "rmsprop", "adagrad", "adadelta", "adam", "adamw", "nadam"

CONFIGURATIONS: dict[str, list[str]] = {
    "dense": IMAGES,
    "dense, batch norm, dropout": [*IMAGES, "regularizer.norm=batch", "regularizer.dropout=0.3"],
    "dense, layer norm, EMA": [*IMAGES, "regularizer.norm=layer", "regularizer.ema_decay=0.9"],
    "dense, SWA, L1, L2": [
        *IMAGES,
        "regularizer.swa_start=0.5",
        "regularizer.l1=1e-5",
        "regularizer.l2=1e-4",
    ],
    "dense, accumulation": [*IMAGES, "accumulation_steps=4", "layer_statistics=true"],
    "dense, hinge, GELU": [*IMAGES, "loss=hinge", "architecture.activation=gelu"],
    "spiral, adam, cosine": ["optimizer=adam", "schedule=cosine", "epochs=5", "plots=false"],
    "convolution": [*CONV, "architecture=three_layer_conv"],
    "vgg, group norm": [*CONV, "architecture=vgg", "regularizer.norm=group", "epochs=1"],
    "vgg, batch norm, dropout": [
        *CONV,
        "architecture=vgg",
        "regularizer.norm=batch",
        "regularizer.dropout=0.2",
        "epochs=1",
    ],
    "resnet": [*CONV, "architecture=resnet", "epochs=1"],
    "every optimizer": [*IMAGES, "epochs=1", f"optimizer={','.join(EVERY)}"],
}
TORCH_ONLY = "lion", "muon", "schedule_free_sgd", "schedule_free_adamw"

TIMES = {"seconds"}
"""Columns of ``metrics.csv`` that differ from run to run."""

ADDED_COLUMNS = {"sparsity": "0.0"}
"""Column of ``metrics.csv`` that old files lack -> value without pruning."""

NEW_COLUMNS = {"dead_share": "dead_fraction"}
"""Old name -> new name of a column of ``layers.csv``."""


def main() -> int:
    """Print a line for each configuration and backend; return 1 if a result differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    failed = False
    for title, overrides in CONFIGURATIONS.items():
        for backend in ("numpy", "torch"):
            with tempfile.TemporaryDirectory() as folder:
                places = [Path(folder) / name for name in ("old", "new")]
                for place, executable in zip(places, (options.old, options.new), strict=True):
                    train(executable, place, overrides, backend)
                differences = compare(*places)
            failed |= bool(differences)
            print(f"{title:<28} {backend:<6} {', '.join(differences) or 'equal'}", flush=True)
    return int(failed)


def train(executable: Path, folder: Path, overrides: list[str], backend: str) -> None:
    """Train a configuration with one executable; write the results to a new folder."""
    overrides = [
        f"{override},{','.join(TORCH_ONLY)}" if "," in override and backend == "torch" else override
        for override in overrides
    ]
    is_sweep = any("," in override for override in overrides)
    target = [f"hydra.sweep.dir={folder}"] if is_sweep else [f"hydra.run.dir={folder}"]
    if wants_first_keys(executable):
        overrides = [with_first_key(override) for override in overrides]
    command = [str(executable.absolute()), "run", *(["-m"] if is_sweep else []), *overrides]
    command += [f"backend={backend}", "backend.threads=1", "plots=false", *target]
    # Not in the working directory, whose folder conf may be that of another version.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder.parent)


@cache
def wants_first_keys(executable: Path) -> bool:
    """Return whether an executable is so old that it knows only the original names of keys."""
    command = [str(executable.absolute()), "run", "--cfg", "job"]
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    config = run.stdout
    return "accumulation_steps:" not in config


def with_first_key(override: str) -> str:
    """Return an override with the original name of its key."""
    key, equals, value = override.partition("=")
    return FIRST_KEYS.get(key, key) + equals + value


def compare(old: Path, new: Path) -> list[str]:
    """Return the names of the files that differ."""
    names = {path.relative_to(root) for root in (old, new) for path in root.rglob("*.npz")}
    names |= {path.relative_to(root) for root in (old, new) for path in root.rglob("metrics.csv")}
    names |= {path.relative_to(root) for root in (old, new) for path in root.rglob("layers.csv")}
    if not names:
        sys.exit(f"no results below {old} and {new}")
    return [str(name) for name in sorted(names) if content(old / name) != content(new / name)]


def content(path: Path) -> object:
    """Return the comparable content of a file, without ``TIMES``; None for a missing file."""
    if not path.exists():
        return None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}
    with path.open(newline="") as file:
        added = ADDED_COLUMNS if path.name == "metrics.csv" else {}
        rows = (added | row for row in csv.DictReader(file))
        return [{NEW_COLUMNS.get(k, k): v for k, v in x.items() if k not in TIMES} for x in rows]


if __name__ == "__main__":
    sys.exit(main())
