"""Default learning rates, advice on learning rates, and the accuracy of default settings."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import Command

from nnopt.backends.numpy.update_rules import OPTIMIZERS as NUMPY_OPTIMIZERS

DATA = os.environ.get("NNOPT_DATA_DIR")
"""The folder of the real datasets. The fixture ``workplace`` unsets NNOPT_DATA_DIR later."""

SHORT = ["epochs=1", "max_steps=1", "plots=false"]

TUNED = """\
# @package _global_
defaults:
  - override /dataset: moons
  - override /optimizer: momentum
optimizer: {lr: 0.3, momentum: 0.8}
"""


@pytest.fixture
def tuned(workplace: Path) -> str:
    """Return an override that selects an experiment with a learning rate for ``momentum``."""
    (workplace / "conf" / "experiment").mkdir(parents=True)
    (workplace / "conf" / "experiment" / "tuned.yaml").write_text(TUNED)
    return "experiment=tuned"


RATES = {
    "chosen on the command line": (["optimizer=adam"], [0.001]),
    "with a rate": (["optimizer=adam", "optimizer.lr=0.02"], [0.02]),
    "chosen again": (["optimizer=momentum"], [0.3]),
    "without the experiment's keys": (["optimizer=sgd"], [0.1]),
    "chosen in a sweep": (["-m", "optimizer=momentum,adam,rmsprop"], [0.3, 0.001, 0.001]),
    "a sweep with a rate": (["-m", "optimizer=adam,sgd", "optimizer.lr=0.02"], [0.02, 0.02]),
    "a sweep of rates": (["-m", "optimizer=adam", "optimizer.lr=0.1,0.2"], [0.1, 0.2]),
}


def rates_of(folder: Path) -> list[float]:
    """Return the learning rates of the runs below a folder, in the order of the points."""
    order = folder / "results.csv"
    names = ["."]
    if order.exists():
        names = [row["id"] for row in csv.DictReader(order.read_text().splitlines())]
    summaries = [json.loads((folder / name / "summary.json").read_text()) for name in names]
    return [summary["config"]["optimizer"]["lr"] for summary in summaries]


@pytest.mark.parametrize(("overrides", "rates"), RATES.values(), ids=RATES)
def test_learning_rate_of_experiment_is_used_only_with_its_optimizer(
    attempt: Command,
    workplace: Path,
    backend: str,
    tuned: str,
    overrides: list[str],
    rates: list[float],
) -> None:
    attempt("run", *overrides, tuned, f"backend={backend}", *SHORT).is_done()
    assert rates_of(workplace / "outputs" / "latest") == rates


BOTH_RATES = "optimizer=adam has its own lr=0.001; experiment/tuned sets lr=0.3"

NOTED = {
    "run": ["run", "optimizer=adam", *SHORT],
    "sweep": ["run", "-m", "optimizer=adam,momentum", *SHORT],
    "--cfg": ["run", "--cfg", "job", "optimizer=adam"],
    "describe": ["describe", "optimizer=adam"],
}


@pytest.mark.parametrize("overrides", NOTED.values(), ids=NOTED)
def test_note_contains_unused_learning_rate_of_experiment(
    attempt: Command, tuned: str, overrides: list[str]
) -> None:
    attempt(*overrides, tuned).is_done(BOTH_RATES)


def test_cfg_job_option_prints_the_rate_that_the_run_uses(attempt: Command, tuned: str) -> None:
    attempt("run", "--cfg", "job", tuned, "optimizer=adam").is_done("name: adam\n  lr: 0.001\n")


def test_optimizer_added_by_resume_command_uses_its_own_rate(
    attempt: Command, workplace: Path, tuned: str
) -> None:
    attempt("run", "-m", tuned, "optimizer=momentum,sgd", *SHORT).is_done()
    attempt("resume", "outputs/latest", "optimizer=momentum,sgd,adam").is_done(BOTH_RATES)
    assert rates_of(workplace / "outputs" / "latest") == [0.3, 0.1, 0.001]


STILL = {
    "lr-find": ["lr-find"],
    "lr-find on its last range": ["lr-find", "lr_find.min_lr=1e5", "lr_find.max_lr=1e6"],
    "auto": ["run", "optimizer.lr=auto"],
}


@pytest.mark.parametrize("overrides", STILL.values(), ids=STILL)
def test_lr_find_with_constant_loss_prints_the_reason(
    attempt: Command, backend: str, overrides: list[str]
) -> None:
    data = ["dataset.samples_per_class=20", f"backend={backend}", "plots=false"]
    result = attempt(*overrides, "initializer=zeros", *data)
    result.is_refused(5, "initializer.hidden = 'zeros'", "no hidden layer has a gradient")
    assert "lr_find." not in result.err


DIVERGED = ["optimizer.lr=1e20", "dataset.samples_per_class=20", "epochs=3", "plots=false"]

ADVICE = {
    "clipped by default": ([], ["a lower optimizer.lr than 1e+20"]),
    "not clipped": (["regularizer.grad_clip=0"], ["lower", "regularizer.grad_clip=1"]),
    "not scaled": (["dataset.normalization=none"], ["lower", "dataset.normalization=standard"]),
}


@pytest.mark.parametrize(("overrides", "advice"), ADVICE.values(), ids=ADVICE)
def test_divergence_advice_depends_on_the_configuration(
    attempt: Command, backend: str, overrides: list[str], advice: list[str]
) -> None:
    result = attempt("run", f"backend={backend}", *DIVERGED, *overrides)
    result.is_refused(5, *advice)
    assert ("grad_clip" in result.err) == ("regularizer.grad_clip=0" in overrides)
    assert ("normalization" in result.err) == ("dataset.normalization=none" in overrides)


def accuracy_of(attempt: Command, workplace: Path, *overrides: str) -> float:
    """Return the test accuracy of a run."""
    attempt("run", *overrides, "plots=false", "progress=none").is_done()
    summary = json.loads((workplace / "outputs" / "latest" / "summary.json").read_text())
    return float(summary["test_accuracy"])


def test_default_configuration_learns_the_spiral(
    attempt: Command, workplace: Path, backend: str
) -> None:
    assert accuracy_of(attempt, workplace, f"backend={backend}") > 0.95


@pytest.mark.parametrize("name", ["moons", "circles"])
def test_default_configuration_learns_moons_and_circles(
    attempt: Command, workplace: Path, name: str
) -> None:
    assert accuracy_of(attempt, workplace, f"dataset={name}") > 0.95


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_default_configuration_learns_features_of_any_scale(
    attempt: Command, workplace: Path, scale: float
) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 3)) * scale + 5 * scale
    lines = [f"{a!r},{b!r},{c!r},{int(a > b)}" for a, b, c in x.tolist()]
    (workplace / "a.csv").write_text("\n".join(["a,b,c,label", *lines]))
    overrides = ["dataset=csv", "dataset.train=a.csv", "epochs=30"]
    assert accuracy_of(attempt, workplace, *overrides) > 0.85


SHARED = [*NUMPY_OPTIMIZERS]


@pytest.mark.parametrize("name", SHARED)
def test_optimizer_learns_moons_at_default_rate(
    attempt: Command, workplace: Path, name: str
) -> None:
    overrides = ["dataset=moons", f"optimizer={name}", "epochs=20"]
    assert accuracy_of(attempt, workplace, *overrides) > 0.8


NETWORKS = {
    "small batches": [],
    "large batches": ["batch_size=128"],
    "deep": ["architecture.hidden=[256,128]"],
    "batch norm": ["regularizer=batch_norm", "regularizer.dropout=0.2"],
}


@pytest.mark.data
@pytest.mark.skipif("NNOPT_DATA_DIR" not in os.environ, reason="NNOPT_DATA_DIR is not set")
@pytest.mark.parametrize("overrides", NETWORKS.values(), ids=NETWORKS)
def test_default_configuration_learns_mnist(
    attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    monkeypatch.setenv("NNOPT_DATA_DIR", str(DATA))
    assert accuracy_of(attempt, workplace, "dataset=mnist", "max_steps=400", *overrides) > 0.85
