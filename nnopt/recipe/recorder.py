"""The files and the console output of one run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nnopt.config.point import Point, to_yaml
from nnopt.errors import NnoptError, OutputError, PrunedError, TimeLimitError
from nnopt.io.atomic_files import write_text
from nnopt.io.own_files import (
    CHECKPOINTS,
    CLASSES,
    CONFUSION,
    MODEL,
    PREDICTIONS,
    LogFile,
    remove_files,
)
from nnopt.results import environment
from nnopt.results.checkpoint_file import Checkpoint, Content
from nnopt.results.collect import settings_of
from nnopt.results.event_file import FILE_NAME, EventFile
from nnopt.results.metrics import AFTER_TRAINING, METRICS
from nnopt.results.metrics_file import EpochRow, LayerRow, MetricsFile
from nnopt.results.summary import file_checksums, write_summary
from nnopt.terminal.console import note
from nnopt.terminal.interruption import message_of, postpone_interruptions
from nnopt.terminal.live_display import TrainingProgress
from nnopt.training.loop import Loop
from nnopt.training.state import TrainingState

log = logging.getLogger("nnopt")

OF_TEST = (CLASSES, CONFUSION, PREDICTIONS)
"""Files that are written after training. A resumed training removes those of an earlier end."""

KEPT = (
    *(name for name in METRICS if name not in AFTER_TRAINING),
    *("started", "data", "interruptions", "checkpoint_seconds"),
)
"""Keys of a summary whose values a resumed run takes from its checkpoint."""

WITHOUT_CHECKPOINT = ("done", "pruned", "diverged")
"""Statuses after which a run does not continue, so that its checkpoints are removed."""

AfterEpoch = Callable[[EpochRow, bool], None]
"""Callback after each epoch.

It receives the row of the epoch, and whether the weights after this epoch are the best so far. If
it raises an exception, the training ends: the files remain, and the summary contains the reason.
"""


class RunRecorder:
    """Writer of the files of one run. It also prints the run's progress.

    Args:
        point: The configuration.
        directory: The folder.
        after_epoch: The functions to call after each epoch.
        quiet: Whether nothing is printed.
        resumed: The checkpoint from which the run continues, or None.

    Attributes:
        summary: The values that ``summary.json`` will contain.
        layer_rows: The rows that are already in ``layers.csv``.
    """

    def __init__(
        self,
        point: Point,
        directory: Path,
        after_epoch: Sequence[AfterEpoch],
        quiet: bool,
        resumed: Checkpoint | None = None,
    ) -> None:
        self.directory = directory
        self.summary = initial_summary(point)
        self.layer_rows: list[LayerRow] = []
        if resumed is not None:
            self.layer_rows += resumed.layers
            found = {key: resumed.summary.get(key) for key in KEPT}
            self.summary |= {key: value for key, value in found.items() if value is not None}
            self.summary["interruptions"] += 1
        self._has_started = False
        self._started = time.perf_counter() - (self.summary["total_seconds"] or 0)
        self._training_started = math.nan
        self._is_resumed = resumed is not None
        self._point = point
        self._after_epoch = tuple(after_epoch)
        self._quiet = quiet
        self._events: EventFile | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write ``run.log`` during the run, and ``summary.json`` at its end.

        If an exception ends the run, it is recorded as status and error, and raised again. If this
        happens in a resumed run before the training, the earlier ``summary.json`` stays.
        """
        summary = self.summary
        with _logging_to(self.directory / "run.log"):
            overrides = " ".join(self._point.overrides) or "none"
            log.info("point %s, overrides: %s", self._point.id, overrides)
            try:
                if not self._is_resumed:
                    self.start()
                yield
                summary["status"] = "done"
            except BaseException as error:
                summary["status"], summary["error"] = _status_and_message(error)
                if not isinstance(error, PrunedError):
                    log.error("the run ended early", exc_info=error)
                raise
            finally:
                summary["finished"] = environment.now()
                self._update_seconds()
                with postpone_interruptions():
                    self._finish()

    def start(self) -> None:
        """Write ``config.yaml``, and the first ``summary.json``, which ``nnopt resume`` needs.

        A new point of a sweep needs no summary yet, because ``sweep.json`` has its configuration.
        """
        self._has_started = True
        if self._is_resumed or not self._quiet:
            write_summary(self.directory, self.summary)
        write_text(self.directory / "config.yaml", to_yaml(self._point.container))

    def start_events(self) -> None:
        """Start a TensorBoard event file. Raises OutputError if it cannot be written."""
        remove_files(self.directory, [FILE_NAME])
        settings = settings_of(dict(self._point.container), self._point.overrides)
        self._events = EventFile(self.directory, self._point.id, settings)

    @contextmanager
    def training(self, loop: Loop, with_layers: bool) -> Iterator[None]:
        """Keep the tables and the progress display open while a network is trained.

        If the training is resumed, the tables begin with its earlier rows. On exit, the results of
        the training are added to the summary. Even after an interruption, ``metrics.csv`` contains
        the row of every finished epoch.
        """
        mode = "none" if self._quiet else self._point.config.progress
        progress = TrainingProgress(loop.length.epochs, loop.length.steps_per_epoch, mode)
        self._training_started = time.perf_counter() - (self.summary["train_seconds"] or 0)
        history = list(loop.training.history)
        remove_files(self.directory, ["metrics.csv", "layers.csv", MODEL, *OF_TEST])
        try:
            with ExitStack() as stack:
                metrics = MetricsFile(self.directory / "metrics.csv", history)
                self._metrics = stack.enter_context(metrics)
                if with_layers:
                    layers = MetricsFile(self.directory / "layers.csv", self.layer_rows, LayerRow)
                    self._layers = stack.enter_context(layers)
                self._progress = stack.enter_context(progress)
                for row in history:
                    self._progress.add_epoch(row)
                    if self._events is not None:
                        self._events.epoch(row)
                loop.report_step = progress.step
                try:
                    yield
                except (KeyboardInterrupt, SystemExit, TimeLimitError):
                    self._metrics.complete(loop.training.history)
                    raise
        finally:
            self._update_seconds()
            self._training_started = math.nan
            self.summary |= _training_summary(loop.training)
            self.summary |= _target_summary(loop)

    def checkpoint(self, training: Content) -> Checkpoint:
        """Return a checkpoint with the state of the training and the results so far."""
        self._update_seconds()
        return Checkpoint(training, self.summary, self.layer_rows)

    def write_row(self, row: EpochRow) -> None:
        """Append the row of an epoch to ``metrics.csv``."""
        self._metrics.append(row)

    def write_layers(self, rows: Sequence[LayerRow]) -> None:
        """Append the rows of one epoch to ``layers.csv``."""
        self._layers.append(*rows)
        self.layer_rows += rows

    def report_epoch(self, row: EpochRow, is_best: bool) -> None:
        """Print and log an epoch after its rows are written, and call the callbacks."""
        self._progress.epoch(row, is_best)
        log.info("epoch %d: %s", row.epoch, row)
        if self._events is not None:
            self._events.epoch(row)
        for callback in self._after_epoch:
            callback(row, is_best)

    def warn(self, message: str) -> None:
        """Write a warning to the log and to the console."""
        log.warning(message)
        if not self._quiet:
            note(f"note: {message}")

    def _update_seconds(self) -> None:
        now = time.perf_counter()
        self.summary["total_seconds"] = now - self._started
        if not math.isnan(self._training_started):
            self.summary["train_seconds"] = now - self._training_started

    def _finish(self) -> None:
        """Write the summary, remove the checkpoints of an ended run, and close the event file.

        If the summary cannot be written, OutputError is raised only after a successful run.
        """
        summary = self.summary
        summary["peak_memory_mb"] = environment.peak_memory_mb()
        if summary["machine"].get("accelerator"):  # known only after the network is built
            device = self._point.config.backend.device
            summary["peak_device_memory_mb"] = environment.peak_device_memory_mb(device)
        with suppress(OSError):
            summary["files"] = file_checksums(self.directory, ("metrics.csv",))
        try:
            if self._has_started:
                write_summary(self.directory, summary)
        except OutputError:
            if summary["status"] == "done":
                raise
        keeps = self._point.config.checkpoint.keep and summary["status"] == "done"
        if summary["status"] in WITHOUT_CHECKPOINT and not keeps:
            with suppress(OutputError):
                remove_files(self.directory, CHECKPOINTS)
        if self._events is not None:
            self._events.close(summary)
        log.info("status: %s, %.2f s in all", summary["status"], summary["total_seconds"])


def initial_summary(point: Point) -> dict[str, Any]:
    """Return the summary of a run at its start. It has the keys that all summaries have."""
    return {
        "status": "running",
        **dict.fromkeys(("error", *METRICS)),
        "started": environment.now(),
        "finished": None,
        "interruptions": 0,
        "checkpoint_seconds": 0.0,
        "id": point.id,
        "name": point.config.name,
        "seed": point.config.seed,
        "overrides": list(point.overrides),
        "data": None,
        "steps_per_epoch": None,
        "pruning": None,
        "versions": environment.versions(),
        "git": environment.code_state(),
        "machine": environment.machine(),
        "threads": None,
        "files": {},
        "config": point.container,
    }


def _training_summary(training: TrainingState) -> dict[str, Any]:
    last = training.history[-1] if training.history else None
    return {
        "epochs": len(training.history),
        "steps": last.step if last else 0,
        "stopped_early": training.stopped_early,
        "best_epoch": training.best_epoch,
        "best_validation_loss": training.best_validation_loss,
        "best_validation_accuracy": training.best_validation_accuracy,
        "final_train_loss": last.train_loss if last else None,
        "final_train_accuracy": last.train_accuracy if last else None,
    }


def _target_summary(loop: Loop) -> dict[str, Any]:
    target = loop.training.target
    epochs = None if target.step is None else target.step / loop.length.steps_per_epoch
    return {
        "target_reached": target.is_reached,
        "steps_to_target": target.step,
        "epochs_to_target": epochs,
        "seconds_to_target": target.seconds,
    }


def _status_and_message(error: BaseException) -> tuple[str, str]:
    if isinstance(error, NnoptError | TimeLimitError):
        return error.status, str(error)
    if isinstance(error, Exception):
        return "failed", f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "interrupted", message_of(error)
    return "interrupted", "interrupted"  # a signal arrived while a context was entered or left


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write the log messages of nnopt, with tracebacks, to a file."""
    handler = LogFile(path)
    previous = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.level, log.propagate = previous
