"""Measure the recipes made for a GPU: test accuracy, seconds, and how much of the GPU they use.

    NNOPT_DATA_DIR=... python benchmarks/gpu_recipes.py [--only NAME] [--seeds N] [KEY=VALUE ...]

Trains each recipe with seeds 0, 1, ... as one sweep, in bf16 and compiled unless KEY=VALUE says
otherwise, and prints a row for each:

accuracy  of the test set, mean ± standard deviation (n - 1 in the denominator);
first     seconds of training with seed 0, compilation included, which later seeds find done;
warm      of all seeds, if every epoch took the median time of those after the first;
MFU       model FLOP utilization (Chowdhery et al. 2022, appendix B): the FLOPs of a forward pass,
          which `nnopt describe` prints, three times for each sample trained on and once for each
          validated, over the warm seconds and the peak of the device's 16-bit matrix units without
          sparsity.

Exits with 0 if all is well, 1 if cifar10_fast falls short of 94 % or a recipe fails, and 2, nnopt's
code for a device that is absent, where there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments import ON_A_GPU, mean_and_std

from nnopt.cli.main import run_verb

SEEDS = dict.fromkeys(ON_A_GPU, 3) | {"cifar10_fast": 10}
"""The recipes, in order, and how often each is trained unless --seeds says otherwise."""

BARS = {"cifar10_fast": 0.94}
"""Mean test accuracy that has to be reached."""

SETTINGS = ("backend.device=cuda", "backend.precision=bf16", "backend.compile=max-autotune")

PEAKS = {
    "B200": 2250.0,
    "H200 NVL": 835.0,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Words of a device's name -> dense bf16 TFLOP/s with float32 sums, as its data sheet has it; the
first that fits counts."""

HEADER = ("recipe", "seeds", "accuracy, %", "first, s", "warm, s", "MFU, %")
LINE = "{:<18} {:>5} {:>14} {:>9} {:>14} {:>7}"


def main() -> int:
    """Print the table; the exit code is told above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--only", choices=SEEDS)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--peak-tflops", type=float, help="of the device, where it is not known")
    options = parser.parse_intermixed_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: PyTorch finds no CUDA device, so nothing was measured")
        return 2
    given = dict(word.split("=", 1) for word in (*SETTINGS, *options.settings))
    device = torch.cuda.get_device_name(given["backend.device"])
    peak = options.peak_tflops or peak_of(device)
    print(f"{device}, peak {f'{peak:g} TFLOP/s' if peak else 'unknown: give --peak-tflops'}")
    settings = [f"{key}={value}" for key, value in given.items()]
    rows, well = [], True
    for name in [options.only] if options.only else SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            sweep = Path(folder) / "sweep"
            seeds = options.seeds or SEEDS[name]
            words = ["-m", f"experiment={name}", f"seed=range({seeds})", *settings]
            if run_verb(["run", *words, "plots=false", f"hydra.sweep.dir='{sweep}'"]):
                well = False
                rows.append(LINE.format(name, seeds, "failed", "", "", ""))
                continue
            row, reached = measure(name, sweep, peak)
            rows.append(row)
            well &= reached
    print(f"\n{device}, {' '.join(settings)}")
    print("\n".join([LINE.format(*HEADER), *rows]))
    return 0 if well else 1


def peak_of(device: str) -> float | None:
    """TFLOP/s, None of a device that the table does not have."""
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device)), None)


def measure(name: str, sweep: Path, peak: float | None) -> tuple[str, bool]:
    """The row of a recipe whose sweep has ended, and whether its bar is reached.

    peak: of the device, in TFLOP/s.
    """
    paths = sweep.glob("*/summary.json")
    found = [(json.loads(path.read_text("utf-8")), path.parent) for path in paths]
    points, folders = zip(*sorted(found, key=lambda pair: pair[0]["seed"]), strict=True)
    accuracies = [point["test_accuracy"] for point in points]
    warm = [warm_seconds(folder / "metrics.csv") for folder in folders]
    flops = [model_flops(point) for point in points]
    rates = [count / seconds / 1e12 for count, seconds in zip(flops, warm, strict=True)]
    reached = statistics.mean(accuracies) >= BARS.get(name, 0)
    row = LINE.format(
        name,
        len(points),
        mean_and_std([100 * accuracy for accuracy in accuracies], 2),
        f"{points[0]['train_seconds']:.1f}",
        mean_and_std(warm, 2),
        f"{100 * statistics.mean(rates) / peak:.1f}" if peak else "?",
    )
    return row if reached else f"{row}  MISSED: at least {100 * BARS[name]:g} %", reached


def model_flops(point: dict[str, Any]) -> int:
    """Of a training with its looks at the validation data. Every recipe has drop_last=true: all
    batches are of the same size."""
    trained = point["steps"] * point["config"]["batch_size"]
    validated = point["epochs"] * point["data"]["samples"]["validation"]
    flops: int = point["flops_per_sample"] * (3 * trained + validated)
    return flops


def warm_seconds(metrics: Path) -> float:
    """Of a training, if every epoch took the median time of those after the first."""
    with open(metrics, newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return len(seconds) * statistics.median(seconds[1:] or seconds)


if __name__ == "__main__":
    sys.exit(main())
