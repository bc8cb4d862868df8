"""Cases of defaults and learning rates: whose rate an optimizer gets, what the defaults train."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import Command

SHORT = ["epochs=1", "steps=1", "plots=false"]

TUNED = """\
# @package _global_
defaults:
  - override /dataset: moons
  - override /optimizer: momentum
optimizer: {lr: 0.3, momentum: 0.8}
"""


@pytest.fixture
def tuned(workplace: Path) -> str:
    """Return the word that chooses an experiment whose rate is made for ``momentum``."""
    (workplace / "conf" / "experiment").mkdir(parents=True)
    (workplace / "conf" / "experiment" / "tuned.yaml").write_text(TUNED)
    return "experiment=tuned"


RATES = {
    "chosen on the command line": (["optimizer=adam"], [0.001]),
    "with a rate": (["optimizer=adam", "optimizer.lr=0.02"], [0.02]),
    "chosen again": (["optimizer=momentum"], [0.3]),
    "without the experiment's keys": (["optimizer=sgd"], [0.1]),
    "each of a sweep": (["-m", "optimizer=momentum,adam,rmsprop"], [0.3, 0.001, 0.001]),
    "a sweep with a rate": (["-m", "optimizer=adam,sgd", "optimizer.lr=0.02"], [0.02, 0.02]),
    "a sweep of rates": (["-m", "optimizer=adam", "optimizer.lr=0.1,0.2"], [0.1, 0.2]),
}


def rates_of(folder: Path) -> list[float]:
    """Return the learning rates of the runs below a folder, in the order of a sweep's points."""
    order = folder / "results.csv"
    names = ["."]
    if order.exists():
        names = [row["id"] for row in csv.DictReader(order.read_text().splitlines())]
    summaries = [json.loads((folder / name / "summary.json").read_text()) for name in names]
    return [summary["config"]["optimizer"]["lr"] for summary in summaries]


@pytest.mark.parametrize(("words", "rates"), RATES.values(), ids=RATES)
def test_optimizer_trains_at_rate_made_for_it(
    attempt: Command,
    workplace: Path,
    backend: str,
    tuned: str,
    words: list[str],
    rates: list[float],
) -> None:
    attempt("run", *words, tuned, f"backend={backend}", *SHORT).is_done()
    assert rates_of(workplace / "outputs" / "latest") == rates


BOTH_RATES = "optimizer=adam has its own lr=0.001; experiment/tuned sets lr=0.3"

NOTED = {
    "run": ["run", "optimizer=adam", *SHORT],
    "sweep": ["run", "-m", "optimizer=adam,momentum", *SHORT],
    "--cfg": ["run", "--cfg", "job", "optimizer=adam"],
    "describe": ["describe", "optimizer=adam"],
}


@pytest.mark.parametrize("words", NOTED.values(), ids=NOTED)
def test_rate_of_another_optimizer_is_named(attempt: Command, tuned: str, words: list[str]) -> None:
    attempt(*words, tuned).is_done(BOTH_RATES)


def test_cfg_prints_rate_that_run_trains_with(attempt: Command, tuned: str) -> None:
    attempt("run", "--cfg", "job", tuned, "optimizer=adam").is_done("name: adam\n  lr: 0.001\n")


def test_resume_adds_optimizer_with_its_own_rate(
    attempt: Command, workplace: Path, tuned: str
) -> None:
    attempt("run", "-m", tuned, "optimizer=momentum,sgd", *SHORT).is_done()
    attempt("resume", "outputs/latest", "optimizer=momentum,sgd,adam").is_done(BOTH_RATES)
    assert rates_of(workplace / "outputs" / "latest") == [0.3, 0.1, 0.001]
