"""A TensorBoard event file with the metrics of a run.

Only the package ``tensorboard`` is needed, neither TensorFlow nor PyTorch. TensorBoard's
EventFileWriter is not used, because it adds the host name to the file name and writes in a thread.
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

FILE_NAME = "events.out.tfevents.nnopt"
"""TensorBoard reads files whose names contain ``tfevents``, and names a run after its folder."""

TAGS = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "lr": "learning_rate",
    "gradient_norm": "gradient_norm",
    "penalty": "penalty",
    "sparsity": "sparsity",
    "seconds": "seconds",
}
"""Column of ``metrics.csv`` -> tag. TensorBoard groups tags by the part before the slash."""

TEST_TAGS = {"test_loss": "loss/test", "test_accuracy": "accuracy/test"}
"""Key of ``summary.json`` -> tag."""


class EventFile:
    """The event file of one run: scalars of each epoch, and settings for the HParams tab.

        events = EventFile(directory, identity, settings)
        events.epoch(row)          # after each epoch
        events.close(summary)      # with the values of summary.json

    ``identity`` is the name of the run in the HParams tab. Scalars are float32, as in all event
    files. Each epoch is written to the file immediately. The class and its methods raise
    OutputError if the file cannot be written; an existing file is not overwritten.
    """

    def __init__(self, directory: Path, identity: str, settings: Mapping[str, Value]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._path = directory / FILE_NAME
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise output_error("write", self._path, error) from error
        self._records = RecordWriter(self._file)
        hparams = {  # TensorBoard supports neither null nor lists
            key: setting_text(value) if value is None or isinstance(value, tuple) else value
            for key, value in settings.items()
        }
        try:
            self._write(file_version="brain.Event:2")
            self._write(step=0, summary=hparams_pb(hparams, trial_id=identity))
        except OutputError:
            self._close_file()
            raise

    def epoch(self, row: EpochRow) -> None:
        """Write the metrics of one epoch, except those that are None."""
        self._write_scalars({tag: getattr(row, name) for name, tag in TAGS.items()}, row.epoch)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write the test metrics, at the step of the last epoch, and the status. Close the file."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        try:
            metrics = {tag: summary[key] for key, tag in TEST_TAGS.items()}
            self._write_scalars(metrics, summary["epochs"] or 0)
            done = summary["status"] == "done"
            end = plugin_data_pb2.SessionEndInfo(
                status=api_pb2.STATUS_SUCCESS if done else api_pb2.STATUS_FAILURE,
                end_time_secs=time.time(),
            )
            content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
            value = Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG,
                metadata=metadata.create_summary_metadata(content),
                tensor=metadata.NULL_TENSOR,
            )
            self._write(step=0, summary=Summary(value=[value]))
        finally:
            self._close_file()

    def _close_file(self) -> None:
        with suppress(OSError):  # an earlier write error has been reported
            self._file.close()

    def _write_scalars(self, metrics: Mapping[str, float | None], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        known = {tag: value for tag, value in metrics.items() if value is not None}
        if known:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in known.items()]
            self._write(step=step, summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        data = Event(wall_time=time.time(), **content).SerializeToString()
        try:
            self._records.write(data)
            self._file.flush()
        except OSError as error:
            raise output_error("write", self._path, error, len(data)) from error
