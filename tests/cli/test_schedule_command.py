"""``nnopt schedule``: the same learning rates as in training, the length, the output."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnopt.cli.schedule import MAX_RATES, plan
from nnopt.cli.schedule import _rows as schedule_rows
from nnopt.config.compose import compose_config, make_plan
from nnopt.recipe.run import run
from nnopt.training.planned_rates import needs_log_axis
from nnopt.training.state import TrainingState

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SMALL = ["dataset.samples_per_class=20", "batch_size=7", "plots=false", "architecture.hidden=[4]"]
RATES = {
    "warm-up and cosine": ["schedule=cosine", "schedule.warmup_epochs=1.5", "epochs=5"],
    "step, cut by max_steps": ["schedule=step", "schedule.step_size=1", "max_steps=20", "epochs=9"],
    "one_cycle, without the last batches": ["schedule=one_cycle", "drop_last=true", "epochs=4"],
    "multistep": ["schedule=multistep", "schedule.milestones=[1,2.5]", "epochs=4"],
    "polynomial": ["schedule=polynomial", "schedule.warmup_epochs=1", "epochs=4"],
    "cosine_restarts": ["schedule=cosine_restarts", "schedule.first_period=2", "epochs=5"],
    "restarts after prunings": [
        *("schedule=cosine", "epochs=8", "pruning=magnitude", "pruning.start=4"),
        *("pruning.schedule=iterative", "pruning.interval=2", "pruning.rewind=2"),
        "pruning.rewind_schedule=true",
    ],
}


@pytest.mark.parametrize("name", RATES)
def test_planned_rates_equal_those_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    used: list[float] = []
    original = TrainingState.add_step

    def record(self: TrainingState, lr: float, size: int) -> None:
        used.append(lr)
        original(self, lr, size)

    monkeypatch.setattr(TrainingState, "add_step", record)
    (point,) = make_plan([*SMALL, *RATES[name]]).points
    run(point, tmp_path, quiet=True)
    planned = plan(point.config)
    assert planned.rates.tolist() == used
    assert planned.epochs[-1] == (len(used) - 1) / planned.length.steps_per_epoch


def test_schedule_command_needs_no_data(nnopt: Run, workplace: Path, capsys: Captured) -> None:
    assert nnopt("schedule", "dataset=mnist", "schedule=one_cycle", "epochs=2") == 0
    output = capsys.readouterr().out
    assert "2 epochs of 1,688 steps, 3,376 steps in total" in output  # ⌈54,000 / 32⌉ = 1,688
    assert "highest" in output
    assert list(workplace.iterdir()) == []


def test_schedule_of_csv_dataset_needs_the_number_of_steps(nnopt: Run, capsys: Captured) -> None:
    command = ("schedule", "dataset=csv", "dataset.train=absent.csv", "epochs=3")
    assert nnopt(*command) == 2
    assert "add --steps-per-epoch N" in capsys.readouterr().err
    assert nnopt(*command, "--steps-per-epoch", "12") == 0
    assert "3 epochs of 12 steps, 36 steps in total" in capsys.readouterr().out
    assert nnopt(*command, "dataset.subset=100") == 0
    assert "3 epochs of 4 steps, 12 steps in total" in capsys.readouterr().out
    for wrong in ("0", "-1", "x", "1.5"):
        assert nnopt(*command, f"--steps-per-epoch={wrong}") == 2
        assert "needs a whole number, at least 1" in capsys.readouterr().err


def test_schedule_command_prints_rows_of_the_extreme_and_last_rates(
    nnopt: Run, capsys: Captured
) -> None:
    arguments = ("schedule=step", "schedule.step_size=30", "schedule.gamma=0.1", "epochs=60")
    assert nnopt("schedule", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
    rows = [line.split() for line in lines[start + 1 : -1]]
    assert rows[0] == ["0", "0", "0.01", "highest"]
    assert ["22", "330", "0.01"] in rows
    assert ["30", "450", "0.001", "lowest"] in rows
    assert rows[-1] == ["59.93", "899", "0.001", "last", "step"]


def test_schedule_command_refuses_schedule_that_does_not_fit(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("schedule", "epochs=2", "schedule.warmup_epochs=3") == 2
    assert "schedule.warmup_epochs = 3" in capsys.readouterr().err


def test_single_epoch_and_step_are_singular(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("schedule", "epochs=1", "--steps-per-epoch=1") == 0
    assert capsys.readouterr().out.endswith("1 epoch of 1 step, 1 step in total\n")
    one = ("run", *SMALL, "epochs=1", "max_steps=1", "target.metric=train_loss", "target.value=9")
    assert nnopt(*one, "--dry-run") == 0
    assert "1 epoch, 1 step\n" in capsys.readouterr().out
    assert nnopt(*one, "batch_size=1000") == 0
    output = capsys.readouterr().out
    assert "reached after 1 step, 1 epoch, 0.0 s" in output
    assert re.search("training .* s, 1 epoch$", output, re.MULTILINE)


def test_automatic_rate_is_drawn_relative_to_the_suggestion(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("schedule", "optimizer.lr=auto", "schedule=cosine", "epochs=10") == 0
    output = capsys.readouterr().out
    assert "learning rate / suggested rate" in output
    assert "1  highest" in output
    assert nnopt("schedule", "schedule=plateau") == 0
    assert "the reductions of a plateau schedule, so they are not shown" in capsys.readouterr().out


def test_schedule_command_writes_picture(nnopt: Run, workplace: Path, capsys: Captured) -> None:
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        assert nnopt("schedule", "schedule=cosine", "--out", name) == 0
        assert (workplace / name).read_bytes().startswith(start)
        assert capsys.readouterr().out.splitlines()[-1] == f"wrote {name}"
    assert nnopt("schedule", "--out", "a.jpg") == 2
    assert "needs a file name that ends with .png or .svg" in capsys.readouterr().err
    assert nnopt("schedule", "--out", "absent/a.png") == 6
    assert "the folder absent does not exist" in capsys.readouterr().err


def test_rates_of_long_training_are_computed_for_some_steps() -> None:
    config = compose_config(["schedule=cosine", "epochs=100000"])
    planned = plan(config)
    assert planned.length.steps == 1_500_000
    assert MAX_RATES / 2 <= len(planned.rates) <= MAX_RATES
    half = np.searchsorted(planned.epochs, 50_000)
    assert planned.rates[half] == pytest.approx(0.005, rel=1e-3)
    *_, last = schedule_rows(planned)
    assert last[:2] == ("1e+05", "1,499,992")  # every 8th step is computed
    longest = plan(compose_config(["epochs=1", "schedule.warmup_epochs=1"]), MAX_RATES)
    assert len(longest.rates) == MAX_RATES


def test_picture_of_long_training_has_epochs_on_its_axis(
    nnopt: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("nnopt.plots.run.curves.plot_schedule", lambda *x: drawn.extend(x))
    assert nnopt("schedule", "schedule=cosine", "epochs=100000", "--out", "a.png") == 0
    rates, steps_per_epoch, *_ = drawn
    assert len(rates) / steps_per_epoch == pytest.approx(100_000, rel=1e-4)


def test_rows_of_short_training_are_evenly_spaced_steps() -> None:
    steps = [row[1] for row in schedule_rows(plan(compose_config(["epochs=2"])))]
    assert steps == ["0", "4", "7", "11", "14", "18", "22", "25", "29"]
    rows = schedule_rows(plan(compose_config(["epochs=2"])))
    assert {row[3] for row in rows} == {"", "last step"}  # no rate is the highest


@pytest.mark.parametrize(("height", "lines"), [(100, 16), (26, 12), (10, 9)])
def test_curve_and_table_fit_the_height_of_the_terminal(
    nnopt: Run, monkeypatch: pytest.MonkeyPatch, height: int, lines: int
) -> None:
    used: list[int] = []

    class Terminal:
        is_terminal = can_show = staticmethod(lambda *_: True)
        rich = staticmethod(lambda: SimpleNamespace(print=lambda _: None))

    monkeypatch.setattr("nnopt.cli.schedule.standard_output", Terminal)
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, height)))
    monkeypatch.setattr(
        "nnopt.terminal.plotext_curves.rate_curve", lambda *arguments: used.append(arguments[-1])
    )
    assert nnopt("schedule") == 0
    assert used == [lines]


def test_log_axis_ignores_the_lowest_tenth_of_the_rates() -> None:
    cosine = (1 + np.cos(np.linspace(0, np.pi, 1000))) / 2
    assert cosine[-2] < 1e-4
    assert not needs_log_axis(cosine)
    assert needs_log_axis(np.geomspace(1, 1e-3, 100))
    assert not needs_log_axis(np.zeros(5))
