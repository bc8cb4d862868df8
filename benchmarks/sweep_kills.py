"""kill -9 of a whole sweep at random moments, resumed each time: is the table the same in the end?

    python benchmarks/sweep_kills.py [--kills 20] [--seed 0]

A sweep is run once without interruption, and once more with kills, each at a moment drawn from the
time that the rest needs. Then ``results.csv`` has to be equal in every column but the times and
the memory, the weights of every point equal in every bit, points that were done before a kill
untouched, and no temporary file left. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"
WORDS = ["seed=range(6)", "optimizer=sgd,adam", "epochs=40", "layer_statistics=true"]
WORDS += ["dataset.samples_per_class=60", "regularizer=dropout", "plots=false"]
TIMES = ("train_seconds", "total_seconds", "peak_memory_mb")


def main() -> int:
    """Print what happened; 1 if the ends differ."""
    parser = argparse.ArgumentParser(description="Kill a sweep and resume it, many times.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        started = time.perf_counter()
        process = subprocess.Popen(begin(whole), stdout=subprocess.DEVNULL)
        while not list(whole.glob("*/lock")):
            time.sleep(0.01)
        ready = time.perf_counter() - started
        if process.wait() != 0:
            sys.exit("the sweep failed")
        needed = time.perf_counter() - started
        print(f"{len(rows(whole))} points, {needed:.1f} s, {ready:.1f} s of them to the first")
        kill_often(killed, ready, 3 * (needed - ready) / options.kills, options.kills)
        return compare(whole, killed)


def kill_often(folder: Path, ready: float, longest: float, kills: int) -> None:
    """Begin the sweep, kill it ``kills`` times, and let it come to its end. Each time it has
    ``longest`` seconds at most, after the ``ready`` ones that it needs to start."""
    done: dict[Path, str] = {}
    struck = 0
    while struck < kills:
        begun = (folder / "sweep.json").exists()
        command = resume(folder) if begun else begin(folder, fresh=False)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0.5 * ready, ready + longest))
        process.kill()
        if process.wait() != 0:
            struck += 1
        else:
            print(f"  it ended before kill {struck + 1}; half of the points are deleted to go on")
            taken = random.sample([row["id"] for row in rows(folder)], len(rows(folder)) // 2)
            for name in taken:
                shutil.rmtree(folder / name)
            done = {path: text for path, text in done.items() if path.parent.name not in taken}
        done = still_the_same(done, folder)
        print(f"  kill {struck}: {len(done)} points done", flush=True)
    subprocess.run(resume(folder), check=True, stdout=subprocess.DEVNULL)
    still_the_same(done, folder)


def still_the_same(done: dict[Path, str], folder: Path) -> dict[Path, str]:
    """The summaries that are there, as a digest and a time, after those of before were found as
    they were."""
    found = {
        path: f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.glob("*/summary.json")
    }
    changed = [path for path, text in done.items() if found.get(path) != text]
    if changed:
        sys.exit(f"a point that was done was touched: {changed}")
    return found


def compare(whole: Path, killed: Path) -> int:
    """0 if both sweeps came to the same."""
    problems = []
    tables = [
        [{key: cell for key, cell in row.items() if key not in TIMES} for row in rows(folder)]
        for folder in (whole, killed)
    ]
    if tables[0] != tables[1]:
        problems.append("results.csv differs")
    for path in sorted(whole.glob("*/model_*.npz")):
        if path.read_bytes() != (killed / path.relative_to(whole)).read_bytes():
            problems.append(f"{path.relative_to(whole)} differs")
    problems += [f"{path.name} was left" for path in killed.glob("*/.*.tmp")]
    print("\n".join(problems) or f"equal: {len(tables[0])} rows and the weights of every point")
    return int(bool(problems))


def begin(folder: Path, fresh: bool = True) -> list[str | Path]:
    """The command that starts the sweep; a folder in which one was killed at once is taken away."""
    if not fresh and folder.exists():
        for path in folder.iterdir():
            path.unlink()
    return [NNOPT, "run", "-m", *WORDS, f"hydra.sweep.dir={folder}"]


def resume(folder: Path) -> list[str | Path]:
    """Return the command that continues it."""
    return [NNOPT, "resume", folder]


def rows(folder: Path) -> list[dict[str, str]]:
    """The sweep's table."""
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
