"""The fixtures of the fault suite.

A test of this folder creates a hostile file, folder, setting or environment, runs a command, and
checks the exit code and the message. ``attempt`` checks the guarantees of ``commands.py`` in every
test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from commands import Attempt, Command, Trap, temporary_files


@pytest.fixture(params=["numpy", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return "numpy" or "torch", so that a test runs once with each backend."""
    return str(request.param)


@pytest.fixture
def attempt(
    nnopt: Callable[..., int], workplace: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return a function that runs a command in this process; see ``commands.Command``."""

    def run(*arguments: str) -> Attempt:
        capfd.readouterr()
        code = nnopt(*arguments)
        result = Attempt(code, *capfd.readouterr())
        result.keeps_promises()
        return result

    yield run
    assert temporary_files(workplace) == []


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Trap:
    """Return a function that sets a trap; see ``commands.Trap``."""

    def set_trap(name: str, count: int, act: Callable[[], object]) -> None:
        holder_name, _, attribute = name.rpartition(".")
        holder, calls = resolve_name(holder_name), [0]
        function = getattr(holder, attribute)

        def trapped(*arguments: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == count:
                act()
            return function(*arguments, **options)

        monkeypatch.setattr(holder, attribute, trapped)

    return set_trap
