"""``nnopt lr-find``: overrides, files, output and exit codes."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnopt.cli.lr_find import command, read_overrides
from nnopt.config.compose import plan_one
from nnopt.training.lr_finder import BETA, LrRangeTest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = ("dataset.samples_per_class=40", "architecture.hidden=[8]")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()}


def test_lr_find_writes_files_and_prints_suggestion(
    nnopt: Run, capsys: Captured, workplace: Path
) -> None:
    assert nnopt("lr-find", *SMALL, "optimizer.lr=5", "name=mine", "seed=2") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    (folder,) = (workplace / "outputs" / "lr-find").iterdir()
    assert folder.name.endswith("_mine")
    assert (workplace / "outputs" / "latest").resolve() == folder
    names = {"config.yaml", "lr_find.csv", "lr_find.json", "lr_find.png"}
    assert {path.name for path in folder.iterdir()} == names

    with (folder / "lr_find.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "lr", "loss", "smoothed_loss"]
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    rates = np.geomspace(1e-5, 10, 300)[: len(rows)]
    np.testing.assert_array_equal([float(row["lr"]) for row in rows], rates)
    losses = [float(row["loss"]) for row in rows]
    for k in (1, 50, len(rows)):
        weights = BETA ** np.arange(k)[::-1]
        expected = np.average(losses[:k], weights=weights)
        assert float(rows[k - 1]["smoothed_loss"]) == pytest.approx(expected)

    outcome = json.loads((folder / "lr_find.json").read_text("utf-8"))
    assert outcome["steps"] == len(rows)
    assert outcome["sweep"] == {"min_lr": 1e-5, "max_lr": 10.0, "steps": 300}
    suggestion = outcome["suggestion"]
    assert suggestion == float(f"{suggestion:.2g}")
    lines = captured.out.splitlines()
    assert lines[0].split() == ["learning", "rate", "smoothed", "loss"]
    assert lines[2].split()[:2] == ["suggestion", f"{suggestion:g}"]
    arguments = shlex.split(lines[-1].removeprefix("continue with: "))
    assert arguments[:2] == ["nnopt", "run"]
    assert f"optimizer.lr={suggestion:g}" in arguments
    assert "optimizer.lr=5" not in arguments
    assert nnopt(*arguments[1:], "epochs=1", "plots=false") == 0


def test_lr_find_does_not_change_runs(nnopt: Run, workplace: Path) -> None:
    assert nnopt("run", *SMALL, "epochs=1", "plots=false") == 0
    (folder,) = (workplace / "outputs" / "runs").iterdir()
    before = contents(folder)
    assert nnopt("lr-find", *SMALL, "plots=false") == 0
    assert contents(folder) == before
    assert [path.name for path in (workplace / "outputs" / "runs").iterdir()] == [folder.name]


def test_lr_find_is_reproducible(nnopt: Run, workplace: Path) -> None:
    for name in ("a", "b"):
        assert nnopt("lr-find", *SMALL, "plots=false", f"hydra.run.dir={name}") == 0
    assert contents(workplace / "a") == contents(workplace / "b")
    assert not (workplace / "outputs").exists()


def test_lr_find_ignores_epochs(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    overrides = [*SMALL, "plots=false", "regularizer.swa_start=0.5"]
    short = ["epochs=1", "schedule.warmup_epochs=2"]
    assert nnopt("run", *overrides, *short) == 2
    stderr = capsys.readouterr().err
    assert "schedule.warmup_epochs = 2 epochs" in stderr
    assert "regularizer.swa_start = 0.5" in stderr
    for name, more in (("a", []), ("b", short)):
        assert nnopt("lr-find", *overrides, *more, f"hydra.run.dir={name}") == 0
    curves = [contents(workplace / name)["lr_find.csv"] for name in ("a", "b")]
    assert curves[0] == curves[1]


def test_lr_find_with_used_folder_is_refused(nnopt: Run, capsys: Captured, workplace: Path) -> None:
    (workplace / "used").mkdir()
    (workplace / "used" / "file").touch()
    assert nnopt("lr-find", *SMALL, "hydra.run.dir=used") == 6
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("range_", "advice"),
    [
        (("lr_find.min_lr=1e3", "lr_find.max_lr=1e6"), "lr_find.max_lr=1e+03"),
        (("lr_find.min_lr=1e-9", "lr_find.max_lr=1e-8"), "lr_find.max_lr=1e-05"),
    ],
    ids=["diverges", "flat"],
)
def test_lr_find_without_suggestion_fails(
    nnopt: Run, capsys: Captured, workplace: Path, range_: tuple[str, ...], advice: str
) -> None:
    assert nnopt("lr-find", *SMALL, *range_) == 5
    captured = capsys.readouterr()
    assert "continue with" not in captured.out
    assert captured.err.count("\n") == 1
    assert "no learning rate to suggest: " in captured.err
    assert "the loss " in captured.err
    assert advice in captured.err
    (folder,) = (workplace / "outputs" / "lr-find").iterdir()
    outcome = json.loads((folder / "lr_find.json").read_text("utf-8"))
    assert outcome["suggestion"] is None
    assert advice in outcome["advice"]
    assert (folder / "lr_find.png").exists()


WRONG = {
    "lr_find.min_rl=1": "unknown key 'lr_find.min_rl'; did you mean 'lr_find.min_lr'?",
    "lr_find.steps=19": "lr_find.steps = 19: needs to be at least 20",
    "lr_find.steps=1e3": "lr_find.steps = 1000.0: needs a whole number",
    "lr_find.steps=30,40": "lr_find.steps = '30,40': needs a whole number",
    "lr_find.min_lr=0": "lr_find.min_lr = 0.0: needs to be above 0 and at most 1000000",
    "lr_find.max_lr=nan": "lr_find.max_lr = 'nan': needs a number",
    "lr_find.min_lr=10": "lr_find.min_lr = 10: needs to be below lr_find.max_lr = 10",
    "lr_find.min_lr": "cannot read 'lr_find.min_lr'",
    "lr_find.min_lr=[": "cannot read 'lr_find.min_lr=['",
    "optimizer.lrr=1": "unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?",
    "seed=1,2": "'seed=1,2' has several values",
    "ablation=l2_spiral": "one configuration is needed, but",
}


@pytest.mark.parametrize("word", WRONG)
def test_lr_find_with_wrong_override_is_refused(
    nnopt: Run, capsys: Captured, workplace: Path, word: str
) -> None:
    assert nnopt("lr-find", word) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert WRONG[word] in captured.err
    assert list(workplace.iterdir()) == []


def test_lr_find_reports_all_problems(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("lr-find", "lr_find.min_rl=1", "epochs=0") == 2
    assert capsys.readouterr().err.count("nnopt: error: ") == 2


def test_lr_find_keys_are_refused_by_run_command(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("run", "lr_find.steps=30") == 2
    assert "unknown key 'lr_find.steps'" in capsys.readouterr().err


def test_lr_find_out_of_memory_suggests_smaller_batch(
    nnopt: Run, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("nnopt.cli.lr_find.suggest_learning_rate", fail)
    assert nnopt("lr-find", *SMALL, "batch_size=64") == 5
    assert "out of memory" in (stderr := capsys.readouterr().err)
    assert "batch_size=32" in stderr


def test_lr_find_overrides_are_read() -> None:
    plan, sweep = read_overrides(["seed=3", "lr_find.max_lr=1e-1", "lr_find.steps=50"], None)
    assert sweep == LrRangeTest(1e-5, 0.1, 50)
    assert plan.points[0].config.seed == 3


def test_run_command_that_lr_find_prints_is_quoted_for_shell() -> None:
    layers = "architecture.layers=[{dense: 4}, tanh, {dense: classes}]"
    overrides = ["architecture=layers", layers, "optimizer.lr=1", "hydra.run.dir=x"]
    point = plan_one(overrides).points[0]
    assert shlex.split(command(point, "my conf", 3.2e-4))[:4] == [
        "nnopt",
        "run",
        "--config-dir",
        "my conf",
    ]
    rest = shlex.split(command(point, None, 3.2e-4))[2:]
    assert rest[-1] == "optimizer.lr=0.00032"
    again = plan_one(rest).points[0].config
    assert again == replace(point.config, optimizer=replace(point.config.optimizer, lr=3.2e-4))
