"""The lock of a search: only one process at a time requests trials."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from nnopt.errors import OutputError, ResumeError
from nnopt.sweeps.search.study import JOURNAL, lock_search

fcntl = pytest.importorskip("fcntl")


def test_second_lock_of_a_search_is_refused(tmp_path: Path) -> None:
    with (
        lock_search(tmp_path / JOURNAL),
        pytest.raises(ResumeError, match="another process runs the search"),
        lock_search(tmp_path / JOURNAL),
    ):
        pass
    with lock_search(tmp_path / JOURNAL):
        pass


def test_search_lock_on_named_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "search.lock")
    with (
        pytest.raises(OutputError, match=r"cannot lock .*search\.lock: it is a named pipe"),
        lock_search(tmp_path / JOURNAL),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EACCES])
def test_search_lock_with_system_error_raises_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    why = f"cannot lock .*search.lock: (?i:{os.strerror(number)})"
    with pytest.raises(OutputError, match=why), lock_search(tmp_path / JOURNAL):
        pass
