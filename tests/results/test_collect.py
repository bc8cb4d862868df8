"""Search for finished, unfinished and damaged runs below a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nnopt.errors import ConfigError, DataError
from nnopt.results.collect import find_runs, read_run, setting_text
from nnopt.schema import WITHOUT_EFFECT

LeaveRun = Callable[..., Path]


def test_each_run_is_found_once_at_any_depth(tmp_path: Path, leave_run: LeaveRun) -> None:
    leave_run(tmp_path / "runs" / "b", seed=1)
    inner = leave_run(tmp_path / "sweeps" / "s" / "a", seed=2)
    leave_run(inner / "plots" / "not-a-run", seed=3)
    leave_run(tmp_path / ".trash" / "c", seed=4)
    os.symlink("runs/b", tmp_path / "latest")
    directories = [tmp_path, tmp_path / "latest", inner]
    assert [run.seed for run in find_runs(directories).runs] == [1, 2]
    assert [run.folder for run in find_runs([inner]).runs] == [inner]


def test_settings_and_metrics_of_a_run_are_read(tmp_path: Path, leave_run: LeaveRun) -> None:
    folder = leave_run(
        tmp_path / "a",
        5,
        {"optimizer": "adam", "architecture.hidden": (64, 32)},
        test_loss=None,
        epochs=3,
        overrides=["+regularizer=none", "optimizer.lr=0.1", "seed=5"],
        data={"name": "mnist", "sources": {"one": "ab", "two": "cd"}},
    )
    run = read_run(folder)
    assert run.seed == 5
    assert run.sources == {"ab", "cd"}
    assert run.metrics == {"test_accuracy": 0.5, "best_epoch": 7, "epochs": 3}
    assert run.settings["optimizer"] == "adam"
    assert run.settings["optimizer.beta1"] == 0.9
    assert run.settings["regularizer"] == "none"  # appears only in the overrides
    assert run.settings["regularizer.augmentation.crop"] == 0
    assert run.settings["architecture.hidden"] == (64, 32)
    assert "initializer" not in run.settings
    assert "optimizer.name" not in run.settings
    assert not {key.partition(".")[0] for key in run.settings} & set(WITHOUT_EFFECT)


def test_time_in_summary_has_priority_over_time_of_file(
    tmp_path: Path, leave_run: LeaveRun
) -> None:
    old = leave_run(tmp_path / "old", finished="2026-11-20T10:00:00+00:00")
    new = leave_run(tmp_path / "new", finished="2026-11-20T12:30:00+01:00")
    os.utime(new / "summary.json", (0, 0))  # the file of the newer run looks older
    assert read_run(new).ended - read_run(old).ended == 90 * 60
    silent = leave_run(tmp_path / "silent", finished=None)
    os.utime(silent / "summary.json", (7, 7))
    assert read_run(silent).ended == 7
    with pytest.raises(DataError, match="damaged"):
        read_run(leave_run(tmp_path / "bad", finished="yesterday"))


def test_unfinished_runs_are_listed_separately(tmp_path: Path, leave_run: LeaveRun) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.log").write_text("")
    leave_run(tmp_path / "running", status="running")
    leave_run(tmp_path / "z", status="diverged", error="it diverged")
    found = find_runs([tmp_path])
    assert [path.name for path in found.unfinished] == ["begun", "running"]
    assert [run.status for run in found.runs] == ["diverged"]


def test_pending_points_are_counted(tmp_path: Path, leave_run: LeaveRun) -> None:
    leave_run(tmp_path / "a")
    rows = "number,id,status,error\n1,a,done,\n2,b,pending,\n3,c,running,\n4,d,pending,\n"
    (tmp_path / "results.csv").write_text(rows)
    assert find_runs([tmp_path]).pending == 2
    (tmp_path / "results.csv").write_bytes(b"\xff\n\0")
    assert find_runs([tmp_path]).pending == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"status": "do',
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'"done"',
        b"[" * 100_000,
        b'{"status": "done", "seed": "0", "config": {}, "data": null}',
        b'{"status": "done", "seed": 0, "config": {}, "data": [], "error": null}',
        b'{"status": "done", "seed": 0, "config": {}, "data": null, "error": null, "overrides": 3}',
        b'{"status": "done", "seed": 0, "config": {}, "data": null, "x": 1' + b"0" * 400 + b"}",
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_damaged_summary_is_reported(tmp_path: Path, leave_run: LeaveRun, content: bytes) -> None:
    good, bad = leave_run(tmp_path / "a"), leave_run(tmp_path / "b")
    (bad / "summary.json").write_bytes(content)
    found = find_runs([tmp_path])
    assert [run.folder for run in found.runs] == [good]
    (problem,) = found.damaged
    assert str(bad / "summary.json") in problem
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        read_run(bad)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_run_with_non_finite_number_is_refused(
    tmp_path: Path, leave_run: LeaveRun, number: str
) -> None:
    folder = leave_run(tmp_path / "a", test_loss=0.25)
    text = (folder / "summary.json").read_text().replace("0.25", number)
    (folder / "summary.json").write_text(text)
    with pytest.raises(DataError, match="damaged"):
        read_run(folder)


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run in or below"):
        find_runs([tmp_path])
    with pytest.raises(ConfigError) as caught:
        find_runs([tmp_path / "one", tmp_path / "two"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (0.0, "0"),
        (1e-05, "1e-05"),
        (0.1, "0.1"),
        ("adam", "adam"),
        ((64, 32), "[64, 32]"),
    ],
)
def test_setting_text_has_the_syntax_of_overrides(value: object, text: str) -> None:
    assert setting_text(value) == text  # type: ignore[arg-type]


def test_settings_of_layers_have_the_syntax_of_overrides(
    tmp_path: Path, leave_run: LeaveRun
) -> None:
    folder = leave_run(tmp_path / "a")
    summary = json.loads((folder / "summary.json").read_text())
    summary["config"]["architecture"] = {"name": "layers", "layers": [{"dense": 32}, "tanh"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert setting_text(read_run(folder).settings["architecture.layers"]) == "[{dense: 32}, tanh]"


def test_settings_of_an_earlier_run_have_the_defaults_of_later_keys(
    tmp_path: Path, leave_run: LeaveRun
) -> None:
    """Otherwise, a run without the key and a run with another value would be one setting."""
    folder = leave_run(tmp_path / "a", changes={"optimizer": "adam"})
    summary = json.loads((folder / "summary.json").read_text())
    current = read_run(folder).settings
    del summary["config"]["optimizer"]["amsgrad"], summary["config"]["initializer"]["scale"]
    del summary["config"]["pruning"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert read_run(folder).settings == current
    assert (current["optimizer.amsgrad"], current["initializer.scale"]) == (False, 1)
