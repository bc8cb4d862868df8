"""docs/findings.md, and the figures of other documents, compared with the recorded runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("findings")


def test_figures_agree_with_recorded_runs(script: ModuleType) -> None:
    assert list(script.find_problems()) == []


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("97.63 ± 0.16", True),
        ("0.9763 ± 0.0016", True),
        ("97.6 ± 0.2", True),
        ("97.64 ± 0.16", False),
        ("97.63 ± 0.17", False),
        ("97.62 ± 0.16", False),
    ],
)
def test_mean_agrees_if_it_rounds_to_text(script: ModuleType, text: str, agrees: bool) -> None:
    match = re.fullmatch(script.MEAN, text)
    assert match is not None
    assert script.agrees(match, 0.976312, 0.001584) is agrees
