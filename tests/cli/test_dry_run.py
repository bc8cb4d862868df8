"""``nnopt run --dry-run``: the listed points, their statuses, and the reported problems."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnopt.data import load as LOAD

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SWEEP = ("run", "-m", "optimizer.lr=0.1,0.2", "seed=0,1", "epochs=1", "plots=false")
SMALL = "dataset.samples_per_class=20"


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a dry run fail that loads data."""

    def fail(*arguments: object) -> None:
        raise AssertionError("a dry run must not load data")

    monkeypatch.setattr("nnopt.recipe.prepare.data.load", fail)


def rows(output: str) -> list[list[str]]:
    """Return number, status, overrides and id of each point in the printed table."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["number", "status"])
    cells = [line.split() for line in lines[start + 1 :]]
    found = [x for x in cells if x[0].isdecimal() and not x[1].startswith("point")]
    return [[x[0], x[1], " ".join(x[2:-1]), x[-1]] for x in found]


def test_dry_run_lists_every_point_and_writes_nothing(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt(*SWEEP, "--dry-run") == 0
    output = capsys.readouterr().out
    found = rows(output)
    assert [row[:3] for row in found] == [
        [str(number), "pending", f"optimizer.lr={lr} seed={seed}"]
        for number, (lr, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)], start=1)
    ]
    assert len({row[3] for row in found}) == 4
    assert "in every point: epochs=1 plots=False" in output
    assert output.splitlines()[-1] == "4 points: 4 pending"
    assert list(workplace.iterdir()) == []


def test_dry_run_of_ablation_file_needs_no_multirun_option(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("run", "--dry-run", "ablation=rate_spiral", "seed=0") == 0
    overrides = [row[2] for row in rows(capsys.readouterr().out)]
    assert overrides[0] == "optimizer=momentum optimizer.lr=0.01"
    assert [text.split("=")[-1] for text in overrides] == [
        *("0.01", "0.1", "1", "0.0001", "0.001", "0.01")
    ]


def test_dry_run_shows_statuses_and_numbers_of_existing_sweep(
    nnopt: Run, workplace: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr("nnopt.recipe.prepare.data.load", LOAD)
        command = ("run", "-m", SMALL, "epochs=1", "plots=false", "hydra.sweep.dir=s")
        assert nnopt(*command, "optimizer.lr=0.3,1e30", "seed=0,1") == 5
    capsys.readouterr()
    before = sorted(path for path in workplace.rglob("*"))
    assert nnopt(*command, "optimizer.lr=0.2,0.3,1e30", "seed=0", "--dry-run") == 0
    output = capsys.readouterr().out
    assert [row[:3] for row in rows(output)] == [
        ["1", "done", "optimizer.lr=0.3"],
        ["3", "diverged", "optimizer.lr=1e+30"],
        ["5", "pending", "optimizer.lr=0.2"],
    ]
    assert "3 points: 1 done, 1 diverged, 1 pending" in output
    assert "the folder has 2 points outside of this command" in output
    assert "continue it with `nnopt resume s`" in output
    assert sorted(path for path in workplace.rglob("*")) == before


def test_dry_run_shows_running_and_interrupted_points(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    from nnopt.config.compose import make_plan
    from nnopt.io.locks import hold
    from nnopt.sweeps.manifest import create_sweep

    arguments = ["optimizer.lr=0.1,0.2,0.3", "hydra.sweep.dir=s"]
    folder = workplace / "s"
    folder.mkdir()
    points = create_sweep(make_plan(arguments, multirun=True), folder).points
    for point in points[:2]:
        (folder / point.id).mkdir()
    with hold(folder / points[0].id):
        assert nnopt("run", "-m", *arguments, "--dry-run") == 0
    statuses = [row[1] for row in rows(capsys.readouterr().out)]
    assert statuses == ["running", "interrupted", "pending"]


def test_dry_run_of_single_run_shows_network_and_length(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("run", "dataset=mnist", "epochs=2", "max_steps=2000", "--dry-run") == 0
    output = capsys.readouterr().out
    assert "50,890" in output
    assert "2 epochs, 2,000 steps" in output
    assert "pending" in output
    assert nnopt("run", "dataset=csv", "dataset.train=absent.csv", "--dry-run") == 0
    assert "is known after the data are read" in capsys.readouterr().out


def test_dry_run_of_search_shows_the_search_space(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", "ablation=search_spiral", "seed=range(2)", "--dry-run") == 0
    output = capsys.readouterr().out
    assert "optimizer.lr         0.001 to 1, logarithmic" in output
    assert "architecture.hidden  [16], [64], [32,32]" in output
    assert "40 trials with 2 seeds each, 80 points" in output
    assert list(workplace.iterdir()) == []


def test_dry_run_reports_the_problems_of_all_points(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", "-m", "epochs=0,1", "optimizer.lr=-1,0.1", "--dry-run") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    arguments = ("batch_size=8,500,1000", "drop_last=true", "max_steps=10000")
    assert nnopt("run", "-m", *arguments, "--dry-run") == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.partition(" is ")[0].partition(" with ")[0] for line in errors] == [
        "nnopt: error: max_steps = 10000",
        "nnopt: error: batch_size = 500",
        "nnopt: error: batch_size = 1000",
    ]
    assert list(workplace.iterdir()) == []


def test_dry_run_with_other_files_in_the_folder_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    (workplace / "x").mkdir()
    (workplace / "x/note.txt").write_text("")
    assert nnopt("run", "-m", "seed=0,1", "hydra.sweep.dir=x", "--dry-run") == 6
    assert "the folder x is not empty" in capsys.readouterr().err
    assert nnopt("run", "--dry-run", "--cfg", "job") == 2
    assert "--cfg and --dry-run" in capsys.readouterr().err


def test_dry_run_with_numpy_does_not_import_torch(workplace: Path) -> None:
    code = (
        "import sys; from nnopt.cli.main import run_verb; "
        "code = run_verb(['run', '-m', 'seed=0,1', '--dry-run']); "
        "sys.exit(code or 'torch' in sys.modules or 'optuna' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 points: 2 pending" in result.stdout


def test_dry_run_in_the_folder_of_another_run_does_not_show_its_status(
    nnopt: Run, workplace: Path, capsys: Captured, leave_run: Callable[..., Path]
) -> None:
    def dry_run(*overrides: str) -> list[str]:
        assert nnopt("run", "--dry-run", SMALL, *overrides) == 0
        return capsys.readouterr().out.splitlines()

    name = next(line.split()[1] for line in dry_run() if line.split()[0] == "id")
    leave_run(workplace / "run", id=name)
    for seed, status, has_note in ((0, "done", False), (1, "pending", True)):
        lines = dry_run(f"seed={seed}", "hydra.run.dir=run")
        assert [line.split()[1] for line in lines if line.split()[0] == "status"] == [status]
        assert any(line.startswith(f"the folder has another run, {name};") for line in lines) == (
            has_note
        )
