"""Measure time and memory of ``nnopt compare`` on 1,000 finished runs.

    python benchmarks/compare.py

The script makes a sweep of 200 learning rates and 5 seeds from copies of a real run, and compares
the learning rates with a baseline. The whole process must take at most 3 s (median of five, after a
warm-up) and need at most 400 MB. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from timing import Table, machine_line, run_nnopt

from nnopt.results.summary import write_summary

ROUNDS = 5
SETTINGS, SEEDS = 200, 5
MAX_SECONDS, MAX_MEGABYTES = 3.0, 400


def main() -> int:
    """Print time and memory; return 1 if a target is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sweep(folder)
        command = ["compare", folder / "sweep", "--baseline", "optimizer.lr=0.001"]
        processes = [run_nnopt(*command) for _ in range(ROUNDS + 1)]
    seconds = statistics.median(process.seconds for process in processes[1:])
    megabytes = max(process.peak_bytes for process in processes) / 1e6
    print(machine_line())
    table = Table(f"{SETTINGS * SEEDS} runs", "measured", label_width=12)
    table.row("time", f"{seconds:.2f} s", value=seconds, at_most=MAX_SECONDS)
    table.row("peak memory", f"{megabytes:.0f} MB", value=megabytes, at_most=MAX_MEGABYTES)
    return int(table.missed)


def make_sweep(folder: Path) -> None:
    """Train one run, and copy it for each learning rate and seed, with a random accuracy."""
    first = folder / "first"
    run_nnopt("run", "epochs=1", f"hydra.run.dir={first}", cwd=folder)
    summary = json.loads((first / "summary.json").read_text("utf-8"))
    draw = random.Random(0)
    for setting in range(SETTINGS):
        summary["config"]["optimizer"]["lr"] = 0.001 * (setting + 1)
        for seed in range(SEEDS):
            summary["seed"] = summary["config"]["seed"] = seed
            summary["test_accuracy"] = draw.gauss(0.9, 0.01)
            run = folder / "sweep" / f"run-{setting}-{seed}"
            shutil.copytree(first, run)
            write_summary(run, summary)


if __name__ == "__main__":
    sys.exit(main())
