"""The folder for the scripts and results of submitit's jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nnopt.errors import ConfigError, OutputError
from nnopt.schema import SubmititConfig
from nnopt.sweeps.launchers.slurm import _job_folder
from nnopt.sweeps.task import Task

MakeTask = Callable[..., Task]


def config(folder: str | None) -> SubmititConfig:
    return SubmititConfig("submitit", "local", 1, 1, 0, None, None, {}, 60.0, folder)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, set HOME to a new folder in it, and return HOME.

    HOME/linked is a link to a folder outside of HOME.
    """
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside").mkdir()
    (home / "linked").symlink_to("../outside")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.mark.parametrize(
    "folder", ["~/linked", "home/linked", "home/linked/", "./home/../home/linked"]
)
def test_job_folder_that_is_link_is_refused(
    make_task: MakeTask, tmp_path: Path, folder: str
) -> None:
    with pytest.raises(OutputError, match=r"home/linked is a link"):
        _job_folder(config(folder), make_task(0))
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("folder", ["~/jobs", "home/jobs", "~/linked/jobs"])
def test_job_folder_set_by_key_is_used(make_task: MakeTask, home: Path, folder: str) -> None:
    made = _job_folder(config(folder), make_task(0))
    assert made.is_dir()
    assert made.parent == home / folder.partition("/")[2]


def test_default_job_folder_is_below_sweep(make_task: MakeTask) -> None:
    task = make_task(0)
    assert _job_folder(config(None), task).parent == task.folder.parent / "submitit"


def test_default_job_folder_that_is_link_is_refused(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(0)
    (task.folder.parent / "submitit").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="submitit is a link"):
        _job_folder(config(None), task)


def test_job_folder_of_unknown_user_is_refused(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.folder.*no user 'no-such-user'"):
        _job_folder(config("~no-such-user/jobs"), make_task(0))
    assert not (tmp_path / "~no-such-user").exists()
