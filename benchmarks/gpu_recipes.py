"""Measure the recipes made for a GPU: test accuracy, training time and use of the GPU.

    NNOPT_DATA_DIR=... python benchmarks/gpu_recipes.py [--only NAME] [--seeds N] [--folder FOLDER]
        [KEY=VALUE ...]

Each recipe is trained with seeds 0, 1, ... as one sweep, by default in bf16 and compiled. The table
has one row for each recipe, with the columns:

accuracy  test accuracy, mean ± standard deviation (n - 1 in the denominator);
first     training time of seed 0, including compilation, which later seeds reuse;
warm      training time if every epoch took the median time of the epochs after the first, mean ±
          standard deviation over all seeds;
MFU       model FLOP utilization (Chowdhery et al. 2022, appendix B): the FLOPs of a forward pass,
          as in `nnopt describe`, times three for each training sample and times one for each
          validation sample, divided by the warm time and by the peak of the device's 16-bit matrix
          units without sparsity.

With --folder, the sweeps are kept, for `python benchmarks/findings.py record experiments FOLDER`.
Exits with 1 if cifar10_fast is below 94 % or a recipe fails. Exits with 2, nnopt's code for a
missing device, if there is no GPU.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from experiments import ON_A_GPU, add_folder, run_sweep, sweep_folder
from timing import machine_line, mean_and_std, read_csv, read_summaries

SEEDS = dict.fromkeys(ON_A_GPU, 3) | {"cifar10_fast": 10}
"""Recipe -> default number of seeds, in the order of the table."""

MIN_ACCURACY = {"cifar10_fast": 0.94}
"""Targets of the mean test accuracy."""

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
"""Part of a device's name -> dense bf16 TFLOP/s with float32 sums, from the data sheet of the
device. The first match counts."""

HEADER = ("recipe", "seeds", "accuracy, %", "first, s", "warm, s", "MFU, %")
LINE = "{:<18} {:>5} {:>14} {:>9} {:>14} {:>7}"


def main() -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--only", choices=SEEDS)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--peak-tflops", type=float, help="peak of an unknown device")
    add_folder(parser)
    options = parser.parse_intermixed_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: PyTorch finds no CUDA device, so nothing was measured")
        return 2
    given = dict(override.split("=", 1) for override in (*SETTINGS, *options.settings))
    device = torch.cuda.get_device_name(given["backend.device"])
    peak = options.peak_tflops or peak_of(device)
    print(f"{device}, peak {f'{peak:g} TFLOP/s' if peak else 'unknown: give --peak-tflops'}")
    settings = [f"{key}={value}" for key, value in given.items()]
    rows, failed = [], False
    for name in [options.only] if options.only else SEEDS:
        with sweep_folder(options.folder, name, settings) as folder:
            seeds = options.seeds or SEEDS[name]
            row, is_met = LINE.format(name, seeds, "failed", "", "", ""), False
            if not run_sweep([f"experiment={name}", *settings], seeds, folder):
                row, is_met = measure(name, folder, peak)
            rows.append(row)
            failed |= not is_met
    print(f"\n{device}, {' '.join(settings)}\n{machine_line()}")
    print("\n".join([LINE.format(*HEADER), *rows]))
    return int(failed)


def peak_of(device: str) -> float | None:
    """Return the peak of a device in TFLOP/s, or None if the device is not in PEAKS."""
    return next((peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device)), None)


def measure(name: str, sweep: Path, peak: float | None) -> tuple[str, bool]:
    """Return the row of a finished recipe, and whether its target is met.

    ``peak`` is the peak of the device in TFLOP/s.
    """
    folders, points = zip(*read_summaries(sweep).items(), strict=True)
    accuracies = [point["test_accuracy"] for point in points]
    warm = [warm_seconds(folder / "metrics.csv") for folder in folders]
    flops = [model_flops(point) for point in points]
    rates = [count / seconds / 1e12 for count, seconds in zip(flops, warm, strict=True)]
    is_met = statistics.mean(accuracies) >= MIN_ACCURACY.get(name, 0)
    row = LINE.format(
        name,
        len(points),
        mean_and_std([100 * accuracy for accuracy in accuracies], 2),
        f"{points[0]['train_seconds']:.1f}",
        mean_and_std(warm, 2),
        f"{100 * statistics.mean(rates) / peak:.1f}" if peak else "?",
    )
    return row if is_met else f"{row}  MISSED: at least {100 * MIN_ACCURACY[name]:g} %", is_met


def model_flops(point: dict[str, Any]) -> int:
    """Return the FLOPs of all training steps and validations of a run.

    ``point`` is the summary of the run. All steps have whole batches, because every recipe has
    drop_last=true.
    """
    trained = point["steps"] * point["config"]["batch_size"]
    validated = point["epochs"] * point["data"]["samples"]["validation"]
    flops: int = point["flops_per_sample"] * (3 * trained + validated)
    return flops


def warm_seconds(metrics: Path) -> float:
    """Return the number of epochs times the median time of the epochs after the first."""
    seconds = [float(row["seconds"]) for row in read_csv(metrics)]
    return len(seconds) * statistics.median(seconds[1:] or seconds)


if __name__ == "__main__":
    sys.exit(main())
