"""``nnopt resume``: continue a run, or run the missing points of a sweep and add points."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnopt.cli.parsers import resume_parser
from nnopt.cli.result_folder import is_single_run
from nnopt.cli.resume_run import resume_run
from nnopt.cli.run import note_missing_plots, prepare_all
from nnopt.config.plugin_source import without_plugins
from nnopt.config.point import Point
from nnopt.errors import ConfigError, ResumeError
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import CHECKPOINTS
from nnopt.io.paths import given_path
from nnopt.recipe.prepare import prepare
from nnopt.recipe.thread_notes import note_threads
from nnopt.results.cores import ProcessorTimes, processor_times
from nnopt.schema import OptunaConfig
from nnopt.sweeps.execute import run_sweep
from nnopt.sweeps.launchers.make import make_launcher
from nnopt.sweeps.manifest import Move, Sweep, read_sweep
from nnopt.sweeps.point_folder import ENDED, FAILED, PointState, note_unusable_summary, read_state
from nnopt.sweeps.resume_changes import apply_overrides
from nnopt.sweeps.resume_checks import (
    check_folder,
    check_launcher,
    note_differences,
    note_missing_cache,
    remove_leftovers,
    with_current_plugins,
    with_safe_data,
)
from nnopt.terminal import console
from nnopt.terminal.interruption import stop_on_signals


def main(arguments: list[str]) -> int:
    """Resume a run, a sweep or a search."""
    start = processor_times()
    options = resume_parser().parse_intermixed_args(arguments)
    stop_on_signals()
    folder = given_path(options.directory, "DIR").resolve()  # the link outputs/latest may change
    options.overrides = without_plugins(options.overrides)
    if is_single_run(folder):
        return resume_run(folder, options)
    if options.restart:
        raise ConfigError(f"--restart applies to a single run, which {shown(folder)} is not")
    sweep = with_current_plugins(read_sweep(folder))
    check_folder(sweep)
    remove_leftovers(sweep)
    given = frozenset(override.partition("=")[0] for override in options.overrides)
    if isinstance(sweep.sweeper, OptunaConfig):
        return _resume_search(sweep, options, given, start)
    if options.overrides:
        sweep = apply_overrides(sweep, options.overrides)
    check_launcher(sweep.launcher, given, folder)
    points = tuple(with_safe_data(point, given, folder) for point in sweep.points)
    note_missing_cache(sweep.points, points)
    sweep = replace(sweep, points=points)
    launcher = make_launcher(sweep.launcher)
    states = {point.id: read_state(folder / point.id) for point in sweep.points}
    finished = set(ENDED) - set(FAILED if options.retry_failed else ())
    to_run = [point for point in sweep.points if states[point.id].status not in finished]
    threads = prepare_all(to_run, partial(_has_checkpoint, folder))
    check_same_files(states, to_run, sweep.move)
    note_differences(states.values(), threads, sweep.launcher)
    for point in to_run:
        note_unusable_summary(folder / point.id)
    done = sum(state.status == "done" for state in states.values())
    console.note(f"{done} of {len(states)} points are done; to be run: {len(to_run)}")
    _note_checkpoints(folder / x.id for x in to_run if states[x.id].status != "diverged")
    note_threads(threads, len(to_run), sweep.launcher, start)
    return run_sweep(
        sweep, launcher, retry_failed=options.retry_failed, fail_fast=options.fail_fast
    )


def check_same_files(states: Mapping[str, PointState], to_run: Sequence[Point], move: Move) -> None:
    """Raise ResumeError if a data file has changed since the finished points read it."""
    read: dict[str, str] = {}  # file -> SHA-256 of the file
    for state in states.values():
        if state.status == "done" and (data := state.summary.get("data")):
            read |= {move.path(file): x for file, x in data.get("sources", {}).items()}
    datasets = {json.dumps(point.container["dataset"]): point for point in to_run}
    for point in datasets.values():
        sources = prepare(point.config).dataset.sources
        if others := [file for file, x in sources.items() if read.get(file, x) != x]:
            raise ResumeError(
                f"{', '.join(others)}: changed since the finished points read the data, so old and "
                "new results could not be compared; restore the data, or start a new sweep"
            )


def _note_checkpoints(folders: Iterable[Path]) -> None:
    """Print how many points continue from a checkpoint. ``folders`` are the points' folders."""
    count = sum(any((folder / name).is_file() for name in CHECKPOINTS) for folder in folders)
    if count:
        console.note(f"points that continue from a checkpoint: {count}")


def _resume_search(
    sweep: Sweep, options: Namespace, given: frozenset[str], start: ProcessorTimes | None
) -> int:
    if options.retry_failed:
        raise ConfigError(
            "--retry-failed does not apply to a search, whose sampler has used the failed trials; "
            "run more trials with hydra.sweeper.trials=N"
        )
    from nnopt.sweeps.search.execute import plan_resumed_search, run_search  # imports Optuna

    plan, sweep = plan_resumed_search(sweep, options.overrides)
    check_launcher(plan.launcher, given, sweep.folder)
    safe = partial(with_safe_data, given=given, sweep_folder=sweep.folder)
    points = tuple(map(safe, plan.points))
    note_missing_cache(plan.points, points)
    plan = replace(plan, points=points)
    launcher = make_launcher(plan.launcher)
    threads = prepare_all(plan.points, partial(_has_checkpoint, sweep.folder))
    states = {point.id: read_state(sweep.folder / point.id) for point in sweep.points}
    assert plan.space is not None
    assert isinstance(sweep.sweeper, OptunaConfig)
    planned = plan.space.points_of(sweep.sweeper)
    if len(sweep.points) < planned or any(x.status not in ENDED for x in states.values()):
        check_same_files(states, plan.points, sweep.move)
        note_differences(states.values(), threads, plan.launcher)
    _note_checkpoints(sweep.folder / x for x, state in states.items() if state.status not in ENDED)
    note_missing_plots(plan.points, planned)
    note_threads(threads, planned, plan.launcher, start)
    return run_search(plan, sweep, launcher, fail_fast=options.fail_fast, adapt=safe)


def _has_checkpoint(sweep: Path, point: Point) -> bool:
    return any((sweep / point.id / name).exists() for name in CHECKPOINTS)
