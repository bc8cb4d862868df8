"""Time and memory of ``nnopt compare`` on 1,000 finished runs.

    python benchmarks/compare.py

Makes the folders of a sweep of 200 settings and 5 seeds, with the summaries and the other files of
a real run, and compares them with a baseline: under 3 s and 400 MB, the process from its start to
its end. The median of five, after one that is not counted. Exits with 1 past a bar.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

RUNS = 5
SETTINGS, SEEDS = 200, 5
SECONDS, MEGABYTES = 3.0, 400
NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"


def main() -> int:
    """Print the figures; 1 if a bar is passed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_sweep(folder)
        command = [NNOPT, "compare", folder / "sweep", "--baseline", "optimizer.lr=0.001"]
        times, peaks = zip(*(measure(command) for _ in range(RUNS + 1)), strict=True)
    seconds, megabytes = statistics.median(times[1:]), max(peaks)
    print(f"{SETTINGS * SEEDS} runs: {seconds:.2f} s (bar {SECONDS}), {megabytes:.0f} MB (bar 400)")
    return int(seconds > SECONDS or megabytes > MEGABYTES)


def make_sweep(folder: Path) -> None:
    """One real run, copied under other learning rates and seeds, with random results."""
    first = folder / "first"
    words = ["run", "epochs=1", f"hydra.run.dir={first}"]
    subprocess.run([NNOPT, *words], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    summary = json.loads((first / "summary.json").read_text("utf-8"))
    draw = random.Random(0)
    for setting in range(SETTINGS):
        summary["config"]["optimizer"]["lr"] = 0.001 * (setting + 1)
        for seed in range(SEEDS):
            summary["seed"] = summary["config"]["seed"] = seed
            summary["test_accuracy"] = draw.gauss(0.9, 0.01)
            run = folder / "sweep" / f"run-{setting}-{seed}"
            shutil.copytree(first, run)
            (run / "summary.json").write_text(json.dumps(summary, indent=2))


def measure(command: list[str | Path]) -> tuple[float, float]:
    """Seconds and MB (10**6 bytes) of resident memory at most of a process and its end."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
