"""Lost output, hostile results, and what is printed of them: lines of cases.md and faults.md."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from commands import Command

LeaveRun = Callable[..., Path]


PRINTING = (
    *("version", "--help", "data list", "describe", "compare a", "compare a --format csv"),
    *("diff a b", "run --help", "run --info", "compare --help", "-sc query=bash"),
    *("run epochs=1 dataset.points=9 plots=false", "gradcheck --entries=1"),
)
"""Every way in which a command prints: tables, text, argparse, Hydra, completion, progress."""


@pytest.fixture
def two_runs(leave_run: LeaveRun, workplace: Path) -> Path:
    """A working folder with the runs a and b."""
    leave_run(workplace / "a", seed=0)
    leave_run(workplace / "b", seed=1)
    return workplace


@pytest.fixture
def stdout_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Replace standard output: "full" disk, pipe without "reader", or "closed"."""
    opened: list[TextIO] = []

    def replace(kind: str) -> None:
        if kind == "closed":
            monkeypatch.setattr(sys, "stdout", None)
            return
        if kind == "full":
            descriptor = os.open("/dev/full", os.O_WRONLY)
        else:
            read_end, descriptor = os.pipe()
            os.close(read_end)
        opened.append(os.fdopen(descriptor, "w"))
        monkeypatch.setattr(sys, "stdout", opened[-1])

    yield replace
    for file in opened:
        file.close()


@pytest.mark.parametrize("words", PRINTING)
@pytest.mark.parametrize("kind", ["full", "reader", "closed"])
def test_command_output_lost_exit_6_unless_reader_gone(
    attempt: Command,
    two_runs: Path,
    stdout_is: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    kind: str,
) -> None:
    monkeypatch.setenv("COMP_LINE", "nnopt ")
    stdout_is(kind)
    ended = attempt(*words.split())
    if kind == "full":
        ended.is_refused(6, "cannot write to standard output: No space left on device")
    else:
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(("redirection", "code"), [("> /dev/full", 6), ("| true", 0), (">&-", 0)])
def test_interpreter_end_output_lost_no_traceback(
    workplace: Path, redirection: str, code: int
) -> None:
    """The interpreter flushes its streams once more when it ends."""
    script = f'"$0" -c "$1" version {redirection}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, "from nnopt.cli import main; main()"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code
    assert ended.stderr.count("\n") == (1 if code else 0)
