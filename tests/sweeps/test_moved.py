"""The paths of data files and caches after a project with a sweep was moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnopt.sweeps.manifest import Move


@pytest.fixture
def move(tmp_path: Path) -> Move:
    """Return the move of a sweep whose project, with data/ and a.csv, is now in after/."""
    (tmp_path / "after/sweeps/s").mkdir(parents=True)
    (tmp_path / "after/data").mkdir()
    (tmp_path / "after/a.csv").touch()
    return Move(str(tmp_path / "before/sweeps/s"), str(tmp_path / "after/sweeps/s"))


def test_path_of_moved_file_is_updated(move: Move, tmp_path: Path) -> None:
    assert move.path(str(tmp_path / "before/a.csv")) == str(tmp_path / "after/a.csv")


def test_path_of_existing_file_is_kept(move: Move, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before/a.csv").touch()
    assert move.path(str(tmp_path / "before/a.csv")) == str(tmp_path / "before/a.csv")


def test_path_of_missing_file_is_kept(move: Move, tmp_path: Path) -> None:
    assert move.path(str(tmp_path / "before/x/b.csv")) == str(tmp_path / "before/x/b.csv")


def test_path_of_missing_cache_follows_moved_parent_folder(move: Move, tmp_path: Path) -> None:
    assert move.path(str(tmp_path / "before/data/cache")) == str(tmp_path / "after/data/cache")


def test_relative_path_of_moved_sweep_is_kept(move: Move) -> None:
    assert move.path("a.csv") == "a.csv"


def test_config_of_moved_sweep_keeps_other_values(move: Move, tmp_path: Path) -> None:
    before = str(tmp_path / "before/a.csv")
    config = {"name": before, "dataset": {"train": before, "test": None, "label": before}}
    found = move.config(config)
    assert found["name"] == found["dataset"]["label"] == before
    assert found["dataset"]["train"] == str(tmp_path / "after/a.csv")
    assert found["dataset"]["test"] is None
