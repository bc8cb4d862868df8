"""Measure the time that checkpoints take, and the time from a signal to a complete checkpoint.

    NNOPT_DATA_DIR=... python benchmarks/checkpoint_cost.py

Each run trains for 75 s with the default ``checkpoint.interval``. The time of its checkpoints must
be at most 1 % of its training time. Then the run is continued, and SIGTERM ends it in the middle of
an epoch. Its checkpoint must be complete within 2 s or the time of two steps, if longer. Exits
with 1 if a target is missed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import NNOPT, Table, machine_line, run_nnopt

from nnopt.io.own_files import CHECKPOINTS
from nnopt.recipe.checkpoints import latest_checkpoint

MAX_PERCENT, MAX_SECONDS = 1.0, 2.0
MAX_TIME = 75
RESUMED_SECONDS = 15
QUIET = ["plots=false", "progress=none"]

CONVOLUTIONS = ["dataset=cifar10", "regularizer.norm=batch", "optimizer=adam"]
RUNS = {
    "numpy 784-256-128-10": ["dataset=mnist", "architecture.hidden=[256,128]"],
    "numpy vgg": ["architecture=vgg", *CONVOLUTIONS],
    "torch vgg": ["architecture=vgg", *CONVOLUTIONS],
    "torch resnet": ["architecture=resnet", *CONVOLUTIONS],
}


def main() -> int:
    """Print both times for each run; return 1 if a target is missed."""
    print(machine_line())
    table = Table("run", "size", "step", "result", label_width=34)
    for name, overrides in RUNS.items():
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "run")
            settings = [f"backend={name.split()[0]}", *overrides, "epochs=1000"]
            settings += [f"max_time={MAX_TIME}", f"hydra.run.dir={folder}", *QUIET]
            run_nnopt("run", *settings, exit_code=5)
            summary = json.loads((folder / "summary.json").read_text("utf-8"))
            size = f"{(folder / CHECKPOINTS[0]).stat().st_size / 1e6:.1f} MB"
            checkpoint = latest_checkpoint(folder)
            assert checkpoint is not None
            step = summary["train_seconds"] / checkpoint.step
            fraction = 100 * summary["checkpoint_seconds"] / summary["train_seconds"]
            cells = f"{name}: cost", size, f"{step:.3f} s", f"{fraction:.2f} %"
            table.row(*cells, value=fraction, at_most=MAX_PERCENT)
            seconds = seconds_to_checkpoint(folder)
            cells = f"{name}: after SIGTERM", size, f"{step:.3f} s", f"{seconds:.2f} s"
            table.row(*cells, value=seconds, at_most=max(MAX_SECONDS, 2 * step))
    return int(table.missed)


def seconds_to_checkpoint(folder: Path) -> float:
    """Continue a run, send SIGTERM, and return the seconds until the checkpoint is complete."""
    command = [NNOPT, "resume", folder, "max_time=null"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        time.sleep(RESUMED_SECONDS)
        sent = time.time()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    if process.returncode != 143 or b"nnopt resume" not in errors:
        raise SystemExit(f"exit code {process.returncode}: {errors.decode()}")
    return max(os.stat(folder / name).st_mtime for name in CHECKPOINTS) - sent


if __name__ == "__main__":
    sys.exit(main())
