"""The verb ``resume``: continue a sweep, and add points to it."""

from __future__ import annotations

import json
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from nnopt.cli.run import note_missing_plots, prepare_all
from nnopt.config.arguments import Parser
from nnopt.config.point import Point
from nnopt.errors import ConfigError, ResumeError
from nnopt.io.paths import given_path
from nnopt.recipe.prepare import prepare
from nnopt.recipe.thread_notes import note_threads
from nnopt.results.cores import ProcessorTimes, processor_times
from nnopt.schema import OptunaConfig
from nnopt.sweeps.execute import run_points
from nnopt.sweeps.launchers.make import make_launcher
from nnopt.sweeps.manifest import Sweep, read_sweep
from nnopt.sweeps.moved import Move
from nnopt.sweeps.point_folder import ENDED, FAILED, State, note_unusable_summary, read_state
from nnopt.sweeps.provenance import note_differences
from nnopt.sweeps.received import (
    check_folder,
    check_launcher,
    note_missing_cache,
    remove_leftovers,
    with_safe_data,
)
from nnopt.sweeps.resume_changes import changed
from nnopt.terminal import console
from nnopt.terminal.interruption import stop_on_signals

EXAMPLES = """\
examples:
  nnopt resume outputs/latest                    what is missing, or was interrupted
  nnopt resume outputs/latest --retry-failed     failed, diverged and timed out points too
  nnopt resume outputs/latest 'seed=range(10)'   more values: the points that are new
  nnopt resume outputs/latest hydra.sweeper.trials=60   more trials of a search
"""


def main(words: list[str]) -> int:
    """Run the verb; returns the exit code of the sweep.

    Raises ResumeError if there is no sweep to continue, ConfigError for words that would change
    its points, DataError if its data are not there; ResumeError, too, if these are others.
    """
    start = processor_times()
    options = parser().parse_intermixed_args(words)
    stop_on_signals()
    folder = given_path(options.sweep, "SWEEP").resolve()  # outputs/latest may soon be another
    sweep = read_sweep(folder)
    check_folder(sweep)
    remove_leftovers(sweep)
    given = frozenset(word.partition("=")[0] for word in options.overrides)
    if isinstance(sweep.sweeper, OptunaConfig):
        return _resume_search(sweep, options, given, start)
    if options.overrides:
        sweep = changed(sweep, options.overrides)
    check_launcher(sweep.launcher, given, folder)
    points = tuple(with_safe_data(point, given, folder) for point in sweep.points)
    note_missing_cache(sweep.points, points)
    sweep = replace(sweep, points=points)
    launcher = make_launcher(sweep.launcher)
    states = {point.id: read_state(folder / point.id) for point in sweep.points}
    wanted = FAILED if options.retry_failed else ()
    to_run = [
        point
        for point in sweep.points
        if (status := states[point.id].status) not in ENDED or status in wanted
    ]
    threads = prepare_all(to_run)
    check_same_files(states, to_run, sweep.move)
    note_differences(states.values(), threads, sweep.launcher)
    for point in to_run:
        note_unusable_summary(folder / point.id)
    done = sum(state.status == "done" for state in states.values())
    console.note(f"{done} of {len(states)} points are done; to be run: {len(to_run)}")
    note_threads(threads, len(to_run), sweep.launcher, start)
    return run_points(
        sweep, launcher, retry_failed=options.retry_failed, fail_fast=options.fail_fast
    )


def check_same_files(states: Mapping[str, State], to_run: Sequence[Point], move: Move) -> None:
    """Raises ResumeError if a point that is to run would read other data than those that are done
    have read under the same name: one table would hold both."""
    read: dict[str, str] = {}  # file -> its hash
    for state in states.values():
        if state.status == "done" and (data := state.summary.get("data")):
            read |= move.sources(data.get("sources", {}))
    datasets = {json.dumps(point.container["dataset"]): point for point in to_run}
    for point in datasets.values():
        sources = prepare(point.config).dataset.sources
        if others := [file for file, x in sources.items() if read.get(file, x) != x]:
            raise ResumeError(
                f"{', '.join(others)}: changed since the points that are done read it, so the "
                "others would not compare with them; put back what it was, or begin a new sweep"
            )


def _resume_search(
    sweep: Sweep, options: Namespace, given: frozenset[str], start: ProcessorTimes | None
) -> int:
    """Continue the trials of a search."""
    if options.retry_failed:
        raise ConfigError(
            "--retry-failed: a search has learnt from the trials that failed; ask for more of them "
            "with hydra.sweeper.trials=N"
        )
    from nnopt.sweeps.search.execute import resumed, run_search  # imports Optuna

    plan, sweep = resumed(sweep, options.overrides)
    check_launcher(plan.launcher, given, sweep.folder)
    safe = partial(with_safe_data, given=given, sweep_folder=sweep.folder)
    points = tuple(map(safe, plan.points))
    note_missing_cache(plan.points, points)
    plan = replace(plan, points=points)
    launcher = make_launcher(plan.launcher)
    threads = prepare_all(plan.points)
    states = {point.id: read_state(sweep.folder / point.id) for point in sweep.points}
    assert plan.space is not None
    assert isinstance(sweep.sweeper, OptunaConfig)
    planned = plan.space.points_of(sweep.sweeper)
    if len(sweep.points) < planned or any(x.status not in ENDED for x in states.values()):
        check_same_files(states, plan.points, sweep.move)
        note_differences(states.values(), threads, plan.launcher)
    note_missing_plots(plan.points, planned)
    note_threads(threads, planned, plan.launcher, start)
    return run_search(plan, sweep, launcher, fail_fast=options.fail_fast, adapt=safe)


def parser() -> Parser:
    """The options of ``nnopt resume``."""
    parser = Parser(
        prog="nnopt resume",
        description="Continue a sweep: run the points that are missing or were interrupted. What "
        "is done stays as it is.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="the folder of a sweep")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="more values of keys that the sweep varies; hydra/launcher and its keys; data.root",
    )
    add("--retry-failed", action="store_true", help="run failed, diverged, timed out points again")
    add("--fail-fast", action="store_true", help="begin no further point after one fails")
    return parser
