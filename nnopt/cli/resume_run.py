"""``nnopt resume RUN``: continue a single run from its checkpoint, or train it longer."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnopt.cli.run import prepare_all, run_and_report
from nnopt.config.hydra import composing, override_text, parse_overrides
from nnopt.config.point import Point, point_id
from nnopt.config.validate import read_config
from nnopt.errors import ConfigError, LengthError, ResumeError, join_problems
from nnopt.io.atomic_files import shown
from nnopt.io.locks import LOCK, hold
from nnopt.io.own_files import (
    PLOTS,
    RUN_FILES,
    irregular_entries,
    remove_run,
    remove_temporary_files,
)
from nnopt.recipe.checkpoints import DATA_FILES, LENGTH_KEYS, check_checkpoint, latest_checkpoint
from nnopt.results.checkpoint_file import Checkpoint
from nnopt.results.summary import UnusableSummaryError, read_summary
from nnopt.schema import SequentialConfig, draws_plots, renamed_key, with_added_keys
from nnopt.sweeps.resume_checks import differences, note_missing_cache, with_safe_data
from nnopt.terminal import console

CHANGEABLE = (
    *LENGTH_KEYS,
    "max_time",
    "checkpoint.interval",
    "checkpoint.keep",
    "progress",
    "plots",
    "evaluation.train",
    "evaluation.predictions",
    *DATA_FILES,
    "data.root",
    "data.cache",
    "data.download",
)
"""Keys that may change when a run is resumed."""


def resume_run(folder: Path, options: Namespace) -> int:
    """Continue the run in a folder, and return the exit code.

    If the run is finished and the overrides request no further results, only a note is printed.

    Raises:
        ConfigError: An override cannot be applied to a run.
        ResumeError: The run cannot be continued, or another process runs it.
    """
    if options.retry_failed or options.fail_fast:
        flag = "--retry-failed" if options.retry_failed else "--fail-fast"
        raise ConfigError(f"{flag} applies to a sweep, but {shown(folder)} is a single run")
    for problem in irregular_entries(folder, RUN_FILES | {LOCK, PLOTS}):
        raise ResumeError(f"{problem}, which nnopt never creates; remove it, or put a copy there")
    with hold(folder) as is_ours:
        if not is_ours:
            raise ResumeError(f"another process runs {shown(folder)}")
        remove_temporary_files(folder)
        remove_temporary_files(folder / PLOTS)
        stored = _stored_summary(folder)
        before = _point(folder, stored)
        point = _with_overrides(before, options.overrides)
        given = frozenset(override.partition("=")[0] for override in options.overrides)
        safe = with_safe_data(point, given, folder)
        note_missing_cache((point,), (safe,))
        safe = replace(point, config=safe.config)  # the files keep the stored configuration
        if not options.restart and _is_finished(stored, folder, _has_more_results(before, point)):
            return 0
        try:
            checkpoint = None if options.restart else latest_checkpoint(folder)
            if checkpoint is not None:
                check_checkpoint(checkpoint, safe)
                _note_differences(checkpoint, safe)
                console.note(f"the run continues after step {checkpoint.step}")
                return run_and_report(safe, folder, checkpoint)
        except LengthError:
            raise
        except ResumeError as error:
            raise ResumeError(f"{error}; --restart starts over") from error
        if stored["status"] == "done" and not options.restart:
            raise ResumeError(
                f"{shown(folder)} is finished, and it has no checkpoint: only a run that was "
                "started with checkpoint.keep=true can be trained longer or evaluated again; "
                "start a new run"
            )
        prepare_all([safe])
        reason = "" if options.restart else f"{console.short(folder)} has no checkpoint; "
        console.note(f"{reason}the run starts over")
        remove_run(folder)
        return run_and_report(safe, folder)


def _stored_summary(folder: Path) -> Mapping[str, Any]:
    """Return the values of ``summary.json`` or, if it is unusable, of the checkpoint's summary."""
    try:
        return read_summary(folder).values
    except UnusableSummaryError as error:
        checkpoint = latest_checkpoint(folder)
        if checkpoint is None:
            raise ResumeError(f"no run or sweep can be resumed: {error}") from error
        return checkpoint.summary


def _point(folder: Path, stored: Mapping[str, Any]) -> Point:
    """Return the point of a stored run. Raises ResumeError if its configuration is not valid."""
    container = with_added_keys(stored["config"])
    try:
        if container["plugins"]:
            from nnopt.config.plugins.load import stored_plugins  # not needed by most runs

            container = stored_plugins(container, folder)
        config = read_config(container)
    except ConfigError as error:
        reason = join_problems(error.problems, "; ")
        raise ResumeError(f"the configuration in {shown(folder)} is not valid: {reason}") from error
    return Point(point_id(config), config, container, tuple(stored["overrides"]))


def _with_overrides(point: Point, overrides: Sequence[str]) -> Point:
    """Apply overrides to a point. Raises ConfigError for a key that is not in CHANGEABLE."""
    if not overrides:
        return point
    with composing(None):
        parsed = parse_overrides(overrides)
    container = dict(point.container)
    problems = []
    for override in parsed:
        key = override.key_or_group
        group, _, name = key.rpartition(".")
        if message := renamed_key(key):
            problems.append(message)
        elif key not in CHANGEABLE or override.is_sweep_override() or override.is_delete():
            problems.append(
                f"{override_text(override)!r}: on resume of a run, only these keys can change, "
                f"to a single value: {', '.join(CHANGEABLE)}; start a new run"
            )
        elif group:
            container[group] = {**container[group], name: override.value()}
        else:
            container[key] = override.value()
    if problems:
        raise ConfigError(problems)
    config = read_config(container)
    changed = {override.key_or_group for override in parsed}
    kept = [x for x in point.overrides if x.lstrip("+").partition("=")[0] not in changed]
    texts = (*kept, *map(override_text, parsed))
    return replace(point, id=point_id(config), config=config, container=container, overrides=texts)


def _has_more_results(before: Point, point: Point) -> bool:
    """Return whether overrides changed the length of the training, the evaluations or the plots."""
    lengths = [[x.container[key] for key in LENGTH_KEYS] for x in (before, point)]
    others = [(x.config.evaluation, draws_plots(x.config)) for x in (before, point)]
    return lengths[0] != lengths[1] or others[0] != others[1]


def _is_finished(stored: Mapping[str, Any], folder: Path, has_more_results: bool) -> bool:
    """Return whether nothing is left to run; if so, print a note. A diverged run is an error."""
    status, name = stored["status"], console.short(folder)
    if status == "diverged":
        raise ResumeError(
            f"{name}: {stored['error']}; resuming the run would give the same result; start a "
            "new run with other values (--restart repeats the run unchanged)"
        )
    if status == "pruned" or (status == "done" and not has_more_results):
        console.note(f"{name} is finished ({status}); nothing is left to run")
        return True
    return False


def _note_differences(checkpoint: Checkpoint, point: Point) -> None:
    """Print a note if the run began with other versions, another processor or other threads."""
    threads = prepare_all([point], lambda point: True)
    launcher = SequentialConfig("sequential")
    if others := differences([checkpoint.summary], threads, launcher):
        console.note(
            f"note: the run began with {', '.join(others)}; its numbers may differ in the last "
            "digits from those of an uninterrupted run"
        )
