"""The state of a point's folder while another process works on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import summary_values

from nnopt.io.locks import hold
from nnopt.sweeps import point_folder as folders
from nnopt.sweeps.point_folder import read_state


def test_state_without_summary_depends_on_folder_and_lock(tmp_path: Path) -> None:
    folder = tmp_path / "point"
    assert read_state(folder).status == "pending"
    folder.mkdir()
    assert read_state(folder).status == "interrupted"
    with hold(folder):
        assert read_state(folder).status == "running"
        (folder / "summary.json").write_text("{")
        assert read_state(folder).status == "running"
    assert read_state(folder).status == "interrupted"


def test_state_of_point_that_ends_during_check_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_now(folder: Path) -> bool:
        (folder / "summary.json").write_text(json.dumps(summary_values()))
        return False

    monkeypatch.setattr(folders, "is_held", end_now)
    assert read_state(tmp_path).status == "done"
