"""Single runs that are killed, interrupted, damaged or changed, and then resumed.

Most killed runs are simulated: a test copies the folder of a run while the run writes to it, and
resumes the copy.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, Trap
from omegaconf import OmegaConf

from nnopt.cli.main import run_verb
from nnopt.data.load import _decode
from nnopt.io.own_files import CHECKPOINTS
from nnopt.recipe.checkpoints import latest_checkpoint
from nnopt.results import checkpoint_file
from nnopt.results.checkpoint_file import read_checkpoint
from nnopt.terminal.interruption import postpone_interruptions
from nnopt.training.state import TrainingState

SMALL = ("batch_size=8", "dataset.samples_per_class=10", "plots=false", "architecture.hidden=[6]")
RUN = (
    *(*SMALL, "epochs=3", "optimizer=adam", "regularizer.dropout=0.2", "regularizer.norm=batch"),
    *("regularizer.ema_decay=0.9", "early_stopping.validate_every=2", "layer_statistics=true"),
    *("target.metric=validation_accuracy", "target.value=0.5", "evaluation.predictions=true"),
    "checkpoint.interval=1e-9",
)
"""Overrides of a run of nine steps that writes a checkpoint before every step."""

OTHER = {
    *("train_seconds", "total_seconds", "checkpoint_seconds", "seconds_to_target"),
    *("started", "finished"),
    *("peak_memory_mb", "versions", "threads", "interruptions", "files", "sha256", "overrides"),
}
"""Keys of a summary whose values may differ between a resumed and an uninterrupted run."""

Whole = Callable[[str], dict[str, Any]]

STEP = "nnopt.training.state.TrainingState.add_step"
VALIDATION = "nnopt.training.loop.evaluate"
TRAIN = "nnopt.recipe.evaluation.evaluate"
APPEND = "nnopt.results.metrics_file.MetricsFile.append"
SIGNALS = {
    signal.SIGINT: (130, "interrupted by Ctrl-C"),
    signal.SIGTERM: (143, "interrupted by SIGTERM"),
    signal.SIGHUP: (143, "interrupted by SIGHUP"),
    signal.SIGUSR1: (143, "interrupted by SIGUSR1"),
}


def weights_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("model_*.npz")}


def results(run: Path) -> dict[str, Any]:
    """Return the summary, weights and tables of a run, except values that resuming may change."""
    summary = json.loads((run / "summary.json").read_text())
    summary["config"] = {k: v for k, v in summary["config"].items() if k != "checkpoint"}
    found: dict[str, Any] = {key: value for key, value in summary.items() if key not in OTHER}
    found |= weights_of(run)
    for table in run.glob("*.csv"):
        with table.open(newline="") as file:
            rows = csv.DictReader(file)
            found[table.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return found


@pytest.fixture(autouse=True)
def at_any_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write checkpoints at the configured interval, even if they take most of the time."""
    monkeypatch.setattr("nnopt.recipe.checkpoints.MAX_COST", math.inf)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that runs ``RUN`` with a backend and returns a folder with two subfolders.

    ``whole`` is the folder of the complete run. ``killed`` is a copy of it, made in the third
    epoch.
    """
    made: dict[str, Path] = {}

    def run(backend: str) -> Path:
        if backend in made:
            return made[backend]
        made[backend] = folder = tmp_path_factory.mktemp(backend)
        add_step = TrainingState.add_step

        def copying(state: TrainingState, *arguments: Any) -> None:
            if state.step == 7:
                shutil.copytree(folder / "whole", folder / "killed")
            add_step(state, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainingState, "add_step", copying)
            arguments = [*RUN, f"backend={backend}", f"hydra.run.dir={folder / 'whole'}"]
            assert run_verb(["run", *arguments]) == 0
        return folder

    return run


@pytest.fixture
def whole(sent: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """Return a function that returns the results of an uninterrupted run of a backend."""
    return lambda backend: results(sent(backend) / "whole")


@pytest.fixture
def killed(sent: Callable[[str], Path], workplace: Path, backend: str) -> Path:
    """Return the folder of a run that looks as if it was killed in its third epoch."""
    return Path(shutil.copytree(sent(backend) / "killed", workplace / "killed"))


def newest(run: Path) -> Path:
    """Return the path of the newer of a run's two checkpoints."""
    assert all((run / name).exists() for name in CHECKPOINTS)
    return max((run / name for name in CHECKPOINTS), key=lambda x: read_checkpoint(x).step)


def changed(run: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Apply ``change`` to the values and arrays of a run's checkpoints; correct the checksums."""
    for path in (run / name for name in CHECKPOINTS if (run / name).exists()):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name not in ("values", "sha256")}
            values = json.loads(file["values"].tobytes())
        change(values, arrays)
        arrays["values"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, sha256=checkpoint_file._digest(arrays), **arrays)


# kill -9 ------------------------------------------------------------------------------------------

MOMENTS = {
    "before the training": ("nnopt.recipe.run.build", 1, "has no checkpoint; the run starts over"),
    "in the first step": (STEP, 1, "the run continues after step 0"),
    "within an epoch": (STEP, 5, "the run continues after step 4"),
    "in an evaluation": (VALIDATION, 3, "the run continues after step 3"),
    "in a checkpoint": ("nnopt.io.atomic_files.os.replace", 6, "the run continues after step 2"),
    "after a row": (APPEND, 3, "the run continues after step 5"),
    "in the test": ("nnopt.recipe.run.evaluate", 1, "the run continues after step 8"),
    "in the evaluation of the training part": (TRAIN, 1, "the run continues after step 8"),
}


@pytest.mark.parametrize(("name", "count", "note"), MOMENTS.values(), ids=MOMENTS)
def test_run_killed_and_resumed_gives_equal_bits(
    attempt: Command,
    workplace: Path,
    backend: str,
    trap: Trap,
    name: str,
    count: int,
    note: str,
    whole: Whole,
) -> None:
    trap(name, count, lambda: shutil.copytree("run", "killed"))
    attempt("run", *RUN, f"backend={backend}", "hydra.run.dir=run").is_done()
    attempt("resume", "killed").is_done(note)
    assert results(workplace / "killed") == whole(backend)
    assert not [name for name in CHECKPOINTS if (workplace / "killed" / name).exists()]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_resumed_run_keeps_its_checkpoint_until_the_next_is_complete(
    attempt: Command, killed: Path, trap: Trap, name: str
) -> None:
    found = {read_checkpoint(killed / x).step: (killed / x).read_bytes() for x in CHECKPOINTS}
    for file in CHECKPOINTS:
        (killed / file).write_bytes(found[7 if file == name else 6])
    used, kept = killed / name, []
    before = used.read_bytes()
    trap(STEP, 1, lambda: kept.append(used.read_bytes() == before))
    attempt("resume", "killed").is_done("the run continues after step 7")
    assert kept == [True]


PROGRAM = """
import itertools, math, os, signal, sys
import nnopt.recipe.checkpoints as checkpoints
from nnopt.training.state import TrainingState
checkpoints.MAX_COST, add_step, steps = math.inf, TrainingState.add_step, itertools.count(1)
def killed(*words):
    add_step(*words)
    if next(steps) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
TrainingState.add_step = killed
from nnopt.cli.main import main; main()
"""


def test_process_killed_twice_and_resumed_gives_equal_bits(
    attempt: Command, workplace: Path, whole: Whole
) -> None:
    for arguments in (["run", *RUN, "hydra.run.dir=killed"], ["resume", "killed"]):
        process = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
    attempt("resume", "killed").is_done("the run continues after step 6")
    assert results(workplace / "killed") == whole("numpy")


# signals and Ctrl-C -------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "expected"), SIGNALS.items(), ids=[x.name for x in SIGNALS])
def test_run_stopped_by_signal_and_resumed_gives_equal_bits(
    attempt: Command,
    workplace: Path,
    backend: str,
    trap: Trap,
    whole: Whole,
    number: signal.Signals,
    expected: tuple[int, str],
) -> None:
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        signal.raise_signal(number)

    trap(STEP, 5, send)
    result = attempt("run", *RUN, f"backend={backend}", "hydra.run.dir=run")
    assert time.monotonic() - sent[0] < 2
    result.is_refused(expected[0], f"{expected[1]}; `nnopt resume run` continues the run")
    assert latest_checkpoint(workplace / "run").step == 5
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", expected[1])
    attempt("resume", "run").is_done("the run continues after step 5")
    assert results(workplace / "run") == whole(backend)
    assert json.loads((workplace / "run" / "summary.json").read_text())["interruptions"] == 1


PLACES = {
    "in an evaluation": (VALIDATION, 3, 4),
    "in a checkpoint": ("nnopt.io.atomic_files.os.replace", 6, 4),
    "at the last row": (APPEND, 5, 9),
    "in the test": ("nnopt.recipe.run.evaluate", 1, 9),
    "in the evaluation of the training part": (TRAIN, 1, 9),
}


@pytest.mark.parametrize(("name", "count", "step"), PLACES.values(), ids=PLACES)
def test_run_stopped_by_sigterm_outside_steps_writes_complete_checkpoint(
    attempt: Command, workplace: Path, backend: str, trap: Trap, whole: Whole,
    name: str, count: int, step: int,
) -> None:  # fmt: skip
    """Only the signal causes a checkpoint, except in the case "in a checkpoint"."""
    trap(name, count, lambda: signal.raise_signal(signal.SIGTERM))
    interval = "checkpoint.interval=1e-9" if "os." in name else "checkpoint.interval=30"
    attempt("run", *RUN, f"backend={backend}", interval, "hydra.run.dir=run").is_refused(143)
    assert latest_checkpoint(workplace / "run").step == step
    attempt("resume", "run").is_done(f"the run continues after step {step}")
    assert results(workplace / "run") == whole(backend)


def test_run_receiving_sigterm_during_final_summary_is_finished(
    attempt: Command, workplace: Path, trap: Trap, whole: Whole
) -> None:
    write = "nnopt.recipe.recorder.write_summary"
    trap(write, 2, lambda: signal.raise_signal(signal.SIGTERM))
    result = attempt("run", *RUN, "hydra.run.dir=run")
    result.is_refused(143, "interrupted by SIGTERM; the run is finished\n")
    assert results(workplace / "run") == whole("numpy")
    attempt("resume", "run").is_done("run is finished (done); nothing is left to run")


def test_run_interrupted_after_every_step_and_resumed_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str, whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    add_step = TrainingState.add_step

    def interrupted(*arguments: Any) -> None:
        add_step(*arguments)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "add_step", interrupted)
        attempt("run", *RUN, f"backend={backend}", "hydra.run.dir=run").is_refused(143)
        codes = [attempt("resume", "run").code for _ in range(8)]
    assert set(codes) == {143}
    attempt("resume", "run").is_done("the run continues after step 9")
    assert results(workplace / "run") == whole(backend)
    assert json.loads((workplace / "run" / "summary.json").read_text())["interruptions"] == 9


def test_checkpoint_interval_0_writes_checkpoint_after_each_epoch_but_the_last(
    attempt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(
        "nnopt.recipe.checkpoints.write_checkpoint", lambda path, x: steps.append(x.step)
    )
    attempt("run", *RUN, "checkpoint.interval=0", "hydra.run.dir=run").is_done()
    assert steps == [3, 6]


def test_checkpoint_keep_option_leaves_only_the_last_checkpoint(
    attempt: Command, workplace: Path
) -> None:
    attempt("run", *RUN, "checkpoint.keep=true", "hydra.run.dir=run").is_done()
    (kept,) = (workplace / "run").glob("checkpoint_*")
    assert read_checkpoint(kept).step == 9


TWICE = """
import math, signal
import nnopt.recipe.checkpoints as checkpoints
from nnopt.training.state import TrainingState
checkpoints.MAX_COST, add_step = math.inf, TrainingState.add_step
def interrupted(self, *words):
    add_step(self, *words)
    if self.step == 5:
        signal.raise_signal(signal.SIGINT)
        checkpoints.write_checkpoint = lambda *_: signal.raise_signal(signal.SIGINT)
TrainingState.add_step = interrupted
from nnopt.cli.main import main; main()
"""


def test_second_ctrl_c_during_checkpoint_keeps_previous_checkpoint(
    attempt: Command, workplace: Path, whole: Whole
) -> None:
    command = [sys.executable, "-c", TWICE, "run", *RUN, "hydra.run.dir=run"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 130
    assert ended.stderr == "nnopt: error: interrupted twice; left at once\n"
    attempt("resume", "run").is_done("the run continues after step 4")
    assert results(workplace / "run") == whole("numpy")


# damaged checkpoints ------------------------------------------------------------------------------


def flipped(data: bytes, place: float) -> bytes:
    """Return ``data`` with one bit flipped, at ``place``: 0 is the start, and 1 is the end."""
    bit = int(place * 8 * len(data))
    changed = data[bit // 8] ^ 1 << bit % 8
    return data[: bit // 8] + bytes([changed]) + data[bit // 8 + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "10 bytes": lambda data: data[:10],
    "half": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "one bit": lambda data: flipped(data, data.index(b"validated_step") / len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_resume_command_with_damaged_newest_checkpoint_uses_previous_one(
    attempt: Command, killed: Path, backend: str, whole: Whole, damage: Callable[[bytes], bytes]
) -> None:
    path = newest(killed)
    path.write_bytes(damage(path.read_bytes()))
    attempt("resume", "killed").is_done(
        f"{path.name} is damaged", "the other checkpoint is used", "continues after step 6"
    )
    assert results(killed) == whole(backend)


def test_latest_checkpoint_with_flipped_bit_is_not_used_or_has_same_values(killed: Path) -> None:
    """Bits outside of the values, such as those of ZIP timestamps, do not damage a checkpoint."""
    path, older = newest(killed), latest_checkpoint(killed)
    data, expected = path.read_bytes(), repr(older.training)
    used = []
    for place in np.random.default_rng(0).random(20):
        path.write_bytes(flipped(data, place))
        found = latest_checkpoint(killed)
        assert found.step in (6, 7)
        assert found.step == 6 or repr(found.training) == expected
        used.append(found.step)
    assert used.count(6) > 5


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_resume_command_with_both_checkpoints_damaged_is_refused(
    attempt: Command, killed: Path, damage: Callable[[bytes], bytes]
) -> None:
    for name in CHECKPOINTS:
        (killed / name).write_bytes(damage((killed / name).read_bytes()))
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    result = attempt("resume", "killed")
    result.is_refused(4, "is damaged")
    assert len(result.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in before} == before


def test_resume_command_with_restart_option_starts_damaged_run_over(
    attempt: Command, killed: Path, backend: str, whole: Whole
) -> None:
    for name in CHECKPOINTS:
        (killed / name).write_bytes(b"")
    result = attempt("resume", "killed", "--restart")
    result.is_done("the run starts over")
    assert "has no checkpoint" not in result.out
    assert results(killed) == whole(backend)


def test_resume_command_without_checkpoints_starts_run_over_with_note(
    attempt: Command, killed: Path, backend: str, whole: Whole
) -> None:
    for name in CHECKPOINTS:
        (killed / name).unlink()
    attempt("resume", "killed").is_done("killed has no checkpoint; the run starts over")
    assert results(killed) == whole(backend)


def test_resume_command_restores_deleted_summary_and_tables_from_checkpoint(
    attempt: Command, killed: Path, backend: str, whole: Whole
) -> None:
    for name in ("summary.json", "metrics.csv", "config.yaml", "run.log", "layers.csv"):
        (killed / name).unlink()
    attempt("resume", "killed").is_done("the run continues after step 7")
    assert results(killed) == whole(backend)


# checkpoints of other runs ------------------------------------------------------------------------

FOREIGN = {
    "architecture": ("architecture.hidden=[7]", "architecture.hidden was [7] and is [6]"),
    "dtype": ("backend.dtype=float64", "backend.dtype was 'float64' and is 'float32'"),
    "optimizer": ("optimizer=sgd", "optimizer.name was 'sgd' and is 'adam'"),
    "seed": ("seed=1", "seed was 1 and is 0"),
    "dataset": ("dataset.noise=0.5", "dataset.noise was 0.5 and is 0.15"),
    "backend": ("", "backend.name was "),
}


@pytest.mark.parametrize(("override", "difference"), FOREIGN.values(), ids=FOREIGN)
def test_resume_command_with_checkpoint_of_another_run_is_refused(
    attempt: Command, trap: Trap, killed: Path, backend: str, override: str, difference: str
) -> None:
    trap(STEP, 5, lambda: shutil.copytree("run2", "other"))
    other = override or f"backend={'torch' if backend == 'numpy' else 'numpy'}"
    words = [*(x for x in RUN if not x.startswith(other.split("=")[0])), f"backend={backend}"]
    attempt("run", *words, other, "hydra.run.dir=run2").is_done()
    for name in CHECKPOINTS:
        shutil.copy(Path("other", name), killed / name)
    result = attempt("resume", "killed")
    result.is_refused(4, "belongs to a run with another configuration", difference, "--restart")
    assert len(result.err.splitlines()) == 1


def test_resume_command_with_checkpoint_in_newer_format_is_refused(
    attempt: Command, killed: Path
) -> None:
    now = checkpoint_file.FORMAT
    changed(killed, lambda values, _: values.update(format=now + 1))
    message = f"has format {now + 1}, but this nnopt reads format {now}"
    attempt("resume", "killed").is_refused(4, message)


ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda x: x.pop("last/dense1.weight"), "dense1.weight is missing"),
    "unexpected": (lambda x: x.update({"network/x": np.zeros(1)}), "x is unexpected"),
    "of another shape": (
        lambda x: x.update({"last/dense1.weight": np.zeros((7, 2), np.float32)}),
        "dense1.weight is float32 (7, 2), expected float32 (6, 2)",
    ),
    "of another type": (
        lambda x: x.update({"last/dense1.weight": np.zeros((6, 2))}),
        "dense1.weight is float64 (6, 2), expected float32 (6, 2)",
    ),
    "renamed": (
        lambda x: [x.update({n + "2": x.pop(n)}) for n in list(x) if n.startswith("network/")],
        " more",
    ),
    "without the average": (
        lambda x: [x.pop(name) for name in list(x) if name.startswith("network/average/")],
        "its average of the weights is missing or unexpected",
    ),
    "not finite": (lambda x: x.update({"network/optimizer/k/0": np.array(np.inf)}), "unexpected"),
}


@pytest.mark.parametrize(("change", "difference"), ARRAYS.values(), ids=ARRAYS)
def test_resume_command_with_arrays_of_another_network_is_refused(
    attempt: Command, killed: Path, change: Callable[[dict[str, Any]], object], difference: str
) -> None:
    changed(killed, lambda values, arrays: change(arrays))
    result = attempt("resume", "killed")
    result.is_refused(4, "does not fit the network", difference, "--restart starts over")
    assert len(result.err.splitlines()) == 1


CSV = ["dataset=csv", "dataset.train=t.csv", "plots=false", "batch_size=8", "epochs=2"]


@pytest.fixture
def table(workplace: Path) -> Path:
    """Write a CSV file with 40 rows and return its path.

    In a run with the overrides ``CSV``, an epoch has four batches.
    """
    rows = ["x,y,label", *(f"{k % 7}.5,{k % 5}.5,{k % 2}" for k in range(40))]
    (workplace / "t.csv").write_text("\n".join(rows))
    return workplace / "t.csv"


def test_resume_command_with_new_path_of_moved_data_continues_run(
    attempt: Command, table: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = table.parent / "run"
    attempt("run", *CSV, f"hydra.run.dir={run}2").is_done()
    trap(STEP, 3, lambda: signal.raise_signal(signal.SIGTERM))
    attempt("run", *CSV, f"hydra.run.dir={run}").is_refused(143)
    (table.parent / "other").mkdir()
    table.rename("other/moved.csv")
    monkeypatch.chdir("other")
    attempt("resume", str(run)).is_refused(3, "t.csv")
    attempt("resume", str(run), "dataset.train=moved.csv").is_done("continues after step 3")
    assert weights_of(run) == weights_of(Path(f"{run}2"))


def test_resume_command_with_swapped_training_and_test_files_is_refused(
    attempt: Command, table: Path, trap: Trap
) -> None:
    lines = table.read_text().splitlines()
    Path("other.csv").write_text("\n".join([*lines[:-1], "0.25,0.5,1"]))
    trap(STEP, 3, lambda: signal.raise_signal(signal.SIGTERM))
    attempt("run", *CSV, "dataset.test=other.csv", "hydra.run.dir=run").is_refused(143)
    swapped = ["dataset.train=other.csv", "dataset.test=t.csv"]
    attempt("resume", "run", *swapped).is_refused(4, "changed since the run read them")
    attempt("resume", "run").is_done("continues after step 3")


def test_resume_command_on_moved_sweep_continues_a_point_from_its_checkpoint(
    attempt: Command, table: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "-m", *CSV, "seed=0,1"]
    before, after = (table.parent / name for name in ("before", "after"))
    before.mkdir()
    table.rename(before / "t.csv")
    monkeypatch.chdir(before)
    attempt(*words, "hydra.sweep.dir=../whole").is_done()
    trap(STEP, 3, lambda: signal.raise_signal(signal.SIGTERM))
    attempt(*words, "hydra.sweep.dir=sweep").is_refused(143)
    monkeypatch.chdir(before.rename(after))
    attempt("resume", "sweep").is_done()
    runs = sorted(Path("sweep").glob("*/summary.json"))
    assert sorted(json.loads(x.read_text())["interruptions"] for x in runs) == [0, 1]
    for run in (path.parent for path in runs):
        assert weights_of(run) == weights_of(Path("../whole", run.name))


def test_resume_command_after_change_of_data_is_refused(
    attempt: Command, workplace: Path, backend: str, trap: Trap
) -> None:
    rows = ["x,y,label", *(f"{k % 7}.5,{k % 5}.5,{k % 2}" for k in range(40))]
    (workplace / "table.csv").write_text("\n".join(rows))
    trap(STEP, 3, lambda: shutil.copytree("run", "killed"))
    words = ["dataset=csv", "dataset.train=table.csv", "data.root=.", "plots=false"]
    interval = ["checkpoint.interval=1e-9", "batch_size=8", "epochs=2"]
    attempt("run", *words, *interval, f"backend={backend}", "hydra.run.dir=run").is_done()
    (workplace / "table.csv").write_text("\n".join([*rows[:-1], "0.25,0.5,1"]))
    _decode.cache_clear()
    attempt("resume", "killed").is_refused(4, "changed since the run read them", "table.csv")
    (workplace / "table.csv").write_text("\n".join(rows))
    _decode.cache_clear()
    attempt("resume", "killed").is_done("the run continues after step 2")
    assert results(workplace / "killed") == results(workplace / "run")


# longer training ----------------------------------------------------------------------------------

LONGER = {
    "constant": ["schedule=constant", "optimizer=adam", "regularizer.ema_decay=0.9"],
    "step": ["schedule=step", "schedule.step_size=1"],
    "exponential": ["schedule=exponential"],
    "inverse_time": ["schedule=inverse_time"],
    "multistep": ["schedule=multistep", "schedule.milestones=[0.5,1.5]"],
    "cosine_restarts": ["schedule=cosine_restarts", "schedule.first_period=0.7"],
    "plateau": ["schedule=plateau", "schedule.patience=0", "schedule.min_delta=0.3"],
}


@pytest.mark.parametrize(
    ("backend", "schedule"),
    [
        *(pytest.param("numpy", schedule, id=name) for name, schedule in LONGER.items()),
        pytest.param("torch", LONGER["plateau"], id="torch-plateau"),
    ],
)
def test_run_resumed_with_more_epochs_equals_longer_training(
    attempt: Command, workplace: Path, backend: str, schedule: list[str]
) -> None:
    words = ["run", *SMALL, *schedule, f"backend={backend}"]
    attempt(*words, "epochs=2", "checkpoint.keep=true", "hydra.run.dir=run").is_done()
    attempt(*words, "epochs=4", "hydra.run.dir=long").is_done()
    attempt("resume", "run", "epochs=4").is_done("the run continues after step 6")
    assert results(workplace / "run") == results(workplace / "long")


KEPT = ["epochs=4", "checkpoint.keep=true"]
REFUSED = {
    "cosine": (["schedule=cosine", *KEPT], "schedule.name = 'cosine' depends on it"),
    "polynomial": (
        ["schedule=polynomial", *KEPT],
        "schedule.name = 'polynomial' depends on it",
    ),
    "one_cycle": (["schedule=one_cycle", *KEPT], "schedule.name = 'one_cycle' depends on it"),
    "SWA": (["regularizer.swa_start=0.5", *KEPT], "regularizer.swa_start = 0.5 depends on it"),
    "early stopping": (
        ["early_stopping.patience=1", "early_stopping.min_delta=0.9", *KEPT],
        "early stopping has ended the training",
    ),
    "max_steps": (["max_steps=5", *KEPT], "max_steps = 5 has ended the last epoch"),
    "not kept": (["epochs=4"], "started with checkpoint.keep=true can be trained longer"),
}


@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED)
def test_resume_command_with_more_epochs_is_refused_if_past_steps_would_differ(
    attempt: Command, workplace: Path, options: list[str], reason: str
) -> None:
    attempt("run", *SMALL, *options, "hydra.run.dir=run").is_done()
    before = results(workplace / "run")
    more = "max_steps=9" if "max_steps=5" in options else "epochs=8"
    refused = attempt("resume", "run", more)
    refused.is_refused(4, reason, "start a new run")
    assert "--restart" not in refused.err
    assert results(workplace / "run") == before


OLD_RULE = "early_stopping.min_delta = 0.1 is from an earlier version"


@pytest.fixture
def stopping_run(attempt: Command, workplace: Path) -> Path:
    """Return a finished run with early stopping, which has a checkpoint."""
    stopping = ["early_stopping.patience=50", "early_stopping.min_delta=0.1"]
    attempt("run", *SMALL, *stopping, "epochs=1", *KEPT[1:], "hydra.run.dir=run").is_done()
    return workplace / "run"


def without_mode(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary as a version wrote it that lacked the key ``min_delta_mode``."""
    stopping = dict(summary["config"]["early_stopping"])
    del stopping["min_delta_mode"]
    return {**summary, "config": {**summary["config"], "early_stopping": stopping}}


def test_resume_of_an_old_run_with_min_delta_is_refused(
    attempt: Command, stopping_run: Path
) -> None:
    """The earlier version also chose the best weights with ``min_delta``."""
    path = stopping_run / "summary.json"
    summary = without_mode(json.loads(path.read_text("utf-8")))
    del summary["sha256"]
    path.write_text(json.dumps(summary), "utf-8")
    before = results(stopping_run)
    reason = f"the configuration in {stopping_run} is not valid"
    attempt("resume", "run", "epochs=2").is_refused(4, reason, OLD_RULE)
    attempt("resume", "run", "--restart").is_refused(4, reason, OLD_RULE)
    assert results(stopping_run) == before


def test_resume_from_an_old_checkpoint_with_min_delta_is_refused(
    attempt: Command, stopping_run: Path
) -> None:
    """The message names the checkpoint, and the remedy starts over with the new rule."""
    checkpoint = latest_checkpoint(stopping_run)
    assert checkpoint is not None
    old = replace(checkpoint, summary=without_mode(dict(checkpoint.summary)))
    checkpoint_file.write_checkpoint(checkpoint.path, old)
    before = results(stopping_run)
    place = f"run/{checkpoint.path.name} cannot be continued"
    refused = attempt("resume", "run", "epochs=2")
    refused.is_refused(4, place, OLD_RULE, "--restart starts over")
    assert results(stopping_run) == before
    attempt("resume", "run", "epochs=2", "--restart").is_done()


def test_resume_command_with_more_epochs_after_first_swa_average_is_refused(
    attempt: Command, workplace: Path, trap: Trap
) -> None:
    """SIGTERM arrives after an update of the SWA average, before the epoch's row is written."""
    recompute = "nnopt.backends.numpy.network.NumpyNetwork.recompute_statistics"
    trap(recompute, 1, lambda: signal.raise_signal(signal.SIGTERM))
    options = ["regularizer.norm=batch", "regularizer.swa_start=0.5", "epochs=4"]
    attempt("run", *SMALL, *options, "hydra.run.dir=run").is_refused(143)
    training = latest_checkpoint(workplace / "run").training.values
    assert (training["averaging"]["epochs"], len(training["history"])) == (1, 1)
    attempt("resume", "run", "epochs=12").is_refused(4, "regularizer.swa_start = 0.5 depends on it")
    attempt("resume", "run").is_done("the run continues after step")


def test_failed_resume_command_with_more_epochs_keeps_finished_run(
    attempt: Command, workplace: Path
) -> None:
    run = workplace / "run"
    attempt("run", *SMALL, *KEPT, "hydra.run.dir=run").is_done()
    changed(run, lambda values, arrays: arrays.pop("last/dense1.weight"))
    before = {name: (run / name).read_bytes() for name in ("summary.json", "config.yaml")}
    attempt("resume", "run", "epochs=5").is_refused(4, "does not fit the network")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_resume_command_with_fewer_epochs_is_refused(attempt: Command, workplace: Path) -> None:
    attempt("run", *SMALL, *KEPT, "hydra.run.dir=run").is_done()
    attempt("resume", "run", "epochs=3").is_refused(4, "12 steps are already done")
    attempt("resume", "run", "optimizer.lr=1").is_refused(2, "only these keys can change")


# finished runs and the time limit -----------------------------------------------------------------


def test_resume_command_on_finished_run_changes_files_only_with_restart(
    attempt: Command, sent: Callable[[str], Path], whole: Whole, backend: str
) -> None:
    shutil.copytree(sent(backend) / "whole", "run")
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    attempt("resume", "run").is_done("run is finished (done); nothing is left to run")
    assert {path: path.read_bytes() for path in before} == before
    attempt("resume", "run", "--restart").is_done("the run starts over", "test accuracy")
    assert results(Path("run")) == whole(backend)


def test_run_stopped_by_max_time_and_resumed_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str, trap: Trap, whole: Whole
) -> None:
    trap(STEP, 5, lambda: time.sleep(1))
    words = [*(x for x in RUN if "interval" not in x), f"backend={backend}", "max_time=1"]
    result = attempt("run", *words, "hydra.run.dir=run")
    result.is_refused(5, "took longer than max_time = 1 s; `nnopt resume run` continues the run")
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert summary["status"] == "timeout"
    assert latest_checkpoint(workplace / "run") is not None
    attempt("resume", "run", "max_time=60").is_done("the run continues after step")
    found, expected = results(workplace / "run"), whole(backend)
    found["config"]["max_time"] = None
    assert found == expected


def test_time_of_the_target_does_not_include_an_interruption(
    attempt: Command, workplace: Path, trap: Trap
) -> None:
    """The run reaches its target after it is resumed. The process waits before it resumes."""
    words = (*RUN, "target.metric=train_loss", "target.value=100", "epochs=1")
    trap(STEP, 2, lambda: signal.raise_signal(signal.SIGTERM))
    attempt("run", *words, "hydra.run.dir=run").is_refused(143)
    time.sleep(1.5)
    attempt("resume", "run").is_done()
    summary = json.loads((workplace / "run" / "summary.json").read_text())
    assert summary["steps_to_target"] == 3
    assert 0 < summary["seconds_to_target"] <= summary["train_seconds"]
    assert summary["seconds_to_target"] < 1.5


def test_run_of_checkpoint_format_2_is_continued(
    attempt: Command, workplace: Path, killed: Path, backend: str, whole: Whole
) -> None:
    """An earlier version had no target, no evaluation of the training part and fewer statistics."""

    def to_format_2(values: dict[str, Any], arrays: dict[str, Any]) -> None:
        values["format"] = 2
        for key in ("target", "updates"):
            del values["training"][key]
        del values["training"]["stopping"]["reference"]
        values["layers"] = [row[:-2] for row in values["layers"]]
        for name in ("target", "evaluation"):
            del values["summary"]["config"][name]

    changed(killed, to_format_2)
    config = OmegaConf.to_container(OmegaConf.load(killed / "config.yaml"))
    assert isinstance(config, dict)
    old = {key: value for key, value in config.items() if key not in ("target", "evaluation")}
    OmegaConf.save(OmegaConf.create(old), killed / "config.yaml")
    summary = json.loads((killed / "summary.json").read_text())
    del summary["sha256"]
    for name in ("target", "evaluation"):
        del summary["config"][name]
    summary["overrides"] = [
        x for x in summary["overrides"] if not x.startswith(("target", "evaluation"))
    ]
    (killed / "summary.json").write_text(json.dumps(summary))

    attempt("resume", "killed").is_done("the run continues after step")
    found, expected = results(killed), whole(backend)
    for name in ("metrics.csv", "model_best.npz", "model_last.npz", "train_accuracy"):
        assert found[name] == expected[name], name
    assert found["target_reached"] is None
    added = ("weight_norm", "update_ratio")
    for row, new in zip(found["layers.csv"], expected["layers.csv"], strict=True):
        known = {key: value for key, value in new.items() if key not in added}
        assert {key: row[key] for key in known} == known
        if row["epoch"] != "3":
            assert [row[key] for key in added] == ["", ""]
        elif new["weight_norm"]:
            assert [row[key] for key in added] == [new[key] for key in added]


def test_run_over_max_time_advances_by_one_step_per_resume_command(
    attempt: Command, workplace: Path, whole: Whole
) -> None:
    attempt("run", *RUN, "max_time=1e-6", "hydra.run.dir=run").is_refused(5)
    for step in range(1, 9):
        result = attempt("resume", "run")
        assert result.code == 5
        assert result.out.startswith(f"the run continues after step {step}\n")
    attempt("resume", "run").is_done("the run continues after step 9")
    found = results(workplace / "run")
    found["config"]["max_time"] = None
    assert found == whole("numpy")


def test_max_time_stops_a_run_whose_interruptions_are_postponed(
    attempt: Command, trap: Trap
) -> None:
    """The other context is entered during the run and left after it, as if by a second thread."""
    with ExitStack() as other:
        trap(STEP, 1, lambda: other.enter_context(postpone_interruptions()))
        attempt("run", *RUN, "max_time=1e-6").is_refused(5, "took longer than max_time")


# runs from a hostile sender -----------------------------------------------------------------------


def in_group(group: str, **wrong: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    """Return a function that writes ``wrong`` to ``values[group]`` of a checkpoint."""
    return lambda values, arrays: values[group].update(wrong)


def in_config(values: dict[str, Any], **wrong: Any) -> None:
    values["summary"]["config"].update(wrong)


CRAFTED: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "no summary": lambda values, arrays: values.pop("summary"),
    "an empty summary": lambda values, arrays: values["summary"].clear(),
    "a list of data": in_group("summary", data=["x"]),
    "a list of sources": in_group("summary", data={"sources": ["x"]}),
    "no data": in_group("summary", data=None),
    "seconds as text": in_group("summary", total_seconds="long", train_seconds="long"),
    "seconds are null": in_group("summary", total_seconds=None, checkpoint_seconds=None),
    "interruptions as text": in_group("summary", interruptions="x"),
    "start time as a word": in_group("summary", started="never"),
    "an empty configuration": in_group("summary", config={}),
    "a deep configuration": in_group("summary", config={"a": [[[[[[[[[[[[[["x"]]]]]]]]]]]]]]}),
    "epochs as text": lambda values, arrays: in_config(values, epochs="x"),
    "a group that is a text": lambda values, arrays: in_config(values, optimizer="adam"),
    "a long value": lambda values, arrays: in_config(values, seed="x" * 90_000),
    "many keys": lambda values, arrays: in_config(values, **{f"k{k}": k for k in range(1000)}),
    "no numbers": in_group("training", numbers=[]),
    "history is a number": in_group("training", history=3),
    "averaged epochs below 0": in_group("training", averaging={"epochs": -1, "averaged_epoch": 0}),
    "more than 64 bits": in_group("training", averaging={"epochs": 10**400, "averaged_epoch": 0}),
    "learning rates of a longer run": lambda values, arrays: arrays.update(
        learning_rates=np.full(1000, 0.1)
    ),
    "a matrix of learning rates": lambda values, arrays: arrays.update(
        learning_rates=np.ones((2, 2))
    ),
    "no learning rates": lambda values, arrays: arrays.pop("learning_rates"),
    "a text for layers": lambda values, arrays: values.update(layers="x"),
    "layers of another network": lambda values, arrays: values.update(
        layers=[[1, "../../x\x1b[2J", 1e308, math.nan, None, None, None]]
    ),
    "weights that are not finite": lambda values, arrays: [
        array.fill(math.nan) for array in arrays.values() if array.dtype == np.float32
    ],
    "other learning rates": lambda values, arrays: arrays["learning_rates"].fill(-math.inf),
    "losses that are not finite": lambda values, arrays: arrays["losses"].fill(math.nan),
    "a negative number of updates": lambda values, arrays: arrays.update(
        {"network/optimizer/steps": np.array(-1)}
    ),
}


@pytest.mark.parametrize("backend", ["numpy"])
@pytest.mark.parametrize("change", CRAFTED.values(), ids=CRAFTED)
def test_resume_command_with_crafted_checkpoint_is_refused_or_harmless(
    attempt: Command, workplace: Path, killed: Path, change: Callable[..., object]
) -> None:
    """The checkpoints have correct checksums. ``attempt`` asserts that there is no traceback."""
    changed(killed, change)
    outside = sorted(path for path in workplace.iterdir() if path != killed)
    result = attempt("resume", "killed")
    assert result.code in (0, 4, 5), result.err
    assert len(result.err) < 2_000
    assert len(result.err.splitlines()) <= 1
    assert "\x1b" not in result.out + result.err
    assert sorted(path for path in workplace.iterdir() if path != killed) == outside


NAMES = (*CHECKPOINTS, "summary.json", "metrics.csv", "model_last.npz", "run.log", "plots", "lock")


@pytest.mark.parametrize("backend", ["numpy"])
@pytest.mark.parametrize("name", NAMES)
def test_resume_command_on_folder_with_link_is_refused(
    attempt: Command, workplace: Path, killed: Path, name: str
) -> None:
    (workplace / "outside").mkdir()
    target = workplace / "outside" / "file"
    target.write_text("private")
    (killed / name).unlink(missing_ok=True)
    (killed / name).symlink_to("../outside" if name == "plots" else "../outside/file")
    attempt("resume", "killed").is_refused(4, name, "link")
    attempt("resume", "killed", "--restart").is_refused(4, name, "link")
    assert [x.name for x in (workplace / "outside").iterdir()] == ["file"]
    assert target.read_text() == "private"


def test_resume_command_with_changed_configuration_writes_only_to_folder_of_run(
    attempt: Command, workplace: Path, killed: Path
) -> None:
    """The stored configuration names other folders and a download; nnopt uses none of them."""
    stored = json.loads((killed / "summary.json").read_text())
    paths = {"root": str(workplace / "root"), "cache": str(workplace / "cache"), "download": True}
    stored["config"]["data"] |= paths
    del stored["sha256"]
    (killed / "summary.json").write_text(json.dumps(stored))
    attempt("resume", "killed").is_done("the run continues after step 7")
    assert list(workplace.iterdir()) == [killed]
