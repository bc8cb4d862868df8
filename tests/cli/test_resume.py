"""``nnopt resume`` runs missing points and does not change finished points."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from data_files import summary_values

from nnopt.config.point import Point
from nnopt.data.load import _decode
from nnopt.io.atomic_files import write_json
from nnopt.recipe.recorder import initial_summary

Run = Callable[..., int]
Start = Callable[..., "subprocess.Popen[str]"]
Captured = pytest.CaptureFixture[str]

SMALL = ["epochs=2", "dataset.samples_per_class=20", "plots=false"]
TIMES = ("train_seconds", "total_seconds", "peak_memory_mb")


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> list[str]:
    return [row["status"] for row in table_of(folder)]


def without_times(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in table_of(folder)]


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the hash and the modification time of every file in a folder."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def sweep(nnopt: Run, workplace: Path) -> Path:
    """Return the folder of a sweep: points 1 and 4 done, 2 diverged, 3 killed, 5 pending."""
    overrides = ["optimizer.lr=0.1,1e20,0.2,0.3,0.4", "epochs=5", "hydra.sweep.dir=sweep"]
    assert nnopt("run", "-m", *SMALL, *overrides) == 5
    folder = workplace / "sweep"
    rows = table_of(folder)
    (folder / rows[2]["id"] / "summary.json").unlink()
    shutil.rmtree(folder / rows[4]["id"])
    return folder


def test_resume_command_runs_only_missing_points(nnopt: Run, sweep: Path, capsys: Captured) -> None:
    ids = [row["id"] for row in table_of(sweep)]
    kept = {name: fingerprint(sweep / ids[name]) for name in (0, 1, 3)}
    (sweep / ids[2] / "layers.csv").write_text("of the attempt that was killed")
    (sweep / ids[2] / "notes.txt").write_text("the user's own")
    capsys.readouterr()
    assert nnopt("resume", "sweep") == 5
    assert statuses(sweep) == ["done", "diverged", "done", "done", "done"]
    assert [row["id"] for row in table_of(sweep)] == ids
    assert {name: fingerprint(sweep / ids[name]) for name in (0, 1, 3)} == kept
    assert not (sweep / ids[2] / "layers.csv").exists()
    assert (sweep / ids[2] / "notes.txt").read_text() == "the user's own"
    captured = capsys.readouterr()
    assert "[3/5] optimizer.lr=0.2" in captured.out
    assert "[5/5] optimizer.lr=0.4" in captured.out
    assert "[1/5]" not in captured.out
    assert "--retry-failed" in captured.out
    assert ids[1] in captured.err


def test_resume_command_runs_failed_points_only_with_retry_option(
    nnopt: Run, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = sweep / table_of(sweep)[1]["id"]
    (second / "summary.json").write_text(
        json.dumps(summary_values(status="timeout", error="too slow"))
    )
    assert nnopt("resume", "sweep") == 5
    assert statuses(sweep)[1] == "timeout"
    assert nnopt("resume", "sweep", "--retry-failed") == 5
    assert statuses(sweep)[1] == "diverged"
    assert json.loads((second / "summary.json").read_text())["epochs"] == 0


@pytest.mark.parametrize("missing", ["config", "overrides", "data"])
def test_resume_command_repeats_point_whose_summary_lacks_a_key(
    nnopt: Run, workplace: Path, capsys: Captured, missing: str
) -> None:
    assert nnopt("run", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep") == 0
    path = workplace / "sweep" / table_of(workplace / "sweep")[0]["id"] / "summary.json"
    whole = json.loads(path.read_text())
    shorter = {key: value for key, value in whole.items() if key not in (missing, "sha256")}
    path.write_text(json.dumps(shorter))
    capsys.readouterr()
    nnopt("compare", "sweep")
    assert f"is damaged: it has no '{missing}'" in capsys.readouterr().err
    assert nnopt("resume", "sweep") == 0
    assert "summary.json is damaged" in capsys.readouterr().err
    again = json.loads(path.read_text())
    assert again["test_loss"] == whole["test_loss"]
    assert missing in again


@pytest.mark.parametrize("data", [{}, {"name": "spiral"}, None])
def test_resume_command_keeps_point_without_data_sources(
    nnopt: Run, workplace: Path, data: object
) -> None:
    assert nnopt("run", "-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep") == 0
    path = workplace / "sweep" / table_of(workplace / "sweep")[0]["id"] / "summary.json"
    values = json.loads(path.read_text()) | {"data": data}
    del values["sha256"]
    path.write_text(json.dumps(values))
    assert nnopt("resume", "sweep", "seed=1") == 0
    assert statuses(workplace / "sweep") == ["done", "done"]
    assert json.loads(path.read_text()) == values


def test_resume_command_with_added_values_runs_only_new_points(nnopt: Run, sweep: Path) -> None:
    assert nnopt("resume", "sweep", "--retry-failed") == 5
    before, ids = fingerprint(sweep), [row["id"] for row in table_of(sweep)]
    assert nnopt("resume", "sweep", "optimizer.lr=0.1,0.5", "seed=0,1") == 5
    rows = table_of(sweep)
    assert [row["id"] for row in rows[:5]] == ids
    found = [(row["number"], row["optimizer.lr"], row["seed"]) for row in rows[5:]]
    assert found == [("6", "0.1", "1"), ("7", "0.5", "0"), ("8", "0.5", "1")]
    after = fingerprint(sweep)
    own = ("results.csv", "sweep.json")
    assert all(after[path] == before[path] for path in before if Path(path).name not in own)


def test_resume_command_that_would_change_points_is_refused(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    before = fingerprint(sweep)
    for word, message in (
        ("epochs=7", "'epochs=7' would change the existing points"),
        ("optimizer=adam", "'optimizer=adam' would change the existing points"),
        ("hydra.sweeper.mode=zip", "Hydra's settings cannot change, except the launcher's"),
        ("hydra/launcher=none", "hydra/launcher = 'none': allowed: "),
        ("optimizer.lr=0.1,abc", "optimizer.lr = 'abc': needs a number"),
    ):
        capsys.readouterr()
        assert nnopt("resume", "sweep", word) == 2
        assert message in capsys.readouterr().err
        assert fingerprint(sweep) == before


def test_resume_command_with_added_point_and_changed_yaml_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    file = workplace / "conf" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: sgd\nlr: 0.1\n")
    overrides = [*SMALL, "optimizer=mine", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert nnopt("run", "-m", *overrides) == 0
    file.write_text("name: sgd\nlr: 0.2\n")
    assert nnopt("resume", "sweep", "seed=2") == 4
    assert "optimizer.lr was 0.1 and is 0.2" in capsys.readouterr().err
    assert len(table_of(workplace / "sweep")) == 2


def test_resume_command_with_wrong_sweep_json_is_refused(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    path = sweep / "sweep.json"
    text = path.read_text()
    for damaged, message in (
        (text[: len(text) // 2], "is damaged"),
        ("", "is damaged"),
        (text.replace('"batch_size": 32', '"batch_size": 33', 1), "is damaged"),
        (text.replace('"format": 1', '"format": 2'), "resume the sweep with the newer version"),
        (None, "sweep has no summary.json and no sweep.json"),
    ):
        path.unlink() if damaged is None else path.write_text(damaged)
        capsys.readouterr()
        assert nnopt("resume", "sweep") == 4
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_resume_command_on_folder_without_sweep_is_refused(
    nnopt: Run, sweep: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL) == 0
    for place, message in (
        (f"sweep/{table_of(sweep)[0]['id']}", "is a point; resume its sweep"),
        ("nowhere", "is not a folder"),
    ):
        capsys.readouterr()
        assert nnopt("resume", place) == 4
        assert message in capsys.readouterr().err


def test_resume_command_on_moved_sweep_runs_missing_points(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "t.csv").write_text("a,b,label\n" + "1,2,x\n3,4,y\n5,6,x\n7,8,y\n" * 20)
    overrides = ["dataset=csv", "dataset.train=t.csv", "epochs=1", "plots=false", "seed=0,1"]
    assert nnopt("run", "-m", *overrides, "hydra.sweep.dir=sweep") == 0
    expected = without_times(workplace / "sweep")
    shutil.rmtree(workplace / "sweep" / expected[1]["id"])
    (workplace / "elsewhere").mkdir()
    shutil.move(workplace / "sweep", workplace / "elsewhere" / "moved")
    monkeypatch.chdir(workplace / "elsewhere")
    assert nnopt("resume", "moved") == 0
    assert without_times(Path("moved")) == expected
    assert nnopt("resume", "moved", "seed=2") == 0
    assert statuses(Path("moved")) == ["done"] * 3
    assert not (workplace / "sweep").exists()


def test_fail_fast_stops_at_first_failure(nnopt: Run, workplace: Path) -> None:
    overrides = ["optimizer.lr=0.1,1e20,0.2", "epochs=5", "hydra.sweep.dir=sweep"]
    assert nnopt("run", "-m", *SMALL, *overrides, "--fail-fast") == 5
    assert statuses(workplace / "sweep") == ["done", "diverged", "pending"]
    assert nnopt("resume", "sweep", "--retry-failed", "--fail-fast") == 5
    assert statuses(workplace / "sweep") == ["done", "diverged", "pending"]
    assert nnopt("resume", "sweep") == 5
    assert statuses(workplace / "sweep") == ["done", "diverged", "done"]


def test_fail_fast_of_single_run_is_refused(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("run", *SMALL, "--fail-fast") == 2
    assert "--fail-fast applies to a sweep" in capsys.readouterr().err


def test_sweep_results_do_not_depend_on_order_of_points(nnopt: Run, workplace: Path) -> None:
    for name, values in (("up", "seed=0,1,2"), ("down", "seed=2,1,0")):
        assert nnopt("run", "-m", *SMALL, values, f"hydra.sweep.dir={name}") == 0
    assert nnopt("run", *SMALL, "seed=1", "hydra.run.dir=alone") == 0
    up = {row["id"]: row for row in without_times(workplace / "up")}
    for row in without_times(workplace / "down"):
        assert row | {"number": ""} == up[row["id"]] | {"number": ""}
        ways = [workplace / way / row["id"] for way in ("up", "down")]
        ways += [workplace / "alone"] if row["seed"] == "1" else []
        for name in ("model_best.npz", "model_last.npz"):
            assert len({(way / name).read_bytes() for way in ways}) == 1


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_interrupted_sweep_prints_resume_command(
    nnopt: Run, start_nnopt: Start, workplace: Path, number: signal.Signals, code: int
) -> None:
    overrides = [
        "dataset.samples_per_class=20",
        "plots=false",
        "epochs=1,100000,2",
        "hydra.sweep.dir=a sweep",
    ]
    process = start_nnopt("run", "-m", *overrides)
    wait_until(lambda: len(list(workplace.glob("a sweep/*/metrics.csv"))) == 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    why = "Ctrl-C" if number == signal.SIGINT else number.name
    command = "`nnopt resume 'a sweep'` runs the remaining points"
    assert err == f"nnopt: error: interrupted by {why}; {command}\n"
    assert statuses(workplace / "a sweep") == ["done", "interrupted", "pending"]


POINTS = ["seed=range(4)", "epochs=60", "dataset.samples_per_class=40", "plots=false"]


def test_sweep_killed_and_resumed_equals_uninterrupted_sweep(
    nnopt: Run, start_nnopt: Start, workplace: Path
) -> None:
    assert nnopt("run", "-m", *POINTS, "hydra.sweep.dir=whole") == 0
    random.seed(4)
    arguments = ["run", "-m", *POINTS, "hydra.sweep.dir=killed"]
    folder = workplace / "killed"
    for _ in range(2):
        process = start_nnopt(*arguments)
        wait_until(lambda: bool(list(folder.glob("*/lock"))))
        before = len(list(folder.glob("*/metrics.csv")))
        wait_until(lambda: len(list(folder.glob("*/metrics.csv"))) > before)  # noqa: B023
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL  # the process was still running
        arguments = ["resume", "killed"]
    assert nnopt("resume", "killed") == 0
    assert without_times(folder) == without_times(workplace / "whole")
    for row in table_of(folder):
        ways = [workplace / way / row["id"] / "model_best.npz" for way in ("killed", "whole")]
        assert ways[0].read_bytes() == ways[1].read_bytes()
    assert not list(folder.rglob("*.tmp"))


def test_sweep_points_are_shared_by_two_processes(
    nnopt: Run, start_nnopt: Start, workplace: Path
) -> None:
    assert nnopt("run", "-m", *POINTS, "hydra.sweep.dir=both") == 0
    expected, folder = without_times(workplace / "both"), workplace / "both"
    for row in expected:
        shutil.rmtree(folder / row["id"])
    processes = [start_nnopt("resume", "both") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert without_times(folder) == expected
    finished = [line for out, _ in outputs for line in out.splitlines() if line.startswith("[")]
    assert {line[:5] for line in finished} == {"[1/4]", "[2/4]", "[3/4]", "[4/4]"}
    assert all(any(line.startswith("[") for line in out.splitlines()) for out, _ in outputs)


def test_sweep_point_whose_folder_cannot_be_created_fails(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep") == 0
    folder = workplace / "sweep"
    (_, row) = table_of(folder)
    shutil.rmtree(folder / row["id"])
    (folder / row["id"]).write_text("in the way")
    capsys.readouterr()
    assert nnopt("resume", "sweep") == 5
    (_, row) = table_of(folder)
    assert row["status"] == "failed"
    assert "cannot create folder" in row["error"]
    captured = capsys.readouterr()
    assert "failed" in captured.out
    assert f"[2] {row['id']}: cannot create folder" in captured.err

    (folder / row["id"]).unlink()
    assert nnopt("resume", "sweep") == 0
    assert statuses(folder) == ["done", "done"]


def test_sweep_with_interrupted_point_exits_with_5(
    nnopt: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def cut_off(point: Point, directory: Path, *_: object, **__: object) -> None:
        write_json(directory / "summary.json", initial_summary(point) | {"status": "interrupted"})

    with monkeypatch.context() as patch:
        patch.setattr("nnopt.sweeps.task.run", cut_off)  # the effect of SIGTERM on a worker
        assert nnopt("run", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep") == 5
    assert "runs the remaining points: 2" in capsys.readouterr().out
    assert nnopt("resume", "sweep") == 0


def test_resume_command_with_changed_data_file_is_refused(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    def write(slope: int) -> None:
        rows = [f"{slope * row % 7},{row % 2}" for row in range(40)]
        (workplace / "rows.csv").write_text("\n".join(["x,label", *rows, ""]))
        _decode.cache_clear()  # a new process would start with an empty cache

    write(3)
    overrides = ["epochs=1", "plots=false", "dataset=csv", "dataset.train=rows.csv", "seed=0,1"]
    assert nnopt("run", "-m", *overrides, "hydra.sweep.dir=sweep") == 0
    assert nnopt("resume", "sweep", "seed=2") == 0
    write(5)
    capsys.readouterr()
    before = (workplace / "sweep/results.csv").read_bytes()
    assert nnopt("resume", "sweep") == 0  # no remaining point reads the file
    assert nnopt("resume", "sweep", "seed=3") == 4
    assert "rows.csv: changed since" in capsys.readouterr().err
    assert statuses(workplace / "sweep")[:3] == ["done"] * 3
    assert (workplace / "sweep/results.csv").read_bytes() == before
    write(3)
    assert nnopt("resume", "sweep") == 0
    assert statuses(workplace / "sweep") == ["done"] * 4


# a finished run -----------------------------------------------------------------------------------


def test_finished_run_with_a_checkpoint_is_evaluated_again_on_request(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "checkpoint.keep=true", "hydra.run.dir=run") == 0
    run = workplace / "run"
    before = fingerprint(run)
    assert nnopt("resume", "run", "max_time=1000") == 0
    assert "nothing is left to run" in capsys.readouterr().out
    assert fingerprint(run) == before
    assert nnopt("resume", "run", "evaluation.predictions=true") == 0
    assert len((run / "predictions.csv").read_text("utf-8").splitlines()) == 1 + 60
    after = fingerprint(run)
    for name in ("metrics.csv", "model_best.npz", "classes.csv"):
        assert after[str(run / name)][0] == before[str(run / name)][0]
    assert nnopt("resume", "run", "plots=true") == 0
    assert (run / "plots" / "curves.png").exists()


def test_finished_run_without_a_checkpoint_is_not_evaluated_again(
    nnopt: Run, workplace: Path, capsys: Captured
) -> None:
    assert nnopt("run", *SMALL, "hydra.run.dir=run") == 0
    before = fingerprint(workplace / "run")
    assert nnopt("resume", "run", "evaluation.predictions=true") == 4
    assert "started with checkpoint.keep=true" in capsys.readouterr().err
    assert fingerprint(workplace / "run") == before
