"""Folders of a hostile sender. No command may change or print files outside of the folder.

The table of folders is in ``hostile_folders.py``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from hostile_folders import HOSTILE, SECRET, Hostile, Received, private_files

from nnopt.cli.main import run_verb

WORDS = ["epochs=1", "max_steps=1", "dataset.samples_per_class=10", "plots=false", "seed=0,1"]


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep of two points; the first is done, the second interrupted."""
    folder = tmp_path_factory.mktemp("sender") / "sweep"
    assert run_verb(["run", "-m", *WORDS, f"hydra.sweep.dir={folder}"]) == 0
    (next(folder.glob("*-s1-*")) / "summary.json").unlink()
    return folder


@pytest.fixture
def received(finished_sweep: Path, tmp_path: Path) -> Iterator[Received]:
    """Return a copy of the sweep in the working folder, next to private files."""
    outside = tmp_path / "outside"
    outside.mkdir()
    private_files(outside)
    sweep = tmp_path / "received" / "sweep"
    shutil.copytree(finished_sweep, sweep)
    points = [next(sweep.glob(f"*-s{seed}-*")) for seed in (0, 1)]
    yield Received(sweep, *points, outside, tmp_path / "marker")
    for path in sweep.rglob("*"):
        if not path.is_symlink() and path.is_file() and path.stat().st_size > 2**30:
            path.unlink()


def fingerprint(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Return the names, times, links and contents of all entries of a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        link = os.readlink(path) if path.is_symlink() else ""
        found[str(path)] = (content, path.lstat().st_mtime_ns, link)
    return found


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_commands_on_hostile_folder_neither_change_nor_print_private_files(
    attempt: Command, received: Received, workplace: Path, hostile: Hostile
) -> None:
    hostile.build(received)
    before = fingerprint(received.outside)
    around = sorted(path.name for path in workplace.iterdir())
    printed = ""
    for arguments in (
        ("compare", str(received.sweep)),
        ("report", str(received.sweep), "--out", str(workplace / "page.html")),
        ("diff", str(received.done), str(received.interrupted)),
        ("resume", str(received.sweep)),
    ):
        result = attempt(*arguments)
        printed += result.out + result.err
        if arguments[0] == "resume":
            assert result.code in hostile.resume, result.err
            assert len(result.err.splitlines()) <= 1 + (result.code == 0)
    page = workplace / "page.html"
    printed += page.read_text() if page.exists() else ""
    assert fingerprint(received.outside) == before
    assert sorted(path.name for path in workplace.iterdir() if path != page) == around
    assert not received.marker.exists()
    assert hostile.shown or SECRET not in printed
