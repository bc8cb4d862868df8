"""What a sweep costs besides the training of its points.

    python benchmarks/sweep.py [--points 1000]

A sweep of 100 points of one step on the spiral takes under 15 s in all, and over the training of
the points each costs at most 100 ms, with every config group chosen on the command line. The same
with pictures of each point, which small sweeps have by default, is measured and has no bar: drawing
them is a point's own work. In a sweep of ``--points`` points the open files are as many at the last
point as at the 10th, and the memory in use has grown by at most 2 %. Exits with 1 past a bar.

Seconds are of the clock: other work on the machine shows in them; the processor's own time of the
process stands beside them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
GROUPS = ["dataset=spiral", "backend=numpy", "architecture=mlp", "regularizer=l2"]
GROUPS += ["optimizer=adam", "schedule=cosine", "initializer=glorot"]
ONE_STEP = ["max_steps=1", "epochs=1"]
TOTAL_BAR, POINT_BAR = 15.0, 0.100  # seconds
MEMORY_BAR = 1.02  # times the memory at the 10th point

WATCHED = """
import json, os, sys
from nnopt.cli.main import run_verb
from nnopt.sweeps import execute as running
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
work, found = running.ResultsTable.write, []
def write(table):
    found.append((len(os.listdir("/proc/self/fd")), rss()))
    return work(table)
running.ResultsTable.write = write
code = run_verb(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
sys.exit(code)
"""
"""Notes the open files and the memory at every point: those before the first are not counted."""


def main() -> int:
    """Print what was measured; 1 if a bar is passed."""
    parser = argparse.ArgumentParser(description="What a sweep costs besides training.")
    parser.add_argument("--points", type=int, default=1000, help="of the long sweep; default 1000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fails = [measure(folder / "many", 100, "sweep"), measure(folder / "few", 10, "true")]
        fails.append(watch(folder / "long", options.points))
    return int(any(fails))


def measure(folder: Path, points: int, plots: str) -> bool:
    """Run a sweep; was a bar passed? plots: what plots=auto comes to for so many points."""
    alone, _ = seconds([*words(folder.with_suffix(".two"), 2), f"plots={plots}"])
    total, cpu = seconds(words(folder, points))
    with (folder / "results.csv").open(newline="") as file:
        training = [float(row["train_seconds"]) for row in csv.DictReader(file)]
    assert len(training) == points
    overhead = (total - alone - sum(training[2:])) / (points - 2)
    print(
        f"{points} points, plots={plots}: {total:.1f} s in all ({cpu:.1f} s of the "
        f"processor), {1000 * overhead:.0f} ms a point over {1000 * sum(training) / points:.0f} ms "
        "of training"
    )
    if plots == "true":
        return False
    print(f"  bars: {TOTAL_BAR:g} s in all, {1000 * POINT_BAR:g} ms a point")
    return total > TOTAL_BAR or overhead > POINT_BAR


def watch(folder: Path, points: int) -> bool:
    """Run a long sweep, noting what the process holds; was a bar passed?"""
    notes = folder.with_suffix(".json")
    command = [sys.executable, "-c", WATCHED, notes, *words(folder, points)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - started
    (files, memory), (last_files, last_memory) = (
        json.loads(notes.read_text())[i] for i in (10, -2)
    )
    print(
        f"{points} points: {taken:.0f} s; from the 10th to the last, open files {files} to "
        f"{last_files}, memory {memory:.1f} to {last_memory:.1f} MiB"
    )
    print(f"  bars: as many files, {100 * (MEMORY_BAR - 1):.0f} % more memory")
    return last_files > files or last_memory > MEMORY_BAR * memory


def words(folder: Path, points: int) -> list[str]:
    """The command line after ``nnopt``."""
    settings = [*GROUPS, *ONE_STEP, "optimizer.lr=1e-2,1e-3", f"seed=range({points // 2})"]
    return ["run", "-m", *settings, f"hydra.sweep.dir={folder}"]


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall time of an nnopt process, and its time on the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([NNOPT, *arguments], check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken, cpu


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
