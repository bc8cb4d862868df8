"""Event files, read back by TensorBoard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from nnopt.errors import OutputError
from nnopt.results.event_file import FILE_NAME, TAGS, EventFile
from nnopt.results.metrics_file import EpochRow, read_metrics

Run = Callable[..., int]
SMALL = ["dataset.samples_per_class=20", "plots=false", "tensorboard=true"]
ROW = EpochRow(1, 20, 0.1, 1.0, 0.5, 1.25, 0.4, 0.0, 2.5, 0.125)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return a map from tag to the (step, value) of its events, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.scalars.Keys()}


def groups(folder: Path) -> list[Any]:
    """Return the rows of TensorBoard's HParams tab for all runs below a folder."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, str(folder))
    context = Context(TBContext(data_provider=provider, logdir=str(folder)))
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, include_metrics=True)
    request.allowed_statuses.extend(api_pb2.Status.values())
    return list(Handler(RequestContext(), context, "", request).run().session_groups)


def test_event_file_equals_metrics_csv(nnopt: Run, workplace: Path) -> None:
    assert nnopt("run", *SMALL, "epochs=4", "regularizer.l2=1e-3", "hydra.run.dir=one") == 0
    rows, actual = read_metrics(Path("one/metrics.csv")), scalars(Path("one"))
    assert len(rows) == 4
    for column, tag in TAGS.items():
        expected = [(row.epoch, float(np.float32(getattr(row, column)))) for row in rows]
        assert actual.pop(tag) == expected, tag
    summary_values = json.loads(Path("one/summary.json").read_text("utf-8"))
    assert actual.pop("loss/test") == [(4, float(np.float32(summary_values["test_loss"])))]
    assert actual.pop("accuracy/test") == [(4, float(np.float32(summary_values["test_accuracy"])))]
    assert not actual


def test_event_files_of_a_sweep_contain_the_settings(nnopt: Run, workplace: Path) -> None:
    swept = [
        "-m",
        "optimizer.lr=0.1,1e6",
        "regularizer.grad_clip=0",
        "architecture.hidden=[8],[64, 64]",
        "hydra.sweep.dir=all",
    ]
    others = ["epochs=6", "dataset.validation.source=none", "test_weights=last"]
    assert nnopt("run", *SMALL, *others, *swept) == 5
    rows = {}
    for group in groups(Path("all")):
        lr = group.hparams["optimizer.lr"].number_value
        rows[lr, group.hparams["architecture.hidden"].string_value] = group
        assert group.hparams["seed"].number_value == 0
        assert group.hparams["optimizer"].string_value == "momentum"
        assert group.hparams["regularizer.decay_norm_and_bias"].bool_value is False
        assert group.hparams["max_steps"].string_value == "null"
        assert not {"name", "plots", "progress", "tensorboard"} & set(group.hparams)
    assert set(rows) == {(lr, hidden) for lr in (0.1, 1e6) for hidden in ("[8]", "[64, 64]")}
    ends = set()
    for group in rows.values():
        tags = {value.name.tag for value in group.metric_values}
        (session,) = group.sessions
        ended = json.loads(Path("all", group.name, "summary.json").read_text("utf-8"))["status"]
        ends.add((ended, session.status))
        assert ("accuracy/test" in tags) == (ended == "done")
        assert "loss/train" in tags
        assert "loss/validation" not in tags
    assert ends == {("done", api_pb2.STATUS_SUCCESS), ("diverged", api_pb2.STATUS_FAILURE)}


def test_event_file_contains_each_epoch_immediately(tmp_path: Path) -> None:
    events = EventFile(tmp_path, "point", {"seed": 0})
    events.epoch(ROW)
    assert scalars(tmp_path)["loss/validation"] == [(1, 1.25)]
    (group,) = groups(tmp_path)
    assert group.name == "point"
    assert group.sessions[0].status == api_pb2.STATUS_UNKNOWN
    events.close({"status": "interrupted", "test_loss": None, "test_accuracy": None, "epochs": 1})
    assert groups(tmp_path)[0].sessions[0].status == api_pb2.STATUS_FAILURE


def test_event_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"")
    with pytest.raises(OutputError, match=FILE_NAME):
        EventFile(tmp_path, "point", {})


def test_event_file_on_full_disk_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", lambda self, mode: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(OutputError, match="the disk, or its quota, has no room for"):
        EventFile(tmp_path, "point", {"seed": 0})


def test_event_file_without_tensorboard_is_refused_before_the_run(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nnopt.recipe.prepare.find_spec", lambda name: None)
    assert nnopt("run", *SMALL, "-m", "seed=0,1") == 2
    assert capsys.readouterr().err == (
        "nnopt: error: tensorboard = True needs the package tensorboard, which is not installed; "
        "run: pip install 'nnopt[tensorboard]', or set tensorboard=false\n"
    )
    assert not Path("outputs").exists()


def test_event_file_imports_neither_pytorch_nor_tensorflow(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from nnopt.results.event_file import EventFile
events = EventFile(Path("."), "point", {"seed": 0})
events.close({"status": "done", "test_loss": 0.5, "test_accuracy": 0.5, "epochs": 1})
assert "tensorboard" in sys.modules
assert not {"torch", "tensorflow"} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=environment)
