"""Which files nnopt opens or deletes in a folder of results."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from nnopt.errors import OutputError
from nnopt.io.own_files import (
    RUN_FILES,
    LogFile,
    check_writable,
    irregular_entries,
    open_to_append,
    remove_run,
)


def test_removal_of_a_run_deletes_only_files_of_nnopt(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    own = ["summary.json", "run.log", "plots/curves.png", ".12-0123456789ab.tmp"]
    others = ["lock", "notes.txt", "plots/mine.pdf", "x.tmp"]
    for name in (*own, *others):
        (tmp_path / name).touch()
    remove_run(tmp_path)
    assert [name for name in own if (tmp_path / name).exists()] == []
    assert [name for name in others if not (tmp_path / name).exists()] == []


@pytest.mark.parametrize("place", [".", "plots"])
def test_removal_of_a_run_with_link_in_place_of_a_folder_is_refused(
    tmp_path: Path, place: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "curves.png").touch()
    (target / "run.log").touch()
    folder = tmp_path / "run"
    if place == "plots":
        folder.mkdir()
        (folder / "plots").symlink_to(target)
    else:
        folder.symlink_to(target)
    with pytest.raises(OutputError, match="a link"):
        remove_run(folder)
    assert len(list(target.iterdir())) == 2


def test_removal_of_a_run_keeps_target_of_link_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.log").symlink_to(tmp_path / "target")
    remove_run(folder)
    assert (tmp_path / "target").exists()
    assert not (folder / "run.log").is_symlink()


def test_link_pipe_and_hard_link_are_not_opened_to_append(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.link(tmp_path / "target", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "hard", "pipe"):
        with pytest.raises(OSError, match=r"link|regular"):
            open_to_append(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_log_file_on_full_disk_drops_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogFile(tmp_path / "run.log")
    log.stream.close()
    log.stream = open("/dev/full", "w", buffering=1)  # noqa: SIM115  # the handler closes it
    log.emit(logging.makeLogRecord({"msg": "a line"}))
    log.close()
    assert capsys.readouterr().err == ""


def test_irregular_entries_are_reported_only_if_nnopt_uses_their_names(tmp_path: Path) -> None:
    (tmp_path / "run.log").symlink_to("nowhere")
    (tmp_path / "mine").symlink_to("nowhere")
    os.mkfifo(tmp_path / "metrics.csv")
    found = "\n".join(sorted(irregular_entries(tmp_path, RUN_FILES)))
    assert "run.log is a link" in found
    assert "metrics.csv is a named pipe" in found
    assert "mine" not in found


def test_check_for_a_writable_folder_creates_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "a", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match=r"not a folder|too long"):
            check_writable(folder)


def test_check_for_a_writable_folder_refuses_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = os.statvfs(tmp_path)
    full = os.statvfs_result((*space[:3], 0, 0, *space[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(OSError, match="No space left"):
        check_writable(tmp_path)
