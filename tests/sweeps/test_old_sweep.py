"""A sweep that an earlier state of nnopt 0.1.0 began is continued.

The folder ``sweep_of_0_1_0`` was written at commit ccc4040, before modules and keys were renamed:

    nnopt run -m epochs=2 dataset.points=10 'architecture.hidden=[4]' accumulation=2 \
        optimizer=momentum optimizer.lr=0.1,0.2,0.3 plots=false

The folder of its third point is missing, as if the sweep had been interrupted.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nnopt.results.summary import RENAMED

OLD = Path(__file__).parent / "sweep_of_0_1_0"
THIRD = {"optimizer.lr": "0.3", "test_accuracy": "0.43333333333333335"}


@pytest.fixture
def old_sweep(workplace: Path) -> Path:
    return Path(shutil.copytree(OLD, workplace / "sweep"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_resume_sweep_of_earlier_code_runs_missing_point(
    nnopt: Callable[..., int], old_sweep: Path
) -> None:
    before = rows_of(old_sweep)
    assert nnopt("resume", str(old_sweep)) == 0
    after = rows_of(old_sweep)
    assert [row["status"] for row in after] == ["done"] * 3
    assert after[:2] == [
        {RENAMED.get(key, key): cell for key, cell in row.items()} for row in before
    ]
    assert after[2].items() >= THIRD.items()


def test_resume_sweep_of_earlier_code_takes_new_values(
    nnopt: Callable[..., int], old_sweep: Path
) -> None:
    assert nnopt("resume", str(old_sweep), "optimizer.lr=0.4") == 0
    assert [row["optimizer.lr"] for row in rows_of(old_sweep)] == ["0.1", "0.2", "0.3", "0.4"]


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_readers_read_sweep_of_earlier_code(
    nnopt: Callable[..., int], old_sweep: Path, verb: str
) -> None:
    assert nnopt(verb, str(old_sweep)) == 0
