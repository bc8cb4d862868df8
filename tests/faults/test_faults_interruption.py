"""Interrupted processes, and faults of storage, streams and clocks.

Each fault is tested once with the real command. Detailed tests are in tests/cli, tests/recipe,
tests/sweeps and tests/results.
"""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from commands import Attempt, Command, Trap, temporary_files

from nnopt.io import atomic_files as files
from nnopt.io.locks import hold
from nnopt.results.metrics_file import METRICS_COLUMNS

APPEND = "nnopt.results.metrics_file.MetricsFile.append"

TINY = ["epochs=4", "dataset.samples_per_class=10", "plots=false"]
TIMES = ("train_seconds", "total_seconds", "peak_memory_mb")


def table(sweep: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv without the columns in ``TIMES``."""
    with (sweep / "results.csv").open(newline="") as file:
        return [{k: v for k, v in x.items() if k not in TIMES} for x in csv.DictReader(file)]


def weights(sweep: Path) -> dict[str, bytes]:
    """Return the content of each weight file, and of metrics.csv without the column of seconds."""
    found = {str(x.relative_to(sweep)): x.read_bytes() for x in sweep.rglob("*.npz")}
    for path in sweep.rglob("metrics.csv"):
        with path.open(newline="") as file:
            rows = [{k: v for k, v in x.items() if k != "seconds"} for x in csv.DictReader(file)]
        found[str(path.relative_to(sweep))] = repr(rows).encode()
    return found


KILLED = """
import os, signal, sys
from nnopt.cli.main import main
name, count = sys.argv.pop(1), int(sys.argv.pop(1))
function, calls = getattr(os, name), [0]
def counted(*words, **options):
    calls[0] += 1
    if calls[0] == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*words, **options)
setattr(os, name, counted)
main()
"""


@pytest.mark.parametrize(
    ("name", "count"),
    [("fsync", 9), ("replace", 4), ("mkdir", 3)],
    ids=["in an epoch", "before a rename", "before a folder"],
)
def test_sweep_killed_and_resumed_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str, name: str, count: int
) -> None:
    overrides = [*TINY, f"backend={backend}", "regularizer.dropout=0.2", "seed=0,1"]
    attempt("run", "-m", *overrides, "hydra.sweep.dir=whole").is_done()
    arguments = [name, str(count), "run", "-m", *overrides, "hydra.sweep.dir=killed"]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    attempt("resume", "killed").is_done("are done; to be run: ")
    assert table(workplace / "killed") == table(workplace / "whole")
    assert weights(workplace / "killed") == weights(workplace / "whole")
    assert temporary_files(workplace) == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (APPEND, 2),
        ("nnopt.recipe.run.evaluate", 1),
        ("nnopt.recipe.trained_model.write_hashed_arrays", 2),
        ("os.replace", 2),
        ("os.replace", 3),
        ("nnopt.recipe.run.plot_test", 1),
    ],
    ids=["in an epoch", "in the test", "at weights", "at the start", "in a write", "in a plot"],
)
def test_run_ended_by_sigterm_leaves_complete_files(
    attempt: Command, workplace: Path, backend: str, trap: Trap, name: str, count: int
) -> None:
    trap(name, count, lambda: signal.raise_signal(signal.SIGTERM))
    plots = "true" if name == "nnopt.recipe.run.plot_test" else "false"
    overrides = ["epochs=4", "dataset.samples_per_class=10", f"plots={plots}"]
    result = attempt("run", *overrides, f"backend={backend}", "hydra.run.dir=run")
    is_start = (name, count) == ("os.replace", 2)
    effect = "starts the run over" if is_start else "continues the run"
    result.is_refused(143, f"interrupted by SIGTERM; `nnopt resume run` {effect}")
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", "interrupted by SIGTERM")
    if (rows := workplace / "run" / "metrics.csv").exists():
        assert rows.read_text().count("\n") - 1 == summary["epochs"]
    attempt("resume", "run").is_done("test accuracy")
    assert rows.read_text().count("\n") - 1 == 4


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "interrupted by Ctrl-C"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM"),
        (signal.SIGHUP, 143, "interrupted by SIGHUP"),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_sweep_stopped_by_signal_and_resumed_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str, trap: Trap, number: int, code: int, why: str
) -> None:
    overrides = [*TINY, f"backend={backend}", "seed=0,1,2"]
    attempt("run", "-m", *overrides, "hydra.sweep.dir=whole").is_done()
    trap(APPEND, 6, lambda: signal.raise_signal(number))
    result = attempt("run", "-m", *overrides, "hydra.sweep.dir=cut")
    result.is_refused(code, f"{why}; `nnopt resume cut` runs the remaining points")
    rows = table(workplace / "cut")
    assert [row["status"] for row in rows] == ["done", "interrupted", "pending"]
    assert rows[1]["error"] == why
    attempt("resume", "cut").is_done()
    assert table(workplace / "cut") == table(workplace / "whole")
    assert weights(workplace / "cut") == weights(workplace / "whole")


def test_run_exits_immediately_at_second_ctrl_c(workplace: Path) -> None:
    """After the first Ctrl-C, the run still writes its files; the second Ctrl-C stops it."""
    program = (
        "import signal, time, nnopt.recipe.run\n"
        "def slow(*_): signal.raise_signal(signal.SIGINT); time.sleep(60)\n"
        "nnopt.recipe.trained_model.write_hashed_arrays = slow\n"
        "nnopt.recipe.recorder.MetricsFile.append = lambda *_: signal.raise_signal(signal.SIGINT)\n"
        "from nnopt.cli.main import main; main()\n"
    )
    command = [sys.executable, "-c", program, "run", *TINY, "hydra.run.dir=run"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (
        130,
        "nnopt: error: interrupted twice; left at once\n",
    )


def test_run_started_with_nohup_ignores_hangup(
    attempt: Command, workplace: Path, trap: Trap
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    trap(
        APPEND,
        2,
        lambda: signal.raise_signal(signal.SIGHUP),
    )
    attempt("run", *TINY).is_done("test accuracy")


def _full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


STREAMS = {
    "closed": (None, 0),
    "full": (_full_device, 6),
    "reader gone": (_broken_pipe, 0),
}
"""The function that opens standard output, and the exit code of a run that writes to it."""


@pytest.mark.parametrize(("stream", "code"), STREAMS.values(), ids=STREAMS)
def test_run_with_unusable_output_trains_to_the_end(
    attempt: Command,
    workplace: Path,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    stream: Callable[[], int] | None,
    code: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    sweep = ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]
    for overrides in (["hydra.run.dir=run"], sweep):
        with ExitStack() as stack:
            opened = stream and stack.enter_context(os.fdopen(stream(), "w"))
            monkeypatch.setattr(sys, "stdout", opened)
            assert attempt("run", f"backend={backend}", *TINY, *overrides).code == code
    assert "status: done" in (workplace / "run" / "run.log").read_text()
    assert [row["status"] for row in table(workplace / "sweep")] == ["done", "done"]


def test_run_suspended_and_continued_gives_equal_bits(
    attempt: Command, workplace: Path, start_nnopt: Callable[..., subprocess.Popen[str]]
) -> None:
    """The process is suspended for half a second."""
    overrides = ["dataset.samples_per_class=20", "epochs=400", "plots=false"]
    attempt("run", *overrides, "hydra.run.dir=whole").is_done()
    process = start_nnopt("run", *overrides, "hydra.run.dir=stopped")
    while not (workplace / "stopped" / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert weights(workplace / "stopped") == weights(workplace / "whole")


WRITTEN = (
    *("summary.json", "config.yaml", *["metrics.csv"] * 5, "model_last.npz", "model_best.npz"),
    "model.json",
)
"""The names of the files that a run writes, in this order, with one entry per write.

The five writes of metrics.csv are its header and four rows.
"""


@pytest.mark.parametrize("count", range(1, 1 + len(WRITTEN)))
def test_run_on_full_disk_leaves_no_partial_file(
    attempt: Command, workplace: Path, backend: str, trap: Trap, count: int
) -> None:
    """One of ten writes fails, and its file is then absent.

    Exceptions are metrics.csv, which keeps the rows of earlier writes, and summary.json, which
    nnopt writes again with the status ``failed``.
    """

    def full() -> None:
        raise OSError(28, "No space left on device")

    trap("os.fsync", count, full)
    result = attempt("run", f"backend={backend}", *TINY, "hydra.run.dir=run")
    file = workplace / "run" / WRITTEN[count - 1]
    result.is_refused(6, f"cannot write {file}: ", "has no room for ", "bytes")
    if file.name == "summary.json":  # nnopt writes a summary again when a run fails
        assert json.loads(file.read_text())["status"] == "failed"
    elif file.name == "metrics.csv" and count > 3:
        assert re.fullmatch(r"(.+\n)*", text := file.read_text())
        assert text.count("\n") == count - 3
    else:
        assert not file.exists()
    for path in (workplace / "run").glob("*.npz"):
        with np.load(path) as weights:
            assert all(np.isfinite(weights[name]).all() for name in weights.files)


def test_run_without_disk_space_for_log_trains_to_the_end(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run drops the lines of run.log that do not fit on the disk."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnopt.io.own_files.LogFile.flush", full)
    result = attempt("run", *TINY)
    result.is_done("test accuracy")
    assert result.err == ""


def test_sweep_without_disk_space_for_results_table_exits_with_6(
    attempt: Command, workplace: Path, trap: Trap
) -> None:
    """A limit on the size of files simulates the full disk. Only results.csv exceeds the limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trap("nnopt.sweeps.results_table.write_text", 2, lambda: _limit_files(600, limits[1]))
    try:
        result = attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 6
    assert (workplace / "sweep" / "results.csv").read_text().count("\n") == 3


def _limit_files(size: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def _denied(*_: object) -> bool:
    return False


PLACES = {
    "is a file": ("file", "not a directory"),
    "parent is a file": ("file/sweep", "not a directory"),
    "long name": ("n" * 256, "name too long"),
    "not empty": ("full", "is not empty"),
    "dangling link": ("link", "cannot make the folder link"),
}


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize(("place", "fragment"), PLACES.values(), ids=PLACES)
def test_output_folder_with_impossible_path_is_refused_before_data_are_read(
    attempt: Command, workplace: Path, kind: str, place: str, fragment: str
) -> None:
    (workplace / "file").touch()
    (workplace / "full").mkdir()
    (workplace / "full" / "thesis.tex").touch()
    (workplace / "link").symlink_to("nowhere")
    overrides = ["dataset=csv", "dataset.train=missing.csv", f"hydra.{kind}.dir={place}"]
    sweep = ["-m", "seed=0,1"] if kind == "sweep" else []
    attempt("run", *sweep, *overrides).is_refused(6, fragment)


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("name", ["mine", None], ids=["named", "outputs"])
def test_output_folder_without_permission_is_refused_before_data_are_read(
    attempt: Command,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str | None,
) -> None:
    """The test patches the system call, because the user root may write to any folder."""
    (workplace / "mine").mkdir()
    monkeypatch.setattr("nnopt.io.own_files.os.access", _denied)
    overrides = ["dataset=csv", "dataset.train=missing.csv"]
    overrides += [f"hydra.{kind}.dir={name}"] if name else []
    sweep = ["-m", "seed=0,1"] if kind == "sweep" else []
    attempt("run", *sweep, *overrides).is_refused(6, "permission denied")
    assert sorted(path.name for path in workplace.iterdir()) == ["mine"]


def test_folder_held_by_another_process_is_not_used(attempt: Command, workplace: Path) -> None:
    """The test holds the lock of the folder in place of another process."""
    folder = workplace / "run"
    folder.mkdir()
    with hold(folder):
        attempt("run", *TINY, "hydra.run.dir=run").is_refused(6, "is not empty")
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    point = next((workplace / "sweep").glob("*-s1-*"))
    (point / "summary.json").unlink()
    with hold(point):
        attempt("resume", "sweep").is_done("another process runs 1 of the points")
    attempt("resume", "sweep").is_done("[2/2]")


def test_folder_of_an_earlier_run_is_refused(attempt: Command, workplace: Path) -> None:
    """The files of the first run or sweep do not change."""
    attempt("run", *TINY, "hydra.run.dir=run").is_done()
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    attempt("run", *TINY, "hydra.run.dir=run").is_refused(6, "is not empty")
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_refused(6, "is not empty")
    attempt("resume", "sweep", "epochs=9").is_refused(2, "would change the existing points")
    assert {path: path.read_bytes() for path in before} == before


def test_sweep_moved_to_another_folder_is_resumed(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    next((workplace / "sweep").glob("*-s1-*/summary.json")).unlink()
    (workplace / "other").mkdir()
    (workplace / "sweep").rename(workplace / "other" / "moved")
    monkeypatch.chdir(workplace / "other")
    attempt("resume", "moved").is_done("[2/2]")
    assert not (workplace / "sweep").exists()


LOSSES: dict[str, tuple[str, int, str]] = {
    "summary": ("*-s1-*/summary.json", 0, "1 of 2 points are done; to be run: 1"),
    "weights and summary": ("*-s1-*/*[ny]*", 0, "1 of 2 points are done; to be run: 1"),
    "folder of a point": ("*-s1-*", 0, "1 of 2 points are done; to be run: 1"),
    "table": ("results.csv", 0, "2 of 2 points are done; to be run: 0"),
    "manifest": ("sweep.json", 4, "has no summary.json and no sweep.json"),
}


@pytest.mark.parametrize(("pattern", "code", "fragment"), LOSSES.values(), ids=LOSSES)
def test_resume_command_recreates_or_reports_deleted_files(
    attempt: Command, workplace: Path, pattern: str, code: int, fragment: str
) -> None:
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    whole = table(workplace / "sweep")
    for path in (workplace / "sweep").glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (workplace / "sweep" / "junk.txt").touch()
    result = attempt("resume", "sweep")
    assert result.code == code
    assert fragment in result.out + result.err
    assert code or table(workplace / "sweep") == whole
    assert (workplace / "sweep" / "junk.txt").exists()


def test_run_with_clock_set_back_has_no_negative_duration(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = time.time(), [0]

    def backwards() -> float:
        calls[0] += 1
        return now - 3600 * calls[0]

    monkeypatch.setattr(time, "time", backwards)
    attempt("run", *TINY, "hydra.run.dir=run").is_done()
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert all(summary[key] >= 0 for key in ("train_seconds", "total_seconds"))
    rows = (workplace / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert all(float(row.split(",")[METRICS_COLUMNS.index("seconds")]) >= 0 for row in rows)


def test_runs_started_in_the_same_second_get_separate_folders(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnopt.cli.result_folder.time.strftime", lambda *_: "2026-10-25_02-30-00")
    for _ in range(2):
        attempt("run", *TINY).is_done()
    assert len(list((workplace / "outputs" / "runs").iterdir())) == 2


def test_run_in_bare_environment_succeeds(workplace: Path) -> None:
    """The home and temporary folders do not exist, and the umask denies access to others."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(workplace / "gone")}
    environment |= {"HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    program = "import os; os.umask(0o077); from nnopt.cli.main import main; main()"
    arguments = ["run", "epochs=1", "dataset.samples_per_class=10", "hydra.run.dir=run"]
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    result = Attempt(ended.returncode, ended.stdout, ended.stderr)
    result.keeps_promises()
    result.is_done("test accuracy")
    assert len(result.err.splitlines()) <= 1
    assert (workplace / "run" / "plots" / "confusion.png").exists()
    assert (workplace / "run" / "summary.json").stat().st_mode & 0o077 == 0


def test_sweep_of_many_points_leaves_no_file_open(attempt: Command, workplace: Path) -> None:
    """The number of open files before a sweep of 30 points equals the number after it."""
    attempt(
        "run", "-m", "epochs=1", "dataset.samples_per_class=10", "plots=false", "seed=0,1"
    ).is_done()
    before = len(os.listdir("/proc/self/fd"))
    overrides = [
        "epochs=1",
        "max_steps=1",
        "dataset.samples_per_class=10",
        "plots=false",
        "seed=range(30)",
    ]
    attempt("run", "-m", *overrides).is_done("30 of 30")
    assert len(os.listdir("/proc/self/fd")) == before


def test_resume_command_removes_temporary_files_of_dead_processes(
    attempt: Command, workplace: Path
) -> None:
    """Temporary files of living processes, and files with similar names, are kept."""
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    sweep = workplace / "sweep"
    dead, alive = "999999999", str(os.getppid())
    left = [folder / f".{dead}-0123456789ab.tmp" for folder in (sweep, *sweep.glob("*-s*"))]
    kept = [sweep / f".{alive}-0123456789ab.tmp", sweep / "mine.tmp", sweep / ".12-ab.tmp"]
    for path in (*left, *kept):
        path.touch()
    attempt("resume", "sweep").is_done()
    assert [path for path in left if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    for path in kept:
        path.unlink()


def test_run_whose_folder_is_deleted_ends_after_the_epoch(
    attempt: Command, workplace: Path, backend: str, trap: Trap
) -> None:
    trap(APPEND, 2, lambda: shutil.rmtree(workplace / "run"))
    overrides = [
        "epochs=100000",
        "dataset.samples_per_class=10",
        "plots=false",
        f"backend={backend}",
    ]
    attempt("run", *overrides, "hydra.run.dir=run").is_refused(6, "cannot write")
    assert not (workplace / "run").exists()


def test_temporary_file_names_match_the_removal_pattern(workplace: Path) -> None:
    """The pattern that removes temporary files matches the names that the writer creates."""
    from nnopt.io.own_files import is_temporary

    assert is_temporary(files._temporary(workplace).name)
