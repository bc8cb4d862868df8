"""Run a sweep with a launcher, and update the table of results and the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from nnopt.errors import TrainingError
from nnopt.plots.sweep.draw import plot_sweep
from nnopt.sweeps.manifest import Sweep
from nnopt.sweeps.point_folder import ENDED, FAILED, read_state
from nnopt.sweeps.progress import PointsProgress, SweepProgress
from nnopt.sweeps.results_table import TABLE, ResultsTable, TableRow
from nnopt.sweeps.task import Launcher, Task, TaskResult
from nnopt.terminal import console
from nnopt.terminal.interruption import code_of, message_of
from nnopt.terminal.safe_stream import standard_output


def run_sweep(
    sweep: Sweep, launcher: Launcher, *, retry_failed: bool = False, fail_fast: bool = False
) -> int:
    """Run the unfinished points of the sweep, except points that another process runs.

    With ``retry_failed``, failed points run again. With ``fail_fast``, no point starts after a
    failure. Return the exit code: 5 if a point failed or was interrupted, 130 after Ctrl-C, 143
    after another signal, else 0.
    """
    started = time.monotonic()
    table = ResultsTable(sweep)
    finished = set(ENDED) - set(FAILED if retry_failed else ())
    rows = table.write()
    points = zip(sweep.points, rows, strict=False)
    to_run = {point.id for point, row in points if row.status not in finished}
    results: list[TaskResult] = []
    with SweepProgress(sweep, rows, to_run) as progress:
        tasks = _tasks(sweep, finished, progress)
        stopped = run_tasks(tasks, launcher, table, progress, results.append, fail_fast)
    if stopped is not None:
        return stopped
    if results or not (sweep.folder / "plots").is_dir():
        plot(sweep)
    return print_summary(sweep, table.rows, time.monotonic() - started)


def run_tasks(
    tasks: Iterator[Task],
    launcher: Launcher,
    table: ResultsTable,
    progress: PointsProgress,
    on_result: Callable[[TaskResult], None],
    fail_fast: bool,
) -> int | None:
    """Run tasks and report each result. Return an exit code after Ctrl-C or a signal, else None."""
    try:
        with closing(launcher(tasks)) as results:
            for result in results:
                on_result(result)
                table.report(result)
                progress.finish(result.task.point.id, table.write())
                if fail_fast and result.status in FAILED:
                    break
    except (KeyboardInterrupt, SystemExit) as stop:
        progress.close()
        command = console.resume_command(table.folder)
        console.error(f"{message_of(stop)}; `{command}` runs the remaining points")
        return code_of(stop)
    finally:
        progress.close()
        table.write()
    return None


def plot(sweep: Sweep, metric: str | None = None) -> None:
    """Draw the plots of a sweep, unless every point is configured with plots=false."""
    if any(point.config.plots is not False for point in sweep.points):
        plot_sweep(sweep.folder, metric)


def _tasks(sweep: Sweep, finished: set[str], progress: SweepProgress) -> Iterator[Task]:
    """Yield a task for each point to run, after reading the current state of the point."""
    callbacks = (progress.epoch,) if sweep.launcher.name == "sequential" else ()
    for point in sweep.points:
        folder = sweep.folder / point.id
        state = read_state(folder)
        if state.status == "running" or state.status in finished:
            progress.skip(point.id)
            continue
        progress.start(point.id)
        yield Task(point, folder, callbacks, state.stamp)


def print_summary(sweep: Sweep, rows: Sequence[TableRow], seconds: float) -> int:
    """Print how many points are done, the errors, and how to continue; return the exit code."""
    counts = Counter(row.status for row in rows)
    done = f"{counts['done']} of {len(rows)}"
    done += f", {counts['pruned']} pruned" if counts["pruned"] else ""
    standard_output().flush()
    paths = {"folder": sweep.folder, "table": sweep.folder / TABLE}
    if (sweep.folder / "plots").is_dir():
        paths["plots"] = sweep.folder / "plots"
    console.summary("sweep", {"points done": done, "time": f"{seconds:.1f} s"}, paths)
    for number, (point, row) in enumerate(zip(sweep.points, rows, strict=False), start=1):
        if row.status in FAILED:
            console.error(f"[{number}] {point.id}: {row.error or row.status}")
    if counts["running"]:
        console.note(f"another process runs {counts['running']} of the points")
    command = console.resume_command(sweep.folder)
    failed = any(counts[status] for status in FAILED)
    if failed and sweep.sweeper.name != "optuna":
        console.note(f"`{command} --retry-failed` runs the failed points again")
    if left := counts["pending"] + counts["interrupted"]:
        console.note(f"`{command}` runs the remaining points: {left}")
    return TrainingError.exit_code if failed or counts["interrupted"] else 0
