"""Files in folders from other people: accepted files, and the reasons for refusals."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nnopt.io.received_files import open_received, parse_json, read_received


def test_content_of_received_regular_file_is_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_received(tmp_path / "a", tmp_path, 10) == b"0123456789"


def test_content_of_received_file_in_linked_folder_is_returned(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_bytes(b"x")
    (tmp_path / "latest").symlink_to("run")
    assert read_received(tmp_path / "latest" / "a", tmp_path / "latest", 10) == b"x"


def test_received_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert read_received(tmp_path / "b", tmp_path, 10) == b"x"


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "../run-2/a", "loop"])
def test_received_link_to_outside_is_refused(tmp_path: Path, target: str) -> None:
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loop").symlink_to("loop")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "run-2" / "a").write_bytes(b"x")
    (tmp_path / "run" / "b").symlink_to(target)
    with pytest.raises(OSError, match=r"outside of the folder|symbolic links"):
        read_received(tmp_path / "run" / "b", tmp_path / "run", 10)


def test_received_subfolder_linked_to_outside_is_refused(tmp_path: Path) -> None:
    for name in ("run", "private"):
        (tmp_path / name).mkdir()
    (tmp_path / "private" / "a.svg").write_bytes(b"x")
    (tmp_path / "run" / "plots").symlink_to("../private")
    with pytest.raises(OSError, match="outside of the folder"):
        read_received(tmp_path / "run" / "plots" / "a.svg", tmp_path / "run", 10)


def test_received_special_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
    kinds = {"pipe": r"a named pipe \(FIFO\)", "folder": "a folder", "socket": "a socket"}
    for name, kind in kinds.items():
        with pytest.raises(OSError, match=f"it is {kind}, not a regular file"):
            read_received(tmp_path / name, tmp_path, 10)
    with pytest.raises(OSError, match="it is a device"):
        read_received(Path("/dev/zero"), Path("/dev"), 10)


def test_received_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes or more, and at most 10 are"):
        open_received(tmp_path / "a", tmp_path, 10)


def test_received_file_of_unknown_size_is_limited() -> None:
    size = len(read_received(Path("/proc/self/status"), Path("/proc/self"), 10**6))
    assert size > 10
    with pytest.raises(OSError, match="at most 10 are allowed"):
        read_received(Path("/proc/self/status"), Path("/proc/self"), 10)


def test_descriptor_of_a_refused_file_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="allowed"):
            open_received(tmp_path / "a", tmp_path, 2)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"[NaN]", "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        (b"9" * 5000, "limit"),
        (b'"\xff"', "decode"),
        (b"", "Expecting value"),
    ],
)
def test_json_text_that_is_not_strict_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_strict_json_text_is_parsed() -> None:
    assert parse_json('{"ä": [1, 2.5, null, true]}'.encode()) == {"ä": [1, 2.5, None, True]}
