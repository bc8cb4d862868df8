"""Faults C1 to C13: configurations that are wrong, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Command

WRONG_WORDS = {
    "C1 unknown key": (["optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
    "C2 wrong type": (["optimizer.lr=abc"], "optimizer.lr"),
    "C3 whole number as decimal": (["epochs=1.0"], "epochs"),
    "C4 out of range": (["optimizer.lr=-0.1"], "optimizer.lr"),
}


@pytest.mark.parametrize(("words", "fragment"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_run_wrong_word_refused(
    attempt: Command, workplace: Path, backend: str, words: list[str], fragment: str
) -> None:
    attempt("run", f"backend={backend}", *words).is_refused(2, fragment)
    assert list(workplace.iterdir()) == []
