"""Wall time of whole processes: what a user waits for.

    python benchmarks/startup.py

``nnopt run`` with no arguments (training, test, plots) takes under 3 s and reaches at least 0.95
validation accuracy without importing PyTorch; ``nnopt version`` takes under 60 ms; a mistake is
refused in under 3 s. With CIFAR-10 under ``NNOPT_DATA_DIR``: PyTorch has taken the first step of a
training on it in under 6 s. Medians, after one run that is not counted, and that decodes the
dataset if it was not decoded yet. Exits with 1 past a bar.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

RUNS = 7
NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"

CASES = (
    ("nnopt version", ["version"], 0, 0.060),
    ("nnopt run optimzer.lr=1", ["run", "optimzer.lr=1"], 2, 3.0),
    ("nnopt run", ["run"], 0, 3.0),
)
"""What is shown, the words after nnopt, the exit code expected, the bar in seconds."""

FIRST_STEP = ["run", "experiment=cifar10_vgg", "backend=torch"]
FIRST_STEP_BAR = 6.0
UNTIL_FIRST_STEP = f"""
import os
from nnopt.backends.torch.network import TorchNetwork
from nnopt.cli.main import run_verb
train_step = TorchNetwork.train_step
def only_step(*arguments):
    train_step(*arguments)
    os._exit(0)
TorchNetwork.train_step = only_step
os._exit(run_verb({FIRST_STEP}) or 1)
"""


def main() -> int:
    """Print the table; 1 if a bar is passed."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'command':<26} {'median':>8} {'min':>8} {'max':>8}  bar")
        cases = [(shown, [NNOPT, *words], code, bar) for shown, words, code, bar in CASES]
        if "NNOPT_DATA_DIR" in os.environ:
            script = [sys.executable, "-c", UNTIL_FIRST_STEP]
            cases.insert(0, ("first step of cifar10_vgg", script, 0, FIRST_STEP_BAR))
        for shown, command, code, bar in cases:
            times = [seconds(command, code, Path(folder)) for _ in range(RUNS + 1)][1:]
            median = statistics.median(times)
            failed |= median > bar
            row = f"{median:>7.3f}s {min(times):>7.3f}s {max(times):>7.3f}s"
            print(f"{shown:<26} {row}  {bar:g} s {'ok' if median <= bar else 'MISSED'}")
        if "NNOPT_DATA_DIR" not in os.environ:
            print("first step with PyTorch: not measured, as NNOPT_DATA_DIR is not set")
        summary = json.loads((Path(folder) / "outputs/latest/summary.json").read_text())
        accuracy = summary["best_validation_accuracy"]
        failed |= accuracy < 0.95
        print(f"best validation accuracy of the spiral: {accuracy:.4f} (bar: at least 0.95)")
        imported = imports_torch(Path(folder))
        failed |= imported
        print(f"PyTorch imported by nnopt run: {'YES' if imported else 'no'}")
    return int(failed)


def seconds(command: list[str | Path], code: int, folder: Path) -> float:
    """Wall time of one process."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stderr}")
    return taken


def imports_torch(folder: Path) -> bool:
    """Is torch among the modules after ``nnopt run``?"""
    script = (
        "import sys; from nnopt.cli.main import run_verb; code = run_verb(['run']); "
        "sys.exit(code or 100 * any(name.startswith('torch') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
