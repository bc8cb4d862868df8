"""Lost output, unusual environments, paths with a tilde, and control characters."""

from __future__ import annotations

import json
import logging
import math
import os
import re
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
    *("run epochs=1 dataset.samples_per_class=9 plots=false", "gradcheck --entries=1"),
)
"""Commands that print in different ways: tables, text, argparse, Hydra, completion, progress."""


@pytest.fixture
def two_runs(leave_run: LeaveRun, workplace: Path) -> Path:
    """Write the runs a and b to the current folder, and return this folder."""
    leave_run(workplace / "a", seed=0)
    leave_run(workplace / "b", seed=1)
    return workplace


@pytest.fixture
def stdout_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that replaces stdout by a full disk, a pipe without a reader, or None."""
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


@pytest.mark.parametrize("arguments", PRINTING)
@pytest.mark.parametrize("kind", ["full", "reader", "closed"])
def test_command_with_lost_output_exits_with_6_if_disk_is_full(
    attempt: Command,
    two_runs: Path,
    stdout_is: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    kind: str,
) -> None:
    monkeypatch.setenv("COMP_LINE", "nnopt ")
    stdout_is(kind)
    ended = attempt(*arguments.split())
    if kind == "full":
        ended.is_refused(6, "cannot write to standard output: No space left on device")
    else:
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(("redirection", "code"), [("> /dev/full", 6), ("| true", 0), (">&-", 0)])
def test_interpreter_exit_with_lost_output_prints_no_traceback(
    workplace: Path, redirection: str, code: int
) -> None:
    """The interpreter flushes its streams again when it exits."""
    script = f'"$0" -c "$1" version {redirection}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, "from nnopt.cli.main import main; main()"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code
    assert ended.stderr.count("\n") == (1 if code else 0)


# environment and terminal ------------------------------------------------------------------------

SMALL = ("run", "epochs=1", "max_steps=1", "dataset.samples_per_class=9", "hydra.run.dir=a")


@pytest.mark.parametrize("name", ["inline", "nonsense", "module://matplotlib_inline", "qtagg"])
def test_run_with_unusable_mplbackend_writes_plots(workplace: Path, name: str) -> None:
    """The run needs a new process, because Matplotlib reads MPLBACKEND during its import."""
    ended = subprocess.run(
        [sys.executable, "-c", "from nnopt.cli.main import main; main()", *SMALL],
        env={**os.environ, "MPLBACKEND": name},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (workplace / "a" / "plots" / "curves.png").exists()


def test_run_on_disk_that_takes_no_byte_exits_with_6(workplace: Path) -> None:
    (workplace / "a").mkdir()
    program = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    program += "from nnopt.cli.main import main; main()"
    shell = ["bash", "-c", 'ulimit -f 0; exec "$0" -c "$@"', sys.executable, program]
    ended = subprocess.run(
        [*shell, *SMALL, "plots=false"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 6, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "the disk, or its quota, has no room for " in ended.stderr


HOME_PATHS = {
    "hydra.run.dir": ([*SMALL[:4], "plots=false", "hydra.run.dir='~/x'"], "x/summary.json"),
    "hydra.sweep.dir": (
        ["run", "-m", "seed=0", *SMALL[1:4], "plots=false", "hydra.sweep.dir='~/x'"],
        "x/results.csv",
    ),
    "compare --out": (["compare", "~/run", "--out=~/x.csv"], "x.csv"),
    "compare --plots": (["compare", "~/run", "~/other", "--plots=~/x"], "x"),
    "report --out": (["report", "~/run", "--out=~/x.html"], "x.html"),
    "report": (["report", "~/run"], "run/report.html"),
    "diff": (["diff", "~/run", "~/other"], "run"),
}


@pytest.mark.parametrize(("arguments", "made"), HOME_PATHS.values(), ids=HOME_PATHS)
def test_path_with_tilde_is_in_the_home_folder(
    attempt: Command,
    workplace: Path,
    leave_run: LeaveRun,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    made: str,
) -> None:
    home = workplace / "home"
    monkeypatch.setenv("HOME", str(home))
    leave_run(home / "run", seed=0)
    leave_run(home / "other", seed=1, changes={"optimizer": "adam"})
    attempt(*arguments).is_done()
    assert (home / made).exists()
    assert not (workplace / "~").exists()
    user = [word.replace("~", "~nobody-here") for word in arguments]
    attempt(*user).is_refused(2, "there is no user")


def test_run_with_one_class_prints_zero_loss_without_minus_sign(
    attempt: Command, workplace: Path, backend: str
) -> None:
    (workplace / "a.csv").write_text("a,label\n" + "".join(f"{i},x\n" for i in range(20)))
    overrides = ["dataset=csv", "dataset.train=a.csv", "data.root=.", f"backend={backend}"]
    result = attempt("run", "epochs=1", "max_steps=1", "hydra.run.dir=a", "plots=false", *overrides)
    result.is_done()
    assert "-0" not in result.out
    assert re.search(r"^  test loss +0\.0000$", result.out, re.MULTILINE)
    loss = json.loads((workplace / "a" / "summary.json").read_text())["test_loss"]
    assert (loss, math.copysign(1, loss)) == (0, 1)


# control characters ------------------------------------------------------------------------------

ESCAPE = "\x1b]0;owned\x07\x1b[31m\u202e"


def test_terminal_control_characters_of_data_and_folders_are_escaped(
    attempt: Command, workplace: Path
) -> None:
    folder = workplace / f"dir{ESCAPE}"
    folder.mkdir()
    labels = [ESCAPE, "b", "b", "b", "b", "b", "b", "b", "b", "b"]
    lines = [f"{i},{label}" for i, label in enumerate(labels)]
    (folder / "a.csv").write_text("\n".join(["a,label", *lines]) + "\n", "utf-8")
    overrides = ["dataset=csv", "dataset.train=a.csv", f"data.root='{folder}'", "plots=false"]
    attempts = [
        attempt("run", *overrides, "epochs=1", "max_steps=1", "hydra.run.dir=x"),
        attempt("run", *overrides, f"dataset.label={ESCAPE}"),
        attempt("describe", f"name={ESCAPE}", "nonsense=1"),
        attempt("compare", str(folder)),
        attempt("compare", "x", f"--format={ESCAPE}"),
        attempt("compare", "x", "--where", f"{ESCAPE}=1"),
        attempt(ESCAPE),
        attempt("data", "fetch", ESCAPE),
    ]
    for ended in attempts:
        assert "\x1b" not in ended.out + ended.err
        assert "\x07" not in ended.out + ended.err
        assert "\u202e" not in ended.out + ended.err
        assert len(ended.err.splitlines()) < 8
    assert any("\\x1b" in ended.err for ended in attempts)


def test_log_warning_with_control_characters_is_printed_as_one_escaped_line(
    attempt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(arguments: list[str]) -> int:
        logging.getLogger("nnopt").warning("class %s", f"{ESCAPE}\nnnopt: error: forged")
        print(f"out {ESCAPE}")
        return 0

    monkeypatch.setattr("nnopt.cli.describe.main", warn)
    result = attempt("describe")
    visible = r"\x1b]0;owned\x07\x1b[31m\u202e"
    assert result.err == f"nnopt: class {visible}\\nnnopt: error: forged\n"
    assert result.out == f"out {visible}\n"
