"""Numbers in training: divergence, extreme settings and data, and lack of memory."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Attempt, Command

from nnopt.backends.numpy import modules
from nnopt.backends.numpy.ops.dense import DENSE

QUICK = ("plots=false", "hydra.run.dir=out")
PENALTY = "regularizer.l2=1000", "regularizer.grad_clip=0"
SPIRAL = ("dataset=spiral", "dataset.samples_per_class=20", "architecture.hidden=[8]")


def run(attempt: Command, backend: str, *arguments: str) -> Attempt:
    return attempt("run", f"backend={backend}", *QUICK, *arguments)


def arrays(workplace: Path, name: str = "model_last", folder: str = "out") -> dict[str, np.ndarray]:
    with np.load(workplace / folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def summary(workplace: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workplace / "out" / "summary.json").read_text())
    return content


def write_csv(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def features(rows: int, constant: float = 7) -> list[list[object]]:
    """Return rows of three columns: a feature that separates the classes, a constant, a label."""
    return [[i % 2 + i / 100, constant, i % 2] for i in range(rows)]


# Divergence ---------------------------------------------------------------------------------------


def test_run_with_infinite_loss_diverges_and_keeps_files(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = *SPIRAL, "epochs=5", "optimizer.lr=1e20", "architecture.hidden=[8,8]"
    run(attempt, backend, *overrides).is_refused(5, "training diverged: at step ")
    assert summary(workplace)["status"] == "diverged"
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())
    assert (workplace / "out" / "metrics.csv").exists()


def test_run_that_diverged_keeps_earlier_rows_and_plots(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = "epochs=6", "optimizer=sgd", "optimizer.lr=1e4", *PENALTY
    result = attempt(
        "run", f"backend={backend}", *SPIRAL, *overrides, "plots=true", "hydra.run.dir=out"
    )
    result.is_refused(5, "rows and weights up to epoch ")
    lines = (workplace / "out" / "metrics.csv").read_text().splitlines()[1:]
    assert 1 <= len(lines) < 6
    assert all(np.isfinite(float(line.split(",")[3])) for line in lines)
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())
    pictures = {path.name for path in (workplace / "out" / "plots").iterdir()}
    assert {"weights.png", "schedule.png", "curves.png"} <= pictures


def test_sweep_with_diverged_point_finishes_other_points(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = "epochs=2", "optimizer.lr=0.1,1e25,0.01", "plots=false", "hydra.sweep.dir=sweep"
    result = attempt(
        "run", "-m", f"backend={backend}", *SPIRAL, "architecture.hidden=[8,8]", *overrides
    )
    result.is_refused(5, "training diverged")
    with (workplace / "sweep" / "results.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "diverged", "done"]


@pytest.mark.parametrize(
    ("verb", "word", "message"),
    [
        ("lr-find", "seed=0", "no learning rate to suggest"),
        ("run", "optimizer.lr=auto", "optimizer.lr = 'auto' found no learning rate"),
    ],
)
def test_lr_search_that_finds_no_rate_fails(
    attempt: Command, workplace: Path, backend: str, verb: str, word: str, message: str
) -> None:
    write_csv(workplace / "train.csv", "a,b,label", features(20, constant=3e38))
    files = "dataset=csv", "dataset.train=train.csv", "dataset.normalization=none"
    network = "architecture=layers", "architecture.layers=[{dense: 64}, {dense: classes}]"
    attempt(verb, f"backend={backend}", *QUICK, *files, *network, word).is_refused(5, message)


def test_epoch_with_infinite_validation_loss_is_never_best(
    attempt: Command, workplace: Path, backend: str
) -> None:
    write_csv(workplace / "train.csv", "a,b,label", features(20))
    write_csv(workplace / "test.csv", "a,b,label", features(6, constant=3e38))
    files = "dataset=csv", "dataset.train=train.csv", "dataset.test=test.csv"
    overrides = *files, "dataset.normalization=none", "dataset.validation.source=test", "epochs=3"
    network = "architecture=layers", "architecture.layers=[{dense: 64}, {dense: classes}]"
    stop = "early_stopping.patience=2"
    result = run(attempt, backend, *overrides, *network, stop)
    result.is_refused(5, "the test loss is not finite")
    assert summary(workplace)["best_epoch"] == 0
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())


# Settings that train ------------------------------------------------------------------------------

IMAGE_NORMS = (
    "[{conv2d: 4}, {group_norm: 2}, relu, {conv2d: 4}, instance_norm, {conv2d: 4}, batch_norm, "
    "layer_norm, flatten, {dense: classes}]"
)

TRAINS = {
    "label smoothing near 1": [*SPIRAL, "regularizer.label_smoothing=0.99"],
    "equal logits": [*SPIRAL, "initializer.output=zeros"],
    "logits of 1e4": [*SPIRAL, "optimizer.lr=1000", "optimizer=sgd", "regularizer.max_norm=100"],
    "last batch of 1 dropped": [
        *SPIRAL,
        *("regularizer.norm=batch", "batch_size=47", "drop_last=true"),
    ],
    "nothing regularized": [
        *SPIRAL,
        *("regularizer.dropout=0", "optimizer.momentum=0", "regularizer.weight_decay=0"),
    ],
    "batch larger than the dataset": [*SPIRAL, "batch_size=100000"],
    "one step": [*SPIRAL, "max_steps=1"],
    "zero gradients with Adam": [*SPIRAL, "optimizer=adam", "initializer.hidden=zeros"],
    "zero gradients with RMSprop": [*SPIRAL, "optimizer=rmsprop", "initializer.hidden=zeros"],
    "zero gradients with Adagrad": [*SPIRAL, "optimizer=adagrad", "initializer.hidden=zeros"],
}


@pytest.mark.parametrize("overrides", TRAINS.values(), ids=TRAINS)
def test_run_with_extreme_setting_has_finite_test_loss_and_weights(
    attempt: Command, workplace: Path, backend: str, overrides: list[str]
) -> None:
    run(attempt, backend, "epochs=2", *overrides).is_done()
    assert np.isfinite(summary(workplace)["test_loss"])
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())


def test_run_with_one_class_has_zero_loss(attempt: Command, workplace: Path, backend: str) -> None:
    write_csv(workplace / "one.csv", "a,label", [[i, "only"] for i in range(20)])
    run(attempt, backend, "dataset=csv", "dataset.train=one.csv", "epochs=2").is_done()
    assert summary(workplace)["test_loss"] == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["batch_size=47"],
        ["batch_size=1"],
        ["batch_size=23", "dataset.subset=24"],
        ["batch_size=47", "max_steps=1"],
        ["batch_size=2", "accumulation_steps=2"],
    ],
    ids=str,
)
def test_run_with_batch_norm_and_batch_of_one_is_refused(
    attempt: Command, workplace: Path, backend: str, overrides: list[str]
) -> None:
    result = run(attempt, backend, *SPIRAL, "regularizer.norm=batch", *overrides)
    message = (
        "one of them of 1 sample" if "accumulation_steps=2" in overrides else "leaves a batch of 1"
    )
    result.is_refused(2, overrides[0].replace("=", " = "), message)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_run_with_constant_feature_has_finite_test_loss(
    attempt: Command, workplace: Path, backend: str, norm: str
) -> None:
    write_csv(workplace / "constant.csv", "a,b,label", features(20))
    overrides = "dataset=csv", "dataset.train=constant.csv", f"regularizer.norm={norm}", "epochs=2"
    run(attempt, backend, *overrides).is_done()
    assert np.isfinite(summary(workplace)["test_loss"])


def test_run_with_black_images_and_every_norm_layer_has_finite_test_loss(
    attempt: Command, workplace: Path, backend: str
) -> None:
    header = ",".join([*(f"pixel{i}" for i in range(16)), "label"])
    write_csv(workplace / "zero.csv", header, [[0] * 16 + [i % 2] for i in range(20)])
    overrides = "dataset=csv", "dataset.train=zero.csv", "architecture=layers", "epochs=2"
    run(attempt, backend, *overrides, f"architecture.layers={IMAGE_NORMS}").is_done()
    assert np.isfinite(summary(workplace)["test_loss"])


def test_run_with_learning_rate_of_zero_changes_no_bit(
    attempt: Command, workplace: Path, backend: str
) -> None:
    for folder, epochs in (("one", 1), ("two", 3)):
        overrides = f"hydra.run.dir={folder}", f"epochs={epochs}", "optimizer.lr=0", "plots=false"
        decay = "regularizer.weight_decay=0.1", "regularizer.l2=0.1"
        attempt("run", f"backend={backend}", *SPIRAL, *overrides, *decay).is_done()
    first, second = (arrays(workplace, folder=folder) for folder in ("one", "two"))
    assert all((first[name] == second[name]).all() for name in first)


def test_run_with_tiny_learning_rate_keeps_weights(
    attempt: Command, workplace: Path, backend: str
) -> None:
    runs = [("one", "epochs=1", "1e-30"), ("two", "epochs=3", "1e-30")]
    for folder, epochs, rate in runs:
        overrides = f"hydra.run.dir={folder}", epochs, f"optimizer.lr={rate}", "plots=false"
        attempt("run", f"backend={backend}", *SPIRAL, *overrides).is_done()
    first, second = (arrays(workplace, folder=folder) for folder, *_ in runs)
    weights = [name for name in first if name.endswith("weight")]
    assert weights
    assert all((first[name] == second[name]).all() for name in weights)


def test_run_with_overflow_in_penalty_diverges(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = *SPIRAL, "epochs=6", "optimizer=sgd", "optimizer.lr=1e4", *PENALTY
    run(attempt, backend, *overrides).is_refused(5, "training diverged")


# Tiny numbers and lack of memory ------------------------------------------------------------------


def test_run_with_denormal_features_has_finite_test_loss(
    attempt: Command, workplace: Path, backend: str
) -> None:
    rows = [[f"{(i % 2 + 1) * 1e-40:g}", f"{i * 1e-42:g}", i % 2] for i in range(20)]
    write_csv(workplace / "tiny.csv", "a,b,label", rows)
    files = "dataset=csv", "dataset.train=tiny.csv", "dataset.normalization=none", "epochs=2"
    run(attempt, backend, *files).is_done()
    assert 0 < summary(workplace)["test_loss"] < 10


def plant(monkeypatch: pytest.MonkeyPatch, backend: str, first: int) -> None:
    """Let dense layers allocate 2**57 numbers from call number ``first`` on."""
    calls = itertools.count(1)
    own: Callable[..., Any] = DENSE.forward

    def dense(*inputs: Any, **options: Any) -> Any:
        return np.empty(2**57) if next(calls) >= first else own(*inputs, **options)

    if backend == "numpy":
        monkeypatch.setattr(modules, "DENSE", DENSE._replace(forward=dense))
        return
    import torch

    linear = torch.nn.Linear.forward

    def forward(layer: Any, x: Any) -> Any:
        return torch.empty(2**57) if next(calls) >= first else linear(layer, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)


@pytest.mark.parametrize("first", [1, 2, 20])
def test_out_of_memory_error_of_a_step_names_layer_and_batch_size(
    attempt: Command, workplace: Path, backend: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, backend, first)
    result = run(attempt, backend, *SPIRAL, "epochs=20", "batch_size=64")
    result.is_refused(5, "out of memory with batch_size = 64", "in layer dense", "batch_size=32")
    assert all(np.isfinite(array).all() for array in arrays(workplace).values())
    assert summary(workplace)["status"] == "failed"


PLACES = ("prepare", "initial_weights", "evaluate", "plot_training", "plot_convolutions")

SHORTAGES = {
    "NumPy": MemoryError("Unable to allocate 9 GiB"),
    "PyTorch": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
    "library": ImportError("x.so: failed to map segment from shared object"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", SHORTAGES)
def test_out_of_memory_error_outside_of_a_step_is_reported(
    attempt: Command, place: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise SHORTAGES[kind]

    monkeypatch.setattr(f"nnopt.recipe.run.{place}", fail)
    overrides = "epochs=1", "plots=true", "hydra.run.dir=out", "backend=torch"
    attempt("run", *SPIRAL, *overrides).is_refused(5, "out of memory")


LIMITED = """
import resource, sys
import numpy, nnopt.recipe.run
if "backend=torch" in sys.argv:
    import torch
from nnopt.cli.main import run_verb
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
sys.exit(run_verb(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of memory")
def test_run_at_memory_limit_reports_lack_of_memory(workplace: Path, backend: str) -> None:
    arguments = (
        "run",
        f"backend={backend}",
        "architecture.hidden=[20000,20000]",
        "progress=none",
        *QUICK,
    )
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 5, process.stderr
    assert "out of memory with batch_size = " in process.stderr
    assert "Traceback" not in process.stderr


def test_two_runs_with_same_seed_give_equal_bits(
    attempt: Command, workplace: Path, backend: str
) -> None:
    for folder in ("one", "two"):
        overrides = "epochs=2", "regularizer.dropout=0.2", f"hydra.run.dir={folder}", "plots=false"
        attempt("run", f"backend={backend}", *SPIRAL, *overrides).is_done()
    first, second = (arrays(workplace, folder=folder) for folder in ("one", "two"))
    assert all((first[name] == second[name]).all() for name in first)
