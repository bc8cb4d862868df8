"""Check that killed and resumed runs give the same bits as uninterrupted runs.

    NNOPT_DATA_DIR=... python benchmarks/kills.py [--kills 200] [--seed 0] [--only TEXT]

Each configuration runs once without interruption. Then it runs repeatedly in new folders: each run
is killed with ``kill -9`` at random times, resumed with ``nnopt resume`` until it is done, and
compared with the uninterrupted run. The comparison includes all weights, ``metrics.csv``,
``layers.csv``, ``summary.json``, ``results.csv`` and the trials of a search, but not times, memory
and the number of interruptions. A finished run must never change, and no temporary file may remain.

The times of the kills are uniform over the rest of the run, but some kills wait for the next write
of a checkpoint, and some follow within a second after a run is resumed. In a pool, one worker or
all workers are sometimes killed just before the main process. Two configurations run at the same
time.

Prints a row for each configuration. Exits with 1 if a result differs or a run cannot be resumed;
the folders are then kept. The data are a subset of MNIST.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import same_results
import torch  # noqa: F401  # for its version in machine_line
from timing import Table, machine_line, read_csv

from nnopt.sweeps.launchers.remote import thread_limits

PROGRAM = """
import sys
from nnopt.cli.main import main
from nnopt.recipe import checkpoints
checkpoints.MAX_COST = 0.5
sys.exit(main())
"""
"""The command ``nnopt`` with frequent checkpoints, except in the workers of a pool."""

COMMON = ["dataset=mnist", "dataset.subset=1024", "dataset.validation.fraction=0.01"]
COMMON += ["batch_size=16", "plots=false", "progress=none", "layer_statistics=true"]
COMMON += ["backend.threads=1", "checkpoint.interval=0.05"]
DENSE = ["epochs=40"]
CONV = ["epochs=6", "architecture=three_layer_conv", "architecture.channels=8"]
CONV += ["architecture.kernel=3", "architecture.hidden=32"]
ADAM = ["optimizer=adam", "optimizer.lr=0.001"]
DROPOUT, BATCH_NORM = ["regularizer.dropout=0.3"], ["regularizer.norm=batch"]
EMA, SWA = ["regularizer.ema_decay=0.95"], ["regularizer.swa_start=0.4"]
MIXUP, ACCUMULATION = ["regularizer.augmentation.mixup=0.2"], ["accumulation_steps=2"]
PLATEAU = ["schedule=plateau", "schedule.patience=2"]
STOPPING = ["early_stopping.patience=1000", "early_stopping.unit=steps", "optimizer.lr=0.005"]
STOPPING += ["early_stopping.validate_every=20", "early_stopping.monitor=loss"]
STOPPING_CONV = [*STOPPING, "epochs=12", "early_stopping.patience=60", "optimizer.lr=0.02"]

GRADUAL = [
    "pruning=gradient",
    "pruning.schedule=gradual",
    "pruning.start=1",
    "pruning.interval=0.7",
]
TICKET = [
    "pruning=magnitude",
    "pruning.schedule=iterative",
    "pruning.start=4",
    "pruning.interval=3",
]
TICKET += ["pruning.rewind=1", "pruning.rewind_schedule=true", "pruning.control=random_mask"]
SMALLER = ["pruning=structured", "pruning.start=1.5", "pruning.rewind=1"]

BOTH = {
    "dense, dropout, EMA, Adam, plateau": [*DENSE, *DROPOUT, *EMA, *ADAM, *PLATEAU],
    "dense, SWA, mixup, accumulation": [*DENSE, *SWA, *MIXUP, *ACCUMULATION],
    "dense, dropout, early stopping": [*DENSE, *DROPOUT, *STOPPING],
    "conv, batch norm, EMA, accumulation": [*CONV, *BATCH_NORM, *EMA, *ACCUMULATION],
    "conv, batch norm, SWA, Adam, mixup": [*CONV, *BATCH_NORM, *SWA, *ADAM, *MIXUP],
    "dense, Adam, EMA, rewound rounds": [*DENSE, *ADAM, *EMA, *TICKET, "schedule=cosine"],
    "conv, batch norm, gradual, SWA": [*CONV, *BATCH_NORM, *SWA, *GRADUAL],
    "conv, batch norm, fewer channels": [*CONV, *BATCH_NORM, *ADAM, *SMALLER],
    "conv, dropout, early stopping, plateau": [*CONV, *DROPOUT, *PLATEAU, *STOPPING_CONV],
}
TORCH = {
    "dense, EMA, Muon": [*DENSE, *EMA, "optimizer=muon"],
    "conv, batch norm, plateau, Muon": [*CONV, *BATCH_NORM, *PLATEAU, "optimizer=muon"],
    "dense, dropout, Schedule-Free SGD": [*DENSE, *DROPOUT, "optimizer=schedule_free_sgd"],
    "conv, Schedule-Free AdamW": [*CONV, *BATCH_NORM, "optimizer=schedule_free_adamw"],
    "dense, early stopping, Adam, bf16": [*DENSE, *STOPPING, *ADAM, "backend.precision=bf16"],
}
POOL = [*DROPOUT, "epochs=12", "optimizer=sgd,adam", "seed=0,1", "hydra/launcher=pool"]
POOL += ["hydra.launcher.workers=2", "hydra.launcher.threads=1"]
SEARCH = [*EMA, "epochs=8", "optimizer=sgd,adam", "optimizer.lr=tag(log, interval(1e-4, 0.3))"]
SEARCH += ["hydra/sweeper=optuna", "hydra.sweeper.trials=6", "hydra.sweeper.startup_trials=3"]
SEARCH += ["hydra.sweeper.pruner=median", "hydra.sweeper.warmup_epochs=2"]

FILES = "*.npz", "metrics.csv", "layers.csv", "summary.json", "results.csv", "search.journal"
UNEQUAL = {"train_seconds", "total_seconds", "checkpoint_seconds", "peak_memory_mb"}
UNEQUAL |= {"measured_step_speedup", "measured_predict_speedup"}
UNEQUAL |= {"started", "finished", "interruptions", "files", "sha256"}
"""Keys and columns that are not compared: times, memory, interruptions, and checksums."""

AT_WRITE, AGAIN = 0.3, 0.25
"""Fractions of kills: during a write, and within the first second of a resumed process."""

MAX_KILLS, MAX_RESUMES = 4, 5
"""Maximum number of kills of one run, and of attempts to resume it after the last kill."""

WRITE_SECONDS, HANGS_SECONDS = 0.003, 300.0
"""Maximum seconds from the start of a write to the kill, and maximum seconds of a process."""

COUNTS = "kills", "at write", "resumes", "runs", "differing", "lost"


@dataclass
class Case:
    """A configuration, and the results so far.

    Attributes:
        kind: ``run``, ``pool`` or ``search``.
        folder: Folder of the uninterrupted run and of the killed ones.
        kills: Planned number of kills, in all runs of the configuration together.
        ready: Seconds from the start of a run to its first ``summary.json``.
        seconds: Seconds from the start of a run to its end.
    """

    title: str
    kind: str
    overrides: list[str]
    folder: Path
    kills: int
    ready: float = 0.0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def has_started(self, folder: Path) -> bool:
        """Return whether the run in a folder can be resumed."""
        return (folder / ("summary.json" if self.kind == "run" else "sweep.json")).exists()

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the run in a folder, or resume it. The output is written next to the folder."""
        if self.has_started(folder):
            self.counts["resumes"] += 1
            command = ["resume", str(folder)]
            command += ["--retry-failed"] if self.kind == "pool" else []
        else:
            shutil.rmtree(folder, ignore_errors=True)
            mode = "run" if self.kind == "run" else "sweep"
            command = ["run", *COMMON, *self.overrides, f"hydra.{mode}.dir={folder}"]
            command += ["-m"] if mode == "sweep" else []
        with folder.with_suffix(".log").open("wb") as log:
            environment = os.environ | thread_limits(1)
            return subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *command], stdout=log, stderr=log, env=environment
            )


def main() -> int:
    """Print the table; return 1 if a result differs or a run cannot be resumed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills")
    parser.add_argument(
        "--only", default="", help="text in the titles of the configurations to run"
    )
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    found = [x for x in configurations() if options.only in f"{x[0]}, {x[1]}"]
    shares = [len(range(i, options.kills, len(found))) for i in range(len(found))]
    cases = [Case(*x, root / str(i), shares[i]) for i, x in enumerate(found)]
    print(f"{machine_line()}; seed {options.seed}")
    table = Table("configuration", "kind", "run", *COUNTS, label_width=44, target="problems")
    with ThreadPoolExecutor(2) as threads:
        rngs = [random.Random(f"{options.seed} {case.title}") for case in cases]
        for case in threads.map(check, cases, rngs):
            print_row(table, case.counts, case.title, case.kind, f"{case.seconds:.1f} s")
            print("".join(f"  {problem}\n" for problem in case.problems), end="", flush=True)
    print_row(table, sum((case.counts for case in cases), Counter()), "total", "", "")
    if table.missed:
        print(f"the folders are kept in {root}")
    else:
        shutil.rmtree(root)
    return int(table.missed)


def configurations() -> Iterator[tuple[str, str, list[str]]]:
    """Yield title, kind and overrides of each configuration."""
    for backend, runs in ("numpy", BOTH), ("torch", BOTH | TORCH):
        groups = {"run": runs, "pool": {"4 points": POOL}, "search": {"6 trials": SEARCH}}
        for kind, group in groups.items():
            for title, overrides in group.items():
                yield f"{backend}: {title}", kind, [*overrides, f"backend={backend}"]


def print_row(table: Table, counts: Counter[str], *cells: str) -> None:
    """Print a row of the table."""
    problems = counts["differing"] + counts["lost"]
    table.row(*cells, *(str(counts[name]) for name in COUNTS), value=problems, at_most=0)


def check(case: Case, rng: random.Random) -> Case:
    """Run a case once without interruption, then repeatedly with ``case.kills`` kills in all."""
    case.folder.mkdir()
    whole, started = case.folder / "whole", time.monotonic()
    process = case.start(whole)
    while not list(whole.glob("**/summary.json")) and process.poll() is None:
        time.sleep(0.01)
    case.ready = time.monotonic() - started
    if process.wait() != 0:
        sys.exit(f"{case.title}: {whole.with_suffix('.log').read_text()}")
    case.seconds = time.monotonic() - started
    while case.counts["kills"] < case.kills:
        folder = case.folder / f"killed-{case.counts['runs']}"
        case.counts["runs"] += 1
        problems = kill_often(case, folder, rng)
        if resume(case, folder):
            problems += differences(whole, folder)
            case.counts["differing"] += len(problems)
        else:
            problems = ["not resumable: " + folder.with_suffix(".log").read_text()]
            case.counts["lost"] += 1
        case.problems += [f"{folder}: {problem}" for problem in problems]
        if not problems:
            shutil.rmtree(folder)
    return case


def kill_often(case: Case, folder: Path, rng: random.Random) -> list[str]:
    """Start a run, and kill and resume it a few times.

    Return a message for each finished run whose summary was written again.
    """
    left = min(case.kills - case.counts["kills"], MAX_KILLS)
    done, problems = 0.0, list[str]()
    while left:
        can_resume, old, ended = case.has_started(folder), parts(folder), finished(folder)
        rest = max(case.seconds - case.ready - done, 0.5)
        latest = 1.0 if can_resume and rng.random() < AGAIN else case.ready + rest
        delay = rng.uniform(0, latest if can_resume else rest)
        is_at_write = rng.random() < AT_WRITE
        started, process = time.monotonic(), case.start(folder)
        while not case.has_started(folder) and process.poll() is None:
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        while is_at_write and process.poll() is None and parts(folder) <= old:
            time.sleep(0.0002)
        time.sleep(rng.uniform(0, WRITE_SECONDS) if is_at_write else 0)
        was_killed = kill(process, case.kind, rng)
        done += max(time.monotonic() - started - case.ready, 0)
        now = finished(folder)
        problems += [f"{path} has changed" for path in ended if now.get(path) != ended[path]]
        if not was_killed:  # the run ended before the kill, earlier than expected
            case.seconds = min(case.seconds, case.ready + done)
            break
        if case.has_started(folder):
            case.counts["kills"] += 1
            case.counts["at write"] += not parts(folder) <= old
            left -= 1
    return problems


def kill(process: subprocess.Popen[bytes], kind: str, rng: random.Random) -> bool:
    """Kill a process, and possibly its workers. Return False if the process had already ended."""
    target = rng.choice(("sweep", "worker", "all")) if kind == "pool" else "sweep"
    if process.poll() is not None:
        return False
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if children and target != "sweep":
        for child in children if target == "all" else rng.sample(children, 1):
            os.kill(int(child), signal.SIGKILL)
        if target == "worker":  # let the sweep continue for a moment
            time.sleep(rng.random())
    process.kill()
    time.sleep(0.05 if children else 0)  # let workers notice the end of the sweep
    return process.wait() != 0


def resume(case: Case, folder: Path) -> bool:
    """Resume a run to its end. Return False if this fails."""
    for _ in range(MAX_RESUMES):
        process = case.start(folder)
        with suppress(subprocess.TimeoutExpired):
            if process.wait(HANGS_SECONDS) == 0:
                return True
        process.kill()
        time.sleep(1)
    return False


def parts(folder: Path) -> set[Path]:
    """Return the temporary files of unfinished trainings: checkpoints that are being written."""
    pattern = "*/.*.tmp" if (folder / "sweep.json").exists() else ".*.tmp"
    return {
        path
        for path in folder.glob(pattern)
        if (path.parent / "metrics.csv").exists() and not (path.parent / "model_last.npz").exists()
    }


def finished(folder: Path) -> dict[Path, int]:
    """Return the times at which the summaries of the finished runs in a folder were written."""
    paths = folder.glob("**/summary.json")
    return {x: x.stat().st_mtime_ns for x in paths if '"status": "done"' in x.read_text()}


def differences(whole: Path, killed: Path) -> Iterator[str]:
    """Yield a message for each file that differs and for each temporary file that remains."""
    names = {path.relative_to(x) for x in (whole, killed) for p in FILES for path in x.rglob(p)}
    for name in sorted(names):
        old, new = content(whole / name), content(killed / name)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in old | new if old.get(key) != new.get(key)]
            yield from [f"{name} differs: {', '.join(keys)}"] if keys else []
        elif old != new:
            yield f"{name} differs"
    yield from (f"{path.relative_to(killed)} remains" for path in killed.rglob(".*.tmp"))


def content(path: Path) -> object:
    """Return the comparable content of a file, without ``UNEQUAL``; None for a missing file."""
    match path.name if path.exists() else None:
        case "search.journal":
            return trials(path)
        case "results.csv":
            return [{k: x for k, x in row.items() if k not in UNEQUAL} for row in read_csv(path)]
        case "summary.json":
            summary = json.loads(path.read_text())
            (summary["pruning"] or {}).pop("speed", None)
            return {k: x for k, x in summary.items() if k not in UNEQUAL}
    return same_results.content(path)


def trials(path: Path) -> list[object]:
    """Return state, values, parameters, reports and attributes of each trial of a search."""
    from optuna import load_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(path)))
    found = load_study(study_name="search", storage=storage).get_trials()
    return [(t.state, t.values, t.params, t.intermediate_values, t.user_attrs) for t in found]


if __name__ == "__main__":
    sys.exit(main())
