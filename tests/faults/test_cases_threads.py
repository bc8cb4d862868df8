"""The number of threads of runs and sweeps, and the notes about too many threads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command

QUICK = ("debug=tiny",)


def threads_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())["threads"]
    return found


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nnopt find two usable cores on every machine."""
    for module in (
        "results.cores",
        "backends.thread_choice",
        "recipe.thread_notes",
        "sweeps.launchers.pool",
    ):
        monkeypatch.setattr(f"nnopt.{module}.usable_cores", lambda: 2)


@pytest.fixture
def busy_machine(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes appear to use both cores."""
    monkeypatch.setattr("nnopt.recipe.thread_notes.busy_cores", lambda start, end: 1.9)


@pytest.mark.usefixtures("busy_machine")
def test_run_of_small_network_uses_one_thread_silently(
    attempt: Command, workplace: Path, backend: str
) -> None:
    result = attempt("run", f"backend={backend}", *QUICK, "hydra.run.dir=a")
    result.is_done()
    assert "thread" not in result.out + result.err
    found = threads_of(workplace / "a")
    assert (found["used"], found["chosen_by"]) == (1, "work")
    assert found["blas"] == 1
    assert found.get("torch", 1) == 1 or backend == "numpy"


@pytest.mark.usefixtures("busy_machine")
def test_run_on_busy_machine_prints_note_about_threads_once(
    attempt: Command, workplace: Path, backend: str
) -> None:
    result = attempt("run", f"backend={backend}", *QUICK, "backend.threads=2", "hydra.run.dir=a")
    result.is_done("other processes use 1.9 of the 2 cores", "backend.threads=1")
    assert (result.out + result.err).count("other processes use") == 1
    found = threads_of(workplace / "a")
    assert (found["used"], found["chosen_by"]) == (2, "backend.threads")


@pytest.mark.usefixtures("busy_machine")
def test_sweep_on_busy_machine_prints_note_about_threads_once(
    attempt: Command, backend: str
) -> None:
    overrides = ("seed=0,1", "backend.threads=1,2", f"backend={backend}", *QUICK)
    result = attempt("run", "-m", *overrides)
    result.is_done()
    assert (result.out + result.err).count("other processes use") == 1


@pytest.mark.usefixtures("two_cores")
def test_run_with_more_threads_than_cores_uses_all_threads_and_prints_note(
    attempt: Command, workplace: Path, backend: str
) -> None:
    result = attempt("run", f"backend={backend}", *QUICK, "backend.threads=3", "hydra.run.dir=a")
    result.is_done("backend.threads = 3 is more than the 2 cores that may be used")
    found = threads_of(workplace / "a")
    assert (found["used"], found["chosen_by"]) == (3, "backend.threads")
    assert found["torch" if backend == "torch" else "blas"] == 3


@pytest.mark.usefixtures("two_cores")
def test_pool_with_more_workers_than_cores_prints_one_note(
    attempt: Command, workplace: Path
) -> None:
    overrides = ("hydra/launcher=pool", "hydra.launcher.workers=3", "seed=range(3)", *QUICK)
    result = attempt("run", "-m", *overrides, "hydra.sweep.dir=s")
    result.is_done("hydra.launcher.workers = 3 is more than the 2 cores that may be used")
    assert (result.out + result.err).count("workers = 3") == 1
    for summary in (workplace / "s").glob("*/summary.json"):
        assert threads_of(summary.parent)["used"] == 1


@pytest.mark.usefixtures("two_cores")
def test_run_with_any_number_of_threads_gives_equal_bits(
    attempt: Command, workplace: Path, backend: str
) -> None:
    weights = []
    for threads in (1, 2, 2, 4):
        folder = f"{len(weights)}"
        overrides = (f"backend={backend}", f"backend.threads={threads}", *QUICK)
        attempt("run", *overrides, f"hydra.run.dir={folder}").is_done()
        with np.load(workplace / folder / "model_last.npz") as arrays:
            weights.append({name: arrays[name] for name in arrays.files})
    for other in weights[1:]:
        for name, array in weights[0].items():
            np.testing.assert_array_equal(other[name], array)
