"""Check that a sweep gives the same results if it is killed and resumed at random times.

    python benchmarks/sweep_kills.py [--kills 20] [--seed 0]

A sweep runs once without interruption, and once with ``kill -9`` at random times, each followed by
``nnopt resume``. Both must have the same ``results.csv`` except for times and memory, and the same
weights in every bit. A finished point must never change, and no temporary file may remain. Exits
with 1 if a condition is violated.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import NNOPT, read_csv, run_command

OVERRIDES = ["seed=range(6)", "optimizer=sgd,adam", "epochs=40", "layer_statistics=true"]
OVERRIDES += ["dataset.samples_per_class=60", "regularizer=dropout", "plots=false"]
MEASURED = ("train_seconds", "total_seconds", "peak_memory_mb")


def main() -> int:
    """Print each kill and the comparison; return 1 if the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        started = time.perf_counter()
        process = subprocess.Popen(start(whole), stdout=subprocess.DEVNULL)
        while not list(whole.glob("*/lock")):
            time.sleep(0.01)
        ready = time.perf_counter() - started
        if process.wait() != 0:
            sys.exit("the sweep failed")
        needed = time.perf_counter() - started
        print(f"{len(rows(whole))} points, {needed:.1f} s; the first starts after {ready:.1f} s")
        kill_often(killed, ready, 3 * (needed - ready) / options.kills, options.kills)
        return compare(whole, killed)


def kill_often(folder: Path, ready: float, longest: float, kills: int) -> None:
    """Start the sweep, kill it ``kills`` times, and resume it to its end.

    Each process runs for at most ``longest`` seconds after the ``ready`` seconds of its start.
    """
    done: dict[Path, str] = {}
    killed = 0
    while killed < kills:
        has_started = (folder / "sweep.json").exists()
        command = [NNOPT, "resume", folder] if has_started else start(folder)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0.5 * ready, ready + longest))
        process.kill()
        if process.wait() != 0:
            killed += 1
        else:
            print(f"  the sweep ended before kill {killed + 1}; half of its points are deleted")
            deleted = random.sample([row["id"] for row in rows(folder)], len(rows(folder)) // 2)
            for name in deleted:
                shutil.rmtree(folder / name)
            done = {path: text for path, text in done.items() if path.parent.name not in deleted}
        done = check_finished(done, folder)
        print(f"  kill {killed}: {len(done)} points done", flush=True)
    run_command(NNOPT, "resume", folder)
    check_finished(done, folder)


def check_finished(done: dict[Path, str], folder: Path) -> dict[Path, str]:
    """Check that finished points are unchanged; return digest and time of all summaries."""
    found = {
        path: f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.glob("*/summary.json")
    }
    changed = [path for path, text in done.items() if found.get(path) != text]
    if changed:
        sys.exit(f"a finished point has changed: {changed}")
    return found


def compare(whole: Path, killed: Path) -> int:
    """Print the differences of the two sweeps; return 1 if there are any."""
    problems = []
    tables = [
        [{key: cell for key, cell in row.items() if key not in MEASURED} for row in rows(folder)]
        for folder in (whole, killed)
    ]
    if tables[0] != tables[1]:
        problems.append("results.csv differs")
    for path in sorted(whole.glob("*/model_*.npz")):
        if path.read_bytes() != (killed / path.relative_to(whole)).read_bytes():
            problems.append(f"{path.relative_to(whole)} differs")
    problems += [f"{path.name} remains" for path in killed.glob("*/.*.tmp")]
    print("\n".join(problems) or f"equal: {len(tables[0])} rows and the weights of every point")
    return int(bool(problems))


def start(folder: Path) -> list[str | Path]:
    """Return the command that starts the sweep; delete the files of a sweep killed early."""
    for path in folder.iterdir() if folder.exists() else ():
        path.unlink()
    return [NNOPT, "run", "-m", *OVERRIDES, f"hydra.sweep.dir={folder}"]


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the sweep's table."""
    return read_csv(folder / "results.csv")


if __name__ == "__main__":
    sys.exit(main())
