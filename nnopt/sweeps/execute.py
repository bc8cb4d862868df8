"""A sweep under way: its points given to a launcher, the table and the terminal kept up to date."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from nnopt.errors import TrainingError
from nnopt.plots.sweep.draw import plot_sweep
from nnopt.sweeps.manifest import Sweep
from nnopt.sweeps.point_folder import ENDED, FAILED, read_state
from nnopt.sweeps.progress import SweepProgress
from nnopt.sweeps.results_table import FILE, Entry, Table
from nnopt.sweeps.task import Launcher, Task
from nnopt.terminal import console
from nnopt.terminal.interruption import code_of, message_of
from nnopt.terminal.safe_stream import standard_output


def run_points(
    sweep: Sweep, launcher: Launcher, *, retry_failed: bool = False, fail_fast: bool = False
) -> int:
    """Run every point that has not come to its end and that nobody else works on; returns the exit
    code: 5 if any point of the sweep failed or was left unfinished, 130 after Ctrl-C.

    retry_failed: those that failed too. fail_fast: no further point is begun after one fails.
    """
    started = time.monotonic()
    table = Table(sweep)
    redo = FAILED if retry_failed else ()
    entries = table.write()
    open_points = [x.status not in ENDED or x.status in redo for x in entries]
    is_new = not (sweep.folder / "plots").is_dir()
    with SweepProgress(sweep, entries, open_points) as progress:
        try:
            with closing(launcher(_tasks(sweep, redo, progress))) as outcomes:
                for outcome in outcomes:
                    is_new, point = True, outcome.task.point
                    table.tell(point.id, outcome.status, outcome.error)
                    entries = table.write()
                    progress.ended(point.id, entries)
                    if fail_fast and outcome.status in FAILED:
                        break
        except (KeyboardInterrupt, SystemExit) as stop:
            progress.close()
            return stopped(sweep, stop)
        finally:
            progress.close()
            entries = table.write()
    if is_new:
        draw(sweep)
    return report(sweep, entries, time.monotonic() - started)


def stopped(sweep: Sweep, stop: KeyboardInterrupt | SystemExit) -> int:
    """Print the command that continues a stopped sweep; return the exit code."""
    console.error(f"{message_of(stop)}; `{resume_command(sweep.folder)}` runs the rest")
    return code_of(stop)


def draw(sweep: Sweep, metric: str | None = None) -> None:
    """Draw the sweep's own pictures, unless every point has plots=false."""
    if any(point.config.plots is not False for point in sweep.points):
        plot_sweep(sweep.folder, metric)


def resume_command(folder: Path) -> str:
    """Return the command that continues a sweep."""
    return f"nnopt resume {shlex.quote(console.short(folder))}"


def _tasks(sweep: Sweep, redo: Sequence[str], progress: SweepProgress) -> Iterator[Task]:
    """The points that are to be run, in their order, each looked at when it is asked for."""
    for point in sweep.points:
        folder = sweep.folder / point.id
        state = read_state(folder)
        if state.status == "running" or (state.status in ENDED and state.status not in redo):
            progress.skipped(point.id)
            continue
        task = Task(point, folder, replaces=state.stamp)
        if sweep.launcher.name == "sequential":
            task = replace(task, after_epoch=(progress.epoch,))
        progress.began(point.id)
        yield task


def report(sweep: Sweep, entries: Sequence[Entry], seconds: float) -> int:
    """Say what the sweep came to, and again what failed; returns the exit code."""
    statuses = ("done", "running", "pruned")
    counts = {status: sum(x.status == status for x in entries) for status in statuses}
    pruned = f", {counts['pruned']} pruned" if counts["pruned"] else ""
    results = {
        "points done": f"{counts['done']} of {len(entries)}{pruned}",
        "time": f"{seconds:.1f} s",
    }
    standard_output().flush()
    paths = {"folder": sweep.folder, "table": sweep.folder / FILE}
    if (sweep.folder / "plots").is_dir():
        paths["plots"] = sweep.folder / "plots"
    console.summary("sweep", results, paths)
    failures = [
        (f"[{number}] {point.id}", entry)
        for number, (point, entry) in enumerate(zip(sweep.points, entries, strict=False), start=1)
        if entry.status in FAILED
    ]
    for name, entry in failures:
        console.error(f"{name}: {entry.error or entry.status}")
    if counts["running"]:
        console.note(f"another process works on {counts['running']} of the points")
    if failures and sweep.sweeper.name != "optuna":
        console.note(f"`{resume_command(sweep.folder)} --retry-failed` runs what failed again")
    if left := sum(x.status in ("pending", "interrupted") for x in entries):
        console.note(f"`{resume_command(sweep.folder)}` runs what is left, {left} points")
    interrupted = any(entry.status == "interrupted" for entry in entries)
    return TrainingError.exit_code if failures or interrupted else 0
