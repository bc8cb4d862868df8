"""Cases of defaults and learning rates: whose rate an optimizer gets, what the defaults train."""

from __future__ import annotations

import csv
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
    "chosen on the command line": (["optimizer=adam"], ["0.001"]),
    "with a rate": (["optimizer=adam", "optimizer.lr=0.02"], ["0.02"]),
    "chosen again": (["optimizer=momentum"], ["0.3"]),
    "a close relative": (["optimizer=nesterov"], ["OWN"]),
    "without the experiment's keys": (["optimizer=sgd"], ["0.1"]),
    "each of a sweep": (["-m", "optimizer=momentum,adam,rmsprop"], ["0.3", "0.001", "0.001"]),
    "a sweep with a rate": (["-m", "optimizer=adam,sgd", "optimizer.lr=0.02"], ["0.02", "0.02"]),
    "a sweep of rates": (["-m", "optimizer=adam", "optimizer.lr=0.1,0.2"], ["0.1", "0.2"]),
}
