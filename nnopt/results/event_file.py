"""The metrics of a run in an event file, which TensorBoard shows while it grows.

Written with the package ``tensorboard`` alone: neither TensorFlow nor PyTorch takes part. Its own
EventFileWriter is passed over, since it names the host in the name of the file and hands the events
to a thread; the records are the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnopt.errors import OutputError
from nnopt.io.atomic_files import output_error
from nnopt.results.collect import Value, setting_text
from nnopt.results.metrics_file import EpochRow

NAME = "events.out.tfevents.nnopt"
"""TensorBoard reads files whose names hold ``tfevents``; a run is named by its folder."""

TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "lr": "learning_rate",
    "gradient_norm": "gradient_norm",
    "penalty": "penalty",
    "seconds": "seconds",
}
"""Column of ``metrics.csv`` -> tag. What stands before a slash is one section of TensorBoard's."""

TEST_TAGS = {"test_loss": "loss/test", "test_accuracy": "accuracy/test"}
"""Key of ``summary.json`` -> tag."""


class EventFile:
    """An event file of one run, in its folder: the scalars of each epoch, against the epoch, and
    the settings for the tab HParams, where the runs of a sweep are the rows of a table.

        events = EventFile(directory, identity, settings)
        events.epoch(row, best)    # after each
        events.close(summary)      # with what summary.json says

    Scalars are float32, as in all event files: seven digits. Each epoch reaches the file at once.
    Raises OutputError, also if the file exists already.
    """

    def __init__(self, directory: Path, identity: str, settings: Mapping[str, Value]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        self._path = directory / NAME
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise output_error("write", self._path, error) from error
        self._records = RecordWriter(self._file)
        hparams = {key: _hparam(value) for key, value in settings.items()}
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._add(hparams_pb(hparams, trial_id=identity), step=0)
        except OutputError:
            self._close_file()
            raise

    def epoch(self, row: EpochRow, best: bool) -> None:
        """Write one epoch; what it does not have, as without validation data, is left out."""
        values = {tag: getattr(row, column) for column, tag in TAGS.items()}
        self._add_scalars(values, row.epoch)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write how the run ended, the metrics of the test set at its last epoch, and close."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        try:
            self._add_scalars({tag: summary[key] for key, tag in TEST_TAGS.items()}, _last(summary))
            done = summary["status"] == "done"
            end = plugin_data_pb2.SessionEndInfo(
                status=api_pb2.STATUS_SUCCESS if done else api_pb2.STATUS_FAILURE,
                end_time_secs=time.time(),
            )
            told = plugin_data_pb2.HParamsPluginData(session_end_info=end)
            value = Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG,
                metadata=metadata.create_summary_metadata(told),
                tensor=metadata.NULL_TENSOR,
            )
            self._add(Summary(value=[value]), step=0)
        finally:
            self._close_file()

    def _close_file(self) -> None:
        with suppress(OSError):  # of what could not be written before, which has been told
            self._file.close()

    def _add_scalars(self, values: Mapping[str, float | None], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        there = [(tag, value) for tag, value in values.items() if value is not None]
        if there:
            scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in there]
            self._add(Summary(value=scalars), step)

    def _add(self, summary: Any, step: int) -> None:
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        data = event.SerializeToString()
        try:
            self._records.write(data)
            self._file.flush()
        except OSError as error:
            raise output_error("write", self._path, error, len(data)) from error


def _last(summary: Mapping[str, Any]) -> int:
    """The number of epochs that were finished; 0 if training never began."""
    return summary["epochs"] or 0


def _hparam(value: Value) -> bool | int | float | str:
    """A value of a type that TensorBoard has: null and lists as text, as on the command line."""
    return setting_text(value) if value is None or isinstance(value, tuple) else value
