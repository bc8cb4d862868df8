"""``nnopt diff`` compares two runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnopt.io.atomic_files import write_arrays

LeaveRun = Callable[..., Path]
Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def pair(workplace: Path, leave_run: LeaveRun) -> None:
    """Write a run ``a`` with SGD, and a run ``b`` with Adam, more layers and a newer NumPy.

    The runs also have different seeds.
    """
    numpy, torch = {"numpy": "2.0"}, {"numpy": "2.1", "torch": "2.6"}
    leave_run(workplace / "a", 0, {"optimizer": "sgd"}, test_loss=0.5, versions=numpy)
    adam = {"optimizer": "adam"}
    leave_run(workplace / "b", 1, adam, test_loss=0.25, train_seconds=2.0, versions=torch)
    weight, more = np.array([[3.0, 4.0]]), np.ones(2)
    write_arrays(Path("a/model_best.npz"), {"dense1.weight": weight, "dense1.bias": more})
    both = {"dense1.weight": 2 * weight, "dense1.bias": np.ones(3), "dense2.bias": more}
    write_arrays(Path("b/model_best.npz"), both)


@pytest.mark.usefixtures("pair")
def test_diff_command_prints_differences(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("diff", "a", "b") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "A: a (done)",
        "seed 0 1",
        "optimizer sgd adam",
        "optimizer.lr 0.1 0.001",
        "optimizer.beta1 – 0.9",
        "versions.numpy 2.0 2.1",
        "versions.torch – 2.6",
        "test_loss 0.5 0.25 -0.25",
        "test_accuracy 0.5 0.5 0",
        "train_seconds – 2 –",
        "dense1.weight 1x2 5 10 5 1.0000",
        "arrays that differ in shape or are not in both files: dense1.bias, dense2.bias",
    ):
        assert line in lines
    assert not any(line.startswith(("epochs", "architecture")) for line in lines)


@pytest.mark.usefixtures("pair")
def test_out_option_of_diff_command_draws_weights(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("diff", "a", "b", "--out", "new/pictures") == 0
    assert {path.name for path in Path("new/pictures").iterdir()} == {"weights.png", "weights.svg"}


@pytest.mark.usefixtures("pair")
def test_diff_of_run_with_itself_has_no_differences(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("diff", "a", "a") == 0
    assert "the configurations are the same" in capsys.readouterr().out


@pytest.mark.usefixtures("pair")
def test_wrong_usage_of_diff_command_is_refused(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("diff", "a", "nowhere") == 2
    assert "nowhere is not the folder of a finished run" in capsys.readouterr().err
    assert nnopt("diff", "a", "b", "--weights", "last") == 0
    assert "model_last.npz is not in both folders" in capsys.readouterr().out
    assert nnopt("diff", "a", "b", "--weights", "last", "--out", "x") == 2
    assert not Path("x").exists()
    Path("b/model_best.npz").write_bytes(b"damaged")
    assert nnopt("diff", "a", "b") == 4
    assert "b/model_best.npz is damaged" in capsys.readouterr().err


A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("one", "other", "cells"),
    [
        (
            {"/very/long/folder/a.csv": A},
            {"/very/long/folder/a.csv": B},
            "a.csv #aaaaaa a.csv #bbbbbb",
        ),
        ({"/x/train_with_long_name.csv": A}, {}, "…h_long_name.csv #aaaaaa –"),
        (
            {"/x/a.csv": A, "/x/t.csv": C},
            {"/x/b.csv": B, "/x/t.csv": C},
            "a.csv #aaaaaa b.csv #bbbbbb",
        ),
        ({"/x/a.csv": A}, {"/x/b.csv": B, "/x/t.csv": C}, "a.csv #aaaaaa b.csv #bbbbbb + 1"),
        ({"/x/a.csv": A}, {"/elsewhere/a.csv": A}, None),
        ({"/x/a.csv": A, "/x/t.csv": B}, {"/y/t.csv": B, "/y/a.csv": A}, None),
        (
            {"/x/a.csv": A, "/x/t.csv": B},
            {"/x/t.csv": A, "/x/a.csv": B},
            "a.csv #aaaaaa + 1 a.csv #bbbbbb + 1",
        ),
        (
            {"/x/train/a.csv": A, "/x/test/a.csv": B},
            {"/y/train/a.csv": B, "/y/test/a.csv": A},
            "test/a.csv #bbbbbb + 1 test/a.csv #aaaaaa + 1",
        ),
        (
            {"/x/train/a.csv": A, "/x/test/a.csv": B},
            {"/y/train/a.csv": A, "/y/test/a.csv": B},
            None,
        ),
        (
            {"/x/a.csv": A, "/x/t.csv": A},
            {"/x/a.csv": A, "/x/t.csv": C},
            "t.csv #aaaaaa t.csv #cccccc",
        ),
        ({"/x/a.csv": A}, {"/x/a.csv": A, "/x/t.csv": C}, "no further file t.csv #cccccc"),
        ({"/x/a.csv": A}, {"/x/b.csv": A}, "a.csv #aaaaaa b.csv #aaaaaa"),
        (
            {"/x/a.csv": A, "/x/t.csv": C},
            {"/x/b.csv": A, "/x/t.csv": B},
            "t.csv #cccccc + 1 t.csv #bbbbbb + 1",
        ),
    ],
)
def test_diff_of_changed_data_files_fits_in_80_columns(
    nnopt: Run,
    capsys: Captured,
    workplace: Path,
    leave_run: LeaveRun,
    one: dict[str, str],
    other: dict[str, str],
    cells: str | None,
) -> None:
    for name, sources in (("a", one), ("b", other)):
        leave_run(workplace / name, data={"name": "csv", "sources": sources})
    assert nnopt("diff", "a", "b") == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("data.sources")]
    assert [" ".join(x.split()) for x in lines] == ([f"data.sources {cells}"] if cells else [])
    assert all(len(line) <= 80 for line in lines)
