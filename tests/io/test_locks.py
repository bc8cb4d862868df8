"""Locks on local disks and on network file systems, whose locks behave differently."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnopt.errors import OutputError
from nnopt.io.locks import exclusive, hold, is_held, locked

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(params=[True, False], ids=["flock", "no flock"])
def _with_and_without_flock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the test with flock, and again with the package that replaces flock on Windows."""
    monkeypatch.setattr("nnopt.io.locks.HAS_FLOCK", request.param)


@pytest.mark.usefixtures("_with_and_without_flock")
def test_held_lock_excludes_others_until_released(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with hold(tmp_path) as is_mine, hold(tmp_path) as is_theirs:
        assert (is_mine, is_theirs) == (True, False)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with hold(tmp_path) as is_mine:
        assert is_mine


def test_concurrent_checks_of_a_lock_do_not_conflict(tmp_path: Path) -> None:
    with hold(tmp_path):
        pass
    with (tmp_path / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # like ``is_held`` in a second process
        assert not is_held(tmp_path)


def test_check_of_a_lock_on_nfs_uses_a_shared_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def as_nfs(file: int, operation: int) -> None:  # see flock(2), "NFS details"
        can_write = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if operation & fcntl.LOCK_EX and not can_write:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    with hold(tmp_path) as is_mine:
        assert is_mine
        assert is_held(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [False, True])
def test_lock_on_file_system_without_locks_is_always_obtained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, wait: bool
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path, wait=wait) as is_mine:
        assert is_mine
    assert not is_held(tmp_path)


def test_input_output_error_of_a_lock_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OutputError, match="input/output"), hold(tmp_path):
        pass


@contextmanager
def holding_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start and yield a process that holds the lock of ``folder`` until the process is killed."""
    code = (
        "import os, sys, time; from pathlib import Path; from nnopt.io.locks import hold\n"
        "with hold(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("_with_and_without_flock")
def test_lock_of_killed_process_is_released(tmp_path: Path) -> None:
    with holding_process(tmp_path) as process:
        assert is_held(tmp_path)
        with hold(tmp_path) as is_mine:
            assert not is_mine
        process.kill()
        process.wait()
    assert not is_held(tmp_path)
    with hold(tmp_path) as is_mine:
        assert is_mine


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("link", "it is a link, which nnopt never creates"),
        ("dangling link", "it is a link, which nnopt never creates"),
        ("hard link", "it is a hard link; replace it by a copy"),
        ("pipe", "it is a named pipe"),
        ("folder", "is a directory"),
    ],
)
def test_lock_file_that_is_not_regular_is_refused(tmp_path: Path, kind: str, why: str) -> None:
    lock, outside = tmp_path / "lock", tmp_path / "outside"
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    elif kind == "hard link":
        outside.touch()
        lock.hardlink_to(outside)
    else:
        lock.symlink_to(outside)
        if kind == "link":
            outside.touch()
    with pytest.raises(OSError, match=f"(?i){why}"), exclusive(lock):
        pass
    for context in (hold(tmp_path), locked(lock, wait=False)):
        with pytest.raises(OutputError) as caught, context:
            pass
        message = str(caught.value)
        assert message.startswith(f"cannot lock {lock}: {why}")
        assert message.count(str(lock)) == 1
    assert outside.exists() == (kind in {"link", "hard link"})


def test_lock_file_that_is_a_pipe_with_a_reader_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    reader = os.open(tmp_path / "lock", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="not a regular file"), exclusive(tmp_path / "lock"):
            pass
        with pytest.raises(OutputError, match="not a regular file"), hold(tmp_path):
            pass
    finally:
        os.close(reader)


@pytest.mark.usefixtures("_with_and_without_flock")
def test_exclusive_lock_waits_for_the_holder(tmp_path: Path) -> None:
    path, order = tmp_path / "below" / "a.lock", list[str]()

    def second() -> None:
        with exclusive(path):
            order.append("second")

    with exclusive(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_exclusive_lock_on_file_system_without_locks_raises_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=os.strerror(number)), exclusive(tmp_path / "a.lock"):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_lock_refused_by_the_system_raises_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = list[int]()

    def refuse(file: int, operation: int) -> None:
        calls.append(operation)
        assert len(calls) < 10, "the lock is requested again and again"
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    why = os.strerror(number)
    with pytest.raises(OSError, match=why), exclusive(tmp_path / "a.lock"):
        pass
    for wait in (False, True):
        with pytest.raises(OutputError, match=f"cannot lock .*lock: (?i:{why})"):
            hold(tmp_path, wait).__enter__()
    assert not is_held(tmp_path)


def test_waiting_threads_get_the_exclusive_lock_in_order(tmp_path: Path) -> None:
    """The kernel queues the callers that wait in flock, and lists them in /proc/locks."""
    if not Path("/proc/locks").exists():
        pytest.skip("/proc/locks is not there: the number of waiting threads is not known")
    path, order = tmp_path / "a.lock", list[int]()

    def wait_for_it(number: int) -> None:
        with exclusive(path):
            order.append(number)

    def waiting() -> int:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        return sum("->" in line and f":{path.stat().st_ino} " in line for line in lines)

    threads = [threading.Thread(target=wait_for_it, args=(i,), daemon=True) for i in range(6)]
    with exclusive(path):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            end = time.monotonic() + 20
            while waiting() < number and time.monotonic() < end:
                time.sleep(0.001)
            assert waiting() == number
    for thread in threads:
        thread.join(20)
    assert order == list(range(6))
