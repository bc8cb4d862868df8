"""Tab completion: nnopt completes commands and options, and Hydra completes groups and keys."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from nnopt.cli.main import VERBS
from nnopt.results.metrics import METRICS

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("line", ["nnopt ", "nnopt r", "nnopt desc"])
def test_completion_lists_commands(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert nnopt("-sc", "query=bash") == 0
    assert capsys.readouterr().out.split() == [*VERBS, "version"]


def test_completion_of_data_command_lists_its_subcommands(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", "nnopt data ")
    assert nnopt("-sc", "query=bash") == 0
    assert capsys.readouterr().out.split() == ["list", "fetch", "verify", "show"]


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("list", set()),
        ("fetch", {"mnist", "fashion_mnist", "cifar10", "cinic10"}),
        ("show", {"mnist", "cifar10", "csv", "spiral", "moons"}),
    ],
)
def test_completion_of_data_command_lists_names_of_datasets(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch, verb: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", f"nnopt data {verb} ")
    assert nnopt("-sc", "query=bash") == 0
    actual = set(capsys.readouterr().out.split())
    assert expected <= actual if verb == "show" else expected == actual


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nnopt compare ", set()),  # the shell completes names of folders
        ("nnopt compare outputs --format ", {"table", "csv", "json", "md", "latex", "html"}),
        ("nnopt compare outputs --estimate ", {"mean", "iqm"}),
        ("nnopt compare outputs --metric test_a", {*METRICS}),
        ("nnopt report outputs --metric ", {*METRICS}),
        ("nnopt report outputs -", {"-h", "--help", "--metric", "--out"}),
        (
            "nnopt resume outputs/latest -",
            {"-h", "--help", "--restart", "--retry-failed", "--fail-fast"},
        ),
        ("nnopt diff one other --weights ", {"best", "last"}),
        ("nnopt evaluate one --part ", {"train", "validation", "test"}),
        ("nnopt evaluate one --format ", {"table", "json"}),
        ("nnopt predict one two --weights ", {"best", "last"}),
        ("nnopt predict one two -", {"-h", "--help", "--out", "--weights", "--resize"}),
        ("nnopt diff one other -", {"-h", "--help", "--weights", "--out"}),
        ("nnopt compare outputs --b", {"--baseline", "--where", "--metric", "--allow-mixed-data"}),
    ],
)
def test_completion_lists_options(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert nnopt("-sc", "query=bash") == 0
    actual = set(capsys.readouterr().out.split())
    assert expected <= actual if "--b" in line else expected == actual


def test_completion_of_version_command_is_empty(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", "nnopt version ")
    assert nnopt("-sc", "query=bash") == 0
    assert capsys.readouterr().out.split() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nnopt run optimizer=adam", {"optimizer=adam", "optimizer=adamw"}),
        ("nnopt run debug=", {"debug=overfit_batch", "debug=tiny"}),
        ("nnopt lr-find optimizer=adag", {"optimizer=adagrad"}),
        ("nnopt data show mnist regularizer=augm", {"regularizer=augmentation"}),
        ("nnopt describe optimizer.", {"optimizer.lr=", "optimizer.momentum=", "optimizer.name="}),
    ],
)
def test_completion_lists_groups_and_keys(
    start_nnopt: Start, monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    process = start_nnopt("-sc", "query=bash")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert set(out.split()) == expected


@pytest.mark.slow
def test_install_option_of_completion_prints_shell_script(start_nnopt: Start) -> None:
    process = start_nnopt("-sc", "install=bash")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "complete " in out
    assert "nnopt" in out
