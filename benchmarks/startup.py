"""Measure the wall time of whole commands.

    python benchmarks/startup.py

``nnopt run`` without arguments (training, test, plots) must take at most 3 s and reach a validation
accuracy of at least 0.95 without importing PyTorch. ``nnopt version`` must take at most 60 ms, and
a refused command at most 3 s. If ``NNOPT_DATA_DIR`` is set, it must contain CIFAR-10, and PyTorch
must complete the first training step on CIFAR-10 within 6 s. Times are medians after a warm-up,
which also decodes the dataset. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from timing import NNOPT, Table, machine_line, run_command

ROUNDS = 7
MIN_ACCURACY = 0.95

CASES: list[tuple[str, list[object], int, float]] = [
    ("nnopt version", [NNOPT, "version"], 0, 0.060),
    ("nnopt run optimzer.lr=1", [NNOPT, "run", "optimzer.lr=1"], 2, 3.0),
    ("nnopt run", [NNOPT, "run"], 0, 3.0),
]
"""Label, command, expected exit code, and the target in seconds."""

FIRST_STEP = """
import os
from nnopt.backends.torch.network import TorchNetwork
from nnopt.cli.main import run_verb
train_step = TorchNetwork.train_step
def only_step(*arguments):
    train_step(*arguments)
    os._exit(0)
TorchNetwork.train_step = only_step
os._exit(run_verb(["run", "experiment=cifar10_vgg", "backend=torch"]) or 1)
"""

IMPORTS_TORCH = """
import sys
from nnopt.cli.main import run_verb
print(run_verb(["run"]) or any(name.startswith("torch") for name in sys.modules))
"""


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    cases = list(CASES)
    if "NNOPT_DATA_DIR" in os.environ:
        cases.insert(0, ("first step of cifar10_vgg", [sys.executable, "-c", FIRST_STEP], 0, 6.0))
    else:
        print("first step with PyTorch: not measured, because NNOPT_DATA_DIR is not set")
    print(machine_line())
    table = Table("command", "median", "min", "max")
    with tempfile.TemporaryDirectory() as folder:
        for label, command, code, target in cases:
            processes = [
                run_command(*command, exit_code=code, cwd=folder) for _ in range(ROUNDS + 1)
            ]
            times = [process.seconds for process in processes[1:]]
            median = statistics.median(times)
            cells = (f"{x:.3f} s" for x in (median, min(times), max(times)))
            table.row(label, *cells, value=median, at_most=target)
        summary = json.loads((Path(folder) / "outputs/latest/summary.json").read_text())
        output = run_command(sys.executable, "-c", IMPORTS_TORCH, cwd=folder).output
    accuracy = summary["best_validation_accuracy"]
    table.row("accuracy on the spiral", f"{accuracy:.4f}", value=accuracy, at_least=MIN_ACCURACY)
    imported = int(output.split()[-1] != "False")
    table.row("imports of PyTorch", str(imported), value=imported, at_most=0)
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())
