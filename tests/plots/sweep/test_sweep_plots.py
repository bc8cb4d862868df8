"""Which plots are drawn for a sweep. An error in a plot never makes the sweep fail."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nnopt.analysis.comparison import Comparison, compare_runs
from nnopt.errors import OutputError
from nnopt.plots.sweep import draw as sweep_plots
from nnopt.plots.sweep.curves import LearningCurves
from nnopt.plots.sweep.draw import plot_comparison, plot_sweep
from nnopt.results.collect import find_runs
from nnopt.results.metrics_file import EpochRow, MetricsFile

LeaveRun = Callable[..., Path]
Nnopt = Callable[..., int]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each plot is added; the plot is not drawn."""
    drawn: list[str] = []

    def note(*arguments: Any) -> None:
        paths: Sequence[Path] = arguments[-1]
        assert [path.suffix for path in paths] == [".png", ".svg"]
        drawn.append(paths[0].stem)

    for name in vars(sweep_plots).copy():
        if name.startswith("plot_") and name not in ("plot_sweep", "plot_comparison"):
            monkeypatch.setattr(sweep_plots, name, note)
    return drawn


def leave_epochs(folder: Path, epochs: int) -> None:
    with MetricsFile(folder / "metrics.csv") as file:
        for n in range(1, epochs + 1):
            file.append(EpochRow(n, n, 0.1, 1 / n, 0.5, 1 / n, 0.5, 0.0, 1.0, 0.1))


def names_of(sweep: Path) -> list[str]:
    """Draw the plots of a comparison of a sweep's runs, and return the names of the plots."""
    runs = find_runs([sweep]).runs
    paths = plot_comparison(compare_runs(runs, ["test_accuracy"]), runs, sweep / "plots")
    return list(dict.fromkeys(path.stem for path in paths))


def test_plots_depend_on_varying_keys(
    tmp_path: Path, leave_run: LeaveRun, quick: list[str]
) -> None:
    one = tmp_path / "one"
    leave_run(one / "a")
    assert names_of(one) == []  # one setting without epochs
    leave_epochs(one / "a", 2)
    assert names_of(one) == ["curves"]
    leave_run(one / "b", 0, {"optimizer": "adam"})
    assert names_of(one) == ["curves", "means"]

    grid = tmp_path / "grid"
    for n, (lr, l2) in enumerate(product((0.1, 0.2), (0, 1e-3))):
        leave_run(grid / str(n), 0, {"optimizer.lr": lr, "regularizer.l2": l2})
    assert names_of(grid) == ["means", "heat_map", "by_key"]
    for n, (lr, l2) in enumerate(product((0.1, 0.2), (0, 1e-3))):
        changes = {"optimizer.lr": lr, "regularizer.l2": l2, "regularizer.norm": "batch"}
        leave_run(grid / f"norm{n}", 0, changes)
    assert names_of(grid) == ["means", "heat_map", "parallel", "by_key"]


def test_plots_of_a_sweep_are_written_as_png_and_svg(tmp_path: Path, leave_run: LeaveRun) -> None:
    for optimizer, seed in product(("sgd", "adam"), (0, 1)):
        folder = tmp_path / f"{optimizer}-{seed}"
        leave_run(folder, seed, {"optimizer": optimizer}, test_accuracy=0.5 + seed / 10)
        leave_epochs(folder, 3)
    (tmp_path / "sgd-1" / "metrics.csv").write_text("damaged")
    lost = leave_run(tmp_path / "lost", 0, {"optimizer": "rmsprop"}, status="diverged", error="x")
    leave_epochs(lost, 1)
    written = plot_sweep(tmp_path)
    names = ["curves.png", "curves.svg", "means.png", "means.svg"]
    assert written == [tmp_path / "plots" / name for name in names]
    for path in written[1::2]:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_sweep_curves_prefer_finished_runs(
    tmp_path: Path, leave_run: LeaveRun, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting without finished runs is drawn from its unfinished runs."""
    for n, (lr, status) in enumerate(
        [(1, "done"), (1, "pruned"), (2, "pruned"), (3, "diverged"), (4, "failed")]
    ):
        changes = {"optimizer.lr": lr}
        leave_epochs(leave_run(tmp_path / str(n), n, changes, status=status, error="x"), 2 + n)
    (tmp_path / "4" / "metrics.csv").unlink()
    drawn: list[tuple[object, list[int], bool]] = []

    def record(
        comparison: Comparison, curves: Sequence[LearningCurves], paths: Sequence[Path]
    ) -> None:
        for setting in curves:
            lengths = [len(history) for history in setting.histories]
            drawn.append((setting.row.setting.values["optimizer.lr"], lengths, setting.diverged))

    monkeypatch.setattr(sweep_plots, "plot_sweep_curves", record)
    plot_sweep(tmp_path)
    assert drawn == [(1, [2], False), (2, [4], False), (3, [5], True)]


def test_failed_plot_of_a_sweep_gives_a_warning(
    tmp_path: Path,
    leave_run: LeaveRun,
    quick: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for n, lr in enumerate((0.1, 0.2)):
        leave_epochs(leave_run(tmp_path / str(n), 0, {"optimizer.lr": lr}), 2)

    def fail(*arguments: Any) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(sweep_plots, "plot_means", fail)
    written = plot_sweep(tmp_path)
    assert [path.name for path in written[::2]] == ["curves.png", "by_key.png"]
    (record,) = caplog.records
    assert "cannot draw the plot means of the sweep: ValueError('planted')" in record.message
    assert "in fail" in (tmp_path / "plots.log").read_text()
    runs = find_runs([tmp_path]).runs
    with pytest.raises(ValueError, match="planted"):  # an explicit request raises the error
        plot_comparison(compare_runs(runs, ["test_accuracy"]), runs, tmp_path / "other")
    (tmp_path / "plots").rename(tmp_path / "away")
    (tmp_path / "plots").write_text("a file")
    caplog.clear()
    assert plot_sweep(tmp_path) == []
    assert "cannot make the folder" in caplog.records[0].message
    with pytest.raises(OutputError, match="cannot make the folder"):
        plot_comparison(compare_runs(runs, ["test_accuracy"]), runs, tmp_path / "plots")


def test_plots_of_earlier_versions_are_replaced(
    tmp_path: Path, leave_run: LeaveRun, quick: list[str]
) -> None:
    for n, lr in enumerate((0.1, 0.2)):
        leave_run(tmp_path / str(n), 0, {"optimizer.lr": lr})
    (tmp_path / "plots").mkdir()
    for name in ("learning_rate.png", "learning_rate.svg", "compression.png", "other.png"):
        (tmp_path / "plots" / name).write_text("old")
    plot_sweep(tmp_path)
    assert quick == ["means", "by_key"]
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["other.png"]


def test_sweep_without_results_has_no_plots(
    tmp_path: Path, leave_run: LeaveRun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nnopt")
    assert plot_sweep(tmp_path) == []  # the folder contains no run
    leave_run(tmp_path / "a", status="failed", test_accuracy=None)
    assert plot_sweep(tmp_path) == []
    assert plot_sweep(tmp_path, "final_train_loss") == []
    assert "none of its finished runs has a final_train_loss" in caplog.records[-1].message
    assert plot_sweep(tmp_path) == []
    assert "none of its finished runs has a test_accuracy" in caplog.records[-1].message
    assert not (tmp_path / "plots").exists()


def test_finished_sweep_has_plots(
    workplace: Path,
    nnopt: Nnopt,
    quick: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("plot_training", "plot_test", "plot_convolutions"):  # slow plots
        monkeypatch.setattr(f"nnopt.recipe.run.{name}", lambda *arguments: None)
    command = ["run", "-m", "optimizer.lr=0.1,0.2", "epochs=2", "dataset.samples_per_class=20"]
    assert nnopt(*command, "plots=false", "hydra.sweep.dir=plain") == 0
    assert quick == []
    assert not (workplace / "plain" / "plots").exists()
    assert nnopt(*command, "hydra.sweep.dir=drawn") == 0
    assert quick == ["curves", "means", "by_key"]
    assert "drawn/plots" in capsys.readouterr().out


def test_compare_command_with_plots_option_writes_plots(
    workplace: Path,
    nnopt: Nnopt,
    leave_run: LeaveRun,
    quick: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for n, lr in enumerate((0.1, 0.2)):
        leave_run(workplace / "sweep" / str(n), 0, {"optimizer.lr": lr}, test_loss=1.0)
    assert nnopt("compare", "sweep", "--metric", "test_loss", "--plots", "some/where") == 0
    assert quick == ["means", "by_key"]
    output = capsys.readouterr().out.splitlines()
    assert output[-1] == "wrote to some/where, as PNG and SVG: means, by_key"
    assert nnopt("compare", "sweep", "--format", "csv", "--plots", "p") == 0
    assert "wrote" not in capsys.readouterr().out  # the output must be machine-readable
    assert nnopt("compare", "sweep", "--where", "optimizer.lr=0.1", "--plots", "p") == 0
    assert "no figure was drawn" in capsys.readouterr().out
    assert nnopt("compare", "sweep", "--metric", "test_loss,epochs", "--plots", "p") == 2
    assert "--plots draws one metric, not 2" in capsys.readouterr().err
