"""Measure the time that a sweep takes in addition to the training of its runs.

    python benchmarks/sweep.py [--points 1000]

A sweep of 100 runs, each with one step on the spiral, must take at most 15 s, and at most 100 ms
per run in addition to training. Its command line selects a file of every config group. A sweep of
10 runs with plots of each run, the default of small sweeps, has no target. In a sweep of
``--points`` runs, the number of open files must not grow from the 10th run to the last, and the
memory must grow by at most 2 %. Exits with 1 if a target is missed.

Other work on the machine affects the wall times; the column "cpu" has the processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from timing import Table, machine_line, read_csv, run_command, run_nnopt

GROUPS = ["dataset=spiral", "backend=numpy", "architecture=mlp", "regularizer=l2"]
GROUPS += ["optimizer=adam", "schedule=cosine", "initializer=glorot"]
ONE_STEP = ["max_steps=1", "epochs=1"]
MAX_SECONDS, MAX_POINT_MS = 15.0, 100.0
LARGEST_MEMORY_RATIO = 1.02

WATCHED = """
import json, os, sys
from nnopt.cli.main import run_verb
from nnopt.sweeps import execute
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
write, found = execute.ResultsTable.write, []
def watched(table):
    found.append((len(os.listdir("/proc/self/fd")), rss()))
    return write(table)
execute.ResultsTable.write = watched
code = run_verb(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
sys.exit(code)
"""
"""A program that runs a sweep, and records open files and memory at each write of results.csv."""


def main() -> int:
    """Print the tables; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000, help="runs of the long sweep")
    options = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = Table("sweep", "measured", "cpu")
        measure(table, folder / "many", 100, "sweep")
        measure(table, folder / "few", 10, "true")
        watch(table, folder / "long", options.points)
    return int(table.missed)


def measure(table: Table, folder: Path, points: int, plots: str) -> None:
    """Run a sweep, and print rows with its time and with the overhead and training time per point.

    ``plots`` is the value that plots=auto selects for this number of points.
    """
    base = run_nnopt(*arguments(folder.with_suffix(".two"), 2), f"plots={plots}").seconds
    sweep = run_nnopt(*arguments(folder, points))
    training = [float(row["train_seconds"]) for row in read_csv(folder / "results.csv")]
    assert len(training) == points
    overhead = 1000 * (sweep.seconds - base - sum(training[2:])) / (points - 2)
    has_target = plots != "true"
    label = f"{points} points, plots={plots}"
    target = {"at_most": MAX_SECONDS} if has_target else {}
    cells = f"{sweep.seconds:.1f} s", f"{sweep.cpu_seconds:.1f} s"
    table.row(label, *cells, value=sweep.seconds, **target)
    target = {"at_most": MAX_POINT_MS} if has_target else {}
    table.row("  overhead per point", f"{overhead:.0f} ms", value=overhead, **target)
    table.row("  training per point", f"{1000 * sum(training) / points:.0f} ms")


def watch(table: Table, folder: Path, points: int) -> None:
    """Run a long sweep, and print rows with its time, open files and memory."""
    records = folder.with_suffix(".json")
    process = run_command(sys.executable, "-c", WATCHED, records, *arguments(folder, points))
    values = json.loads(records.read_text())
    (files, memory), (last_files, last_memory) = values[10], values[-2]
    table.row(f"{points} points", f"{process.seconds:.0f} s", f"{process.cpu_seconds:.0f} s")
    table.row("  open files, last point", str(last_files), value=last_files, at_most=files)
    ratio = last_memory / memory
    cells = f"{last_memory:.1f} MB", f"{ratio:.3f} x"
    table.row("  memory, last / 10th", *cells, value=ratio, at_most=LARGEST_MEMORY_RATIO)


def arguments(folder: Path, points: int) -> list[str]:
    """Return the arguments of ``nnopt`` for a sweep."""
    overrides = [*GROUPS, *ONE_STEP, "optimizer.lr=1e-2,1e-3", f"seed=range({points // 2})"]
    return ["run", "-m", *overrides, f"hydra.sweep.dir={folder}"]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
