"""Runs with the optimizers that only PyTorch has, from the command line to the test accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

OVERRIDES = {
    "lion": ["optimizer.lr=0.01"],
    "muon": ["optimizer.adam_lr_ratio=0.5"],
    "schedule_free_sgd": ["schedule.warmup_epochs=1"],
    "schedule_free_adamw": ["optimizer.lr=0.02", "schedule.warmup_epochs=1"],
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_torch_optimizers_learn_the_spiral(
    nnopt: Callable[..., int], workplace: Path, name: str
) -> None:
    overrides = ["backend=torch", f"optimizer={name}", "epochs=15", "plots=false", *OVERRIDES[name]]
    assert nnopt("run", *overrides, "hydra.run.dir=run") == 0
    summary = json.loads((workplace / "run" / "summary.json").read_text("utf-8"))
    assert summary["test_accuracy"] > 0.9


def test_numpy_backend_refuses_torch_optimizers(
    nnopt: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nnopt("run", "optimizer=muon") == 2
    expected = "optimizer.name = 'muon' needs backend=torch, but backend.name = 'numpy'"
    assert capsys.readouterr().err == f"nnopt: error: {expected}\n"
    assert not (workplace / "outputs").exists()
