"""The checkpoints of a run: when they are written, and from which one a run continues."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnopt.config.point import Point
from nnopt.config.validate import read_config
from nnopt.errors import (
    ConfigError,
    LengthError,
    OutputError,
    ResumeError,
    TimeLimitError,
    join_problems,
)
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import CHECKPOINTS, remove_files
from nnopt.io.safe_text import shortened
from nnopt.pruning.schedule import prunings
from nnopt.recipe.prepare import prepare
from nnopt.recipe.recorder import RunRecorder
from nnopt.results.checkpoint_file import Checkpoint, Content, read_checkpoint, write_checkpoint
from nnopt.results.summary import MAX_QUOTED_CHARACTERS
from nnopt.schema import (
    WITHOUT_EFFECT,
    Config,
    changed_rule,
    learning_rate,
    with_added_keys,
    with_new_keys,
)
from nnopt.schema.values import flatten
from nnopt.terminal.interruption import postpone_interruptions
from nnopt.training.averaging import first_swa_epoch
from nnopt.training.length import Length
from nnopt.training.loop import Loop
from nnopt.training.schedules import build_schedule

log = logging.getLogger("nnopt")

MAX_COST = 0.01
"""Largest fraction of a run's time for checkpoints. A slow disk makes them less frequent."""

DATA_FILES = ("dataset.train", "dataset.test", "initializer.from")
"""Keys of paths to data and weights. On resume, the contents are compared instead of the paths."""

LENGTH_KEYS = ("epochs", "max_steps")
"""Keys that may differ when a run is resumed, to make the training longer."""


class CheckpointWriter:
    """Writes the checkpoints of one run, between two steps of its training.

    Args:
        config: The configuration of the run.
        recorder: The recorder of the run, whose results are part of each checkpoint.
        started: The value of ``time.monotonic()`` at the start of the run, for ``max_time``.
        resumed: The checkpoint from which the run continues. The next one does not overwrite it.
    """

    def __init__(
        self, config: Config, recorder: RunRecorder, started: float, resumed: Checkpoint | None
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._deadline = started + (config.max_time or math.inf)
        self._paths = [recorder.directory / name for name in CHECKPOINTS]
        if resumed is not None and resumed.path == self._paths[0]:
            self._paths.reverse()
        self._final: Content | None = None

    @contextmanager
    def during(self, loop: Loop) -> Iterator[None]:
        """Write checkpoints while a loop runs, and one more if an interruption ends the loop.

        Within the context, an interruption waits until the current step, or the current batch of an
        evaluation, is complete.
        """
        interval = self._config.checkpoint.interval
        self._loop, self._first_step = loop, loop.training.step
        self._saved_step = self._first_step
        self._due = time.monotonic() + (math.inf if interval is None else interval)
        loop.between_steps, loop.between_batches = self._between_steps, self._raise_pending
        with postpone_interruptions() as self._postponed:
            try:
                yield
            except (KeyboardInterrupt, SystemExit, TimeLimitError):
                if self._postponed.was_raised:  # else the interruption was raised within a step
                    self._try_to_write(None)
                raise
            if interval is not None:
                self._final = loop.save()
            if self._config.checkpoint.keep:
                self._write(self._final)
                remove_files(self._recorder.directory, [self._paths[0].name])  # the older file

    @contextmanager
    def after(self) -> Iterator[None]:
        """Write a checkpoint if the training is complete and an interruption ends the context."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, TimeLimitError):
            if self._final is not None and not self._config.checkpoint.keep:
                self._try_to_write(self._final)
            raise

    def check_time(self) -> None:
        """Raise TimeLimitError after ``max_time`` if a checkpoint can preserve the training.

        A process that has not trained a step is exempt, so that a resumed run ends.
        """
        if self._final is not None and self._is_over_time():
            raise self._time_limit()

    def _between_steps(self) -> None:
        self._raise_pending()
        if time.monotonic() < self._due:
            return
        training = self._loop.training
        is_new_epoch = not training.epoch.sizes and training.step > self._saved_step
        if self._config.checkpoint.interval or is_new_epoch:  # interval 0: only between epochs
            self._write(None)

    def _raise_pending(self) -> None:
        if self._is_over_time():
            self._postponed.request(self._time_limit())
        self._postponed.raise_pending()

    def _is_over_time(self) -> bool:
        has_advanced = self._loop.training.step > self._first_step
        return has_advanced and time.monotonic() >= self._deadline

    def _time_limit(self) -> TimeLimitError:
        assert self._config.max_time is not None
        return TimeLimitError(self._config.max_time, "max_time")

    def _write(self, content: Content | None) -> None:
        """Write the given or the current state to the file with the older checkpoint."""
        started = time.monotonic()
        content = content or self._loop.save()
        write_checkpoint(self._paths[0], self._recorder.checkpoint(content))
        self._paths.reverse()
        self._saved_step, ended = self._loop.training.step, time.monotonic()
        self._recorder.summary["checkpoint_seconds"] += ended - started
        if interval := self._config.checkpoint.interval:
            self._due = ended + max(interval, (ended - started) / MAX_COST)

    def _try_to_write(self, content: Content | None) -> None:
        """Write a checkpoint, unless checkpoints are turned off. Report a failure as a warning."""
        if self._config.checkpoint.interval is None:
            return
        try:
            self._write(content)
        except OutputError as error:
            self._recorder.warn(str(error))


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """Return a run's checkpoint with the most steps, or None if there is no file.

    Damaged files are logged. Raises ResumeError if no file is valid.
    """
    found, problems = [], []
    for path in (directory / name for name in CHECKPOINTS):
        if path.exists():
            try:
                found.append(read_checkpoint(path))
            except ResumeError as error:
                problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        log.warning("%s; the other checkpoint is used", problem)
    return max(found, key=lambda x: (x.step, len(x.training.values["history"])), default=None)


def usable_checkpoint(point: Point, directory: Path) -> Checkpoint | None:
    """Return the checkpoint from which a point continues, or None if it has to start over.

    The reason why existing checkpoints cannot be used is logged.
    """
    try:
        checkpoint = latest_checkpoint(directory)
        if checkpoint is not None:
            check_checkpoint(checkpoint, point)
    except ResumeError as error:
        log.warning("%s; the point starts over", error)
        return None
    return checkpoint


def check_checkpoint(checkpoint: Checkpoint, point: Point) -> None:
    """Raise ResumeError unless a checkpoint fits the configuration and the data of a point.

    A longer training is allowed if its length changes none of the steps so far.
    """
    where, summary = shown(checkpoint.path), checkpoint.summary
    rate = summary.get("suggested_lr")
    if not (rate is None or 0 < rate < math.inf):
        raise ResumeError(f"{where} is not a checkpoint of nnopt: suggested_lr is {rate}")
    before = with_added_keys(with_new_keys(summary["config"]))
    if message := changed_rule(before):
        raise ResumeError(f"{where} cannot be continued: {message}")
    if changed := list(_changed_keys(before, point.container)):
        raise ResumeError(
            f"{where} belongs to a run with another configuration: {join_problems(changed, ', ')}"
        )
    try:
        old = read_config(before)
    except ConfigError as error:
        reason = join_problems(error.problems, "; ")
        raise ResumeError(f"{where} is not a checkpoint of nnopt: {reason}") from error
    dataset = prepare(point.config).dataset
    # The paths may differ, so the contents are compared in the order in which they are read.
    digests = list(((summary["data"] or {}).get("sources") or {}).values())
    if list(dataset.sources.values()) != digests:
        changed = [x for x, digest in dataset.sources.items() if digest not in digests]
        files = ", ".join(changed or dataset.sources)
        raise ResumeError(f"the data have changed since the run read them: {files}; restore them")
    lengths = [Length.of(x, len(dataset.train)) for x in (old, point.config)]
    if lengths[0] != lengths[1]:
        for problem in _length_problems(checkpoint, point.config, *lengths):
            raise LengthError(
                f"the length of the training cannot change, because {problem}; start a new run"
            )


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text for each key that differs and can change the steps so far."""
    old, new = dict(flatten(before)), dict(flatten(now))
    # Names of choices come first, because keys may differ only because the choice differs.
    for key in sorted(old.keys() | new.keys(), key=lambda x: (not x.endswith(".name"), x)):
        group = key.partition(".")[0]
        if group in (*WITHOUT_EFFECT, *LENGTH_KEYS) or key in DATA_FILES:
            continue
        if old.get(key) == new.get(key):
            continue
        values = [shortened(repr(x.get(key)), MAX_QUOTED_CHARACTERS) for x in (old, new)]
        yield f"{key} was {values[0]} and is {values[1]}"


def _length_problems(
    checkpoint: Checkpoint, config: Config, old: Length, new: Length
) -> Iterator[str]:
    """Yield the reasons why a training with an old length cannot continue with a new length."""
    done, training = checkpoint.step, checkpoint.training.values
    if new.steps < done:
        yield f"{done} steps are already done, more than the {new.steps} of the new length"
    if training["numbers"].get("stopped_early"):
        yield "early stopping has ended the training"
    if old.steps == done and done % old.steps_per_epoch:
        yield f"max_steps = {old.steps} has ended the last epoch early"
    rate = checkpoint.summary.get("suggested_lr") or learning_rate(config)
    before, after = (
        build_schedule(config.schedule, rate, x.steps_per_epoch, x.steps) for x in (old, new)
    )
    for step in range(done):
        if before(step) != after(step):
            yield (
                f"schedule.name = {config.schedule.name!r} depends on it: the learning rate of "
                f"step {step + 1} is {before(step):g} with {old.steps} steps in all, but "
                f"{after(step):g} with {new.steps}"
            )
            return
    all_prunings = [prunings(config.pruning, x.epochs, x.steps_per_epoch) for x in (old, new)]
    so_far = [[pruning for pruning in each if pruning.step <= done] for each in all_prunings]
    are_final = [len(some) == len(each) for some, each in zip(so_far, all_prunings, strict=True)]
    if so_far[0] != so_far[1] or are_final[0] is not are_final[1]:
        steps = [", ".join(str(pruning.step) for pruning in each[:9]) for each in all_prunings]
        yield (
            f"pruning.name = {config.pruning.name!r} depends on it: with {old.epochs} epochs, "
            f"the network is pruned after step {steps[0]}, but with {new.epochs} after {steps[1]}"
        )
    if swa := config.regularizer.swa_start:
        starts = [first_swa_epoch(swa, x.epochs) for x in (old, new)]
        has_average = training["averaging"].get("epochs") != 0
        if starts[0] != starts[1] and (has_average or min(starts) <= len(training["history"])):
            yield (
                f"regularizer.swa_start = {swa:g} depends on it: the average begins with epoch "
                f"{starts[0]} of {old.epochs} epochs, but with epoch {starts[1]} of {new.epochs}"
            )
