"""Faults in sweeps. Detailed tests are in tests/cli/test_resume.py and tests/sweeps."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from nnopt.results.metrics_file import MetricsFile

TINY = ["epochs=2", "dataset.samples_per_class=10", "plots=false"]
TIMES = ("train_seconds", "total_seconds", "peak_memory_mb")
DIVERGES = "1e20"


def table(sweep: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv without the columns in ``TIMES``."""
    with (sweep / "results.csv").open(newline="") as file:
        return [{k: v for k, v in x.items() if k not in TIMES} for x in csv.DictReader(file)]


def statuses(sweep: Path) -> list[str]:
    return [row["status"] for row in table(sweep)]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the modification time of every file in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def unsealed(path: Path) -> dict[str, Any]:
    """Return a summary without the checksum, so that nnopt accepts changes to the summary."""
    summary: dict[str, Any] = json.loads(path.read_text())
    del summary["sha256"]
    return summary


RATES = {
    "second of five": (f"0.1,{DIVERGES},0.2,0.3,0.4", [2]),
    "second and fourth": (f"0.1,{DIVERGES},0.2,1e21,0.3", [2, 4]),
    "all": (f"{DIVERGES},1e21", [1, 2]),
}


@pytest.mark.parametrize(("rates", "failing"), RATES.values(), ids=RATES)
def test_sweep_with_failed_points_finishes_the_others(
    attempt: Command, workplace: Path, backend: str, rates: str, failing: list[int]
) -> None:
    overrides = [*TINY, "epochs=5", f"backend={backend}", f"optimizer.lr={rates}"]
    result = attempt("run", "-m", *overrides, "hydra.sweep.dir=sweep")
    assert result.code == 5
    for row in table(workplace / "sweep"):
        fails = int(row["number"]) in failing
        assert row["status"] == ("diverged" if fails else "done")
        assert bool(row["error"]) == fails
        assert (workplace / "sweep" / row["id"] / "run.log").exists()
    assert [f"[{number}] " in result.err for number in failing] == [True] * len(failing)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
@pytest.mark.parametrize(
    ("number", "status", "fragment"),
    [
        (signal.SIGTERM, "interrupted", "interrupted by SIGTERM"),
        (signal.SIGHUP, "interrupted", "interrupted by SIGHUP"),
        (signal.SIGINT, "interrupted", "interrupted by Ctrl-C"),
        (signal.SIGKILL, "failed", "killed by signal 9"),
    ],
    ids=["SIGTERM", "SIGHUP", "Ctrl-C", "SIGKILL"],
)
def test_pool_whose_worker_is_killed_loses_only_one_point(
    attempt: Command, workplace: Path, number: signal.Signals, status: str, fragment: str
) -> None:
    overrides = [
        "dataset.samples_per_class=10",
        "plots=false",
        "epochs=1000000,1",
        "hydra.sweep.dir=sweep",
    ]
    overrides += ["hydra/launcher=pool", "hydra.launcher.workers=1"]
    killer = threading.Thread(target=_signal_worker, args=(workplace, number))
    killer.start()
    result = attempt("run", "-m", *overrides)
    killer.join()
    assert result.code == 5
    rows = table(workplace / "sweep")
    assert [row["status"] for row in rows] == [status, "done"]
    assert fragment in rows[0]["error"]
    summary = json.loads((workplace / "sweep" / rows[0]["id"] / "summary.json").read_text())
    assert summary["status"] == status


def _signal_worker(workplace: Path, number: int) -> None:
    """Send the signal ``number`` to the worker as soon as its point has written a row."""
    while not [x for x in workplace.glob("sweep/*/metrics.csv") if x.stat().st_size > 200]:
        time.sleep(0.02)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and "launchers.worker" in (folder / "cmdline").read_text():
                os.kill(int(folder.name), number)
        except OSError:
            continue


def test_resume_command_runs_point_of_interrupted_worker_again(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted point runs again; a failed point needs --retry-failed."""
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    path = next((workplace / "sweep").glob("*-s1-*/summary.json"))
    summary = unsealed(path)
    path.write_text(json.dumps(summary | {"status": "interrupted", "error": "by SIGTERM"}))
    attempt("resume", "sweep").is_done("[2/2]")
    path.write_text(json.dumps(summary | {"status": "failed", "error": "killed by signal 9"}))
    assert attempt("resume", "sweep").code == 5
    attempt("resume", "sweep", "--retry-failed").is_done("[2/2]")


def test_resume_command_runs_failed_points_only_on_request(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = [*TINY, "epochs=5", f"backend={backend}", f"optimizer.lr=0.1,{DIVERGES},0.2"]
    assert attempt("run", "-m", *overrides, "hydra.sweep.dir=sweep").code == 5
    folders = [workplace / "sweep" / row["id"] for row in table(workplace / "sweep")]
    (folders[2] / "summary.json").unlink()
    before = [contents(folder) for folder in folders[:2]]
    assert attempt("resume", "sweep").code == 5
    assert [contents(folder) for folder in folders[:2]] == before
    assert statuses(workplace / "sweep") == ["done", "diverged", "done"]
    assert attempt("resume", "sweep", "--retry-failed").code == 5
    assert contents(folders[1]) != before[1]
    assert contents(folders[0]) == before[0]


def test_resume_command_with_added_value_runs_one_point(attempt: Command, workplace: Path) -> None:
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    before = [row["id"] for row in table(workplace / "sweep")]
    result = attempt("resume", "sweep", "seed=0,1,2")
    result.is_done("[3/3]")
    assert "[1/3]" not in result.out
    assert [row["id"] for row in table(workplace / "sweep")][:2] == before


def test_sweep_runs_a_repeated_point_once(attempt: Command, workplace: Path) -> None:
    """A repeated value gives one point; a sweep without values is refused."""
    attempt("run", "-m", *TINY, "seed=1,1", "hydra.sweep.dir=sweep").is_done("1 of 1")
    assert statuses(workplace / "sweep") == ["done"]
    attempt("run", "-m", *TINY, "seed=range(0)").is_refused(2, "has no value")


def test_pool_workers_write_every_row_once(attempt: Command, workplace: Path) -> None:
    overrides = [
        "epochs=1",
        "max_steps=1",
        "dataset.samples_per_class=10",
        "plots=false",
        "seed=range(12)",
    ]
    overrides += ["hydra/launcher=pool", "hydra.launcher.workers=4", "hydra.sweep.dir=sweep"]
    attempt("run", "-m", *overrides).is_done("12 of 12")
    assert [row["seed"] for row in table(workplace / "sweep")] == [str(n) for n in range(12)]


def test_sweep_with_fail_fast_stops_after_the_first_failure(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = [*TINY, "epochs=5", f"backend={backend}", f"optimizer.lr=0.1,{DIVERGES},0.2"]
    assert attempt("run", "-m", *overrides, "--fail-fast", "hydra.sweep.dir=sweep").code == 5
    assert statuses(workplace / "sweep") == ["done", "diverged", "pending"]


def test_sweep_in_any_order_of_points_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = [*TINY, f"backend={backend}", "regularizer.dropout=0.3"]
    attempt("run", "-m", *overrides, "seed=0,1", "hydra.sweep.dir=up").is_done()
    attempt("run", "-m", *overrides, "seed=1,0", "hydra.sweep.dir=down").is_done()
    attempt("run", *overrides, "seed=1", "hydra.run.dir=alone").is_done()
    up, down = table(workplace / "up"), table(workplace / "down")
    assert [row | {"number": ""} for row in up] == [row | {"number": ""} for row in down[::-1]]
    folders = [workplace / "up" / up[1]["id"], workplace / "down" / up[1]["id"]]
    found = {(x / "model_best.npz").read_bytes() for x in (*folders, workplace / "alone")}
    assert len(found) == 1


DAMAGE_ERRORS: dict[str, Callable[[Path], Any]] = {
    "removed": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE_ERRORS.values(), ids=DAMAGE_ERRORS)
def test_sweep_rewrites_sweep_json_that_is_damaged_meanwhile(
    attempt: Command,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], Any],
) -> None:
    path, append, calls = workplace / "sweep" / "sweep.json", MetricsFile.append, [0]

    def damaging(file: MetricsFile, *rows: Any) -> None:
        calls[0] += 1
        if calls[0] == 1:
            damage(path)
        append(file, *rows)

    monkeypatch.setattr(MetricsFile, "append", damaging)
    attempt("run", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").is_done("2 of 2")
    attempt("resume", "sweep", "seed=2").is_done("3 of 3")


OTHERS = {
    "nnopt": ("versions", "nnopt", "0.0.9", "nnopt 0.0.9 (here "),
    "numpy": ("versions", "numpy", "1.26.4", "numpy 1.26.4 (here "),
    "machine": ("machine", "cpu", "Other CPU", "processor Other CPU (here "),
    "threads": ("threads", "used", 77, "threads 77 (here "),
}


@pytest.mark.parametrize(("group", "key", "value", "fragment"), OTHERS.values(), ids=OTHERS)
def test_resume_command_reports_points_from_another_environment(
    attempt: Command, workplace: Path, group: str, key: str, value: Any, fragment: str
) -> None:
    overrides = [*TINY, "batch_size=1000000"]  # enough work for all cores
    attempt("run", "-m", *overrides, "seed=0,1", "hydra.sweep.dir=sweep").is_done()
    first, second = (next((workplace / "sweep").glob(f"*-s{n}-*/summary.json")) for n in (0, 1))
    second.unlink()
    plain = attempt("resume", "sweep")
    assert "were made with" not in plain.out
    second.unlink()
    summary = unsealed(first)
    summary[group][key] = value
    first.write_text(json.dumps(summary))
    attempt("resume", "sweep").is_done("finished points were made with", fragment)
    assert "were made with" not in attempt("resume", "sweep").out  # no point remained to run


HEADER = '{"op_code": 0, "worker_id": "w", "study_name": "search", "directions": [2]}'
TRIAL = '{"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": null}'

JOURNALS = {
    "text": "hello\nworld\n",
    "list": "[1]\n",
    "number": "7\n",
    "empty map": "{}\n",
    "unknown operation": '{"op_code": 77}\n',
    "operation is a text": '{"op_code": "0"}\n',
    "nested": "[" * 5000 + "]" * 5000 + "\n",
    "study of another": HEADER.replace("search", "mine") + "\n",
    "direction is a text": HEADER.replace("[2]", '["up"]') + "\n",
    "no direction": HEADER.replace("[2]", "[]") + "\n",
    "two directions": HEADER.replace("[2]", "[1, 2]") + "\n",
    "trial of no study": TRIAL + "\n",
    "trial that nnopt did not ask for": f"{HEADER}\n{TRIAL}\n",
    "date is a number": HEADER + "\n" + TRIAL.replace("null", "5") + "\n",
    "null bytes": "\0" * 100 + "\n\n",
}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a search of two trials."""
    pytest.importorskip("optuna")
    from nnopt.cli.main import run_verb

    folder = tmp_path_factory.mktemp("search") / "sweep"
    overrides = [*TINY, "optimizer.lr=interval(0.01,0.1)", "hydra/sweeper=optuna"]
    overrides += ["hydra.sweeper.trials=2", f"hydra.sweep.dir={folder}"]
    assert run_verb(["run", "-m", *overrides]) == 0
    return folder


@pytest.mark.parametrize("text", JOURNALS.values(), ids=JOURNALS)
def test_search_journal_not_written_by_nnopt_is_refused(
    attempt: Command, workplace: Path, search: Path, text: str
) -> None:
    sweep = _copy(search, workplace)
    (sweep / "search.journal").write_text(text)
    attempt("resume", "sweep").is_refused(4, "search.journal is not a journal of nnopt")


CHANGES: dict[str, tuple[str, Any]] = {
    "value is a text": ("values", ["a"]),
    "value is missing": ("values", None),
    "two values": ("values", [1.0, 2.0]),
    "state is unknown": ("state", 9),
    "parameter is a text": ("param_value_internal", "x"),
    "parameter of another name": ("param_name", "batch_size"),
    "distribution is a text": ("distribution", "x"),
    "attribute is a list": ("user_attr", []),
    "points are numbers": ("user_attr", {"points": [1]}),
    "points are missing": ("user_attr", {"other": []}),
    "points are none": ("user_attr", {"points": []}),
    "points of another sweep": ("user_attr", {"points": ["x"]}),
}


@pytest.mark.parametrize(("key", "value"), CHANGES.values(), ids=CHANGES)
def test_search_journal_with_wrong_values_is_refused(
    attempt: Command, workplace: Path, search: Path, key: str, value: Any
) -> None:
    sweep = _copy(search, workplace)
    path = sweep / "search.journal"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if key in line and "trial_id" in line)[key] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    attempt("resume", "sweep").is_refused(4, "search.journal is not a journal of nnopt")


def test_search_journal_with_damaged_last_line_is_refused(
    attempt: Command, workplace: Path, search: Path
) -> None:
    sweep = _copy(search, workplace)
    path = sweep / "search.journal"
    path.write_bytes(path.read_bytes()[:-20] + b"\0\0\n")
    arguments = ("resume", "sweep", "hydra.sweeper.trials=3")
    attempt(*arguments).is_refused(4, "search.journal is not a journal of nnopt")


def _copy(search: Path, workplace: Path) -> Path:
    import shutil

    shutil.copytree(search, workplace / "sweep")
    return workplace / "sweep"
