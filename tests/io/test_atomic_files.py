"""Files that are complete or absent, and folders that belong to one run."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnopt.errors import OutputError
from nnopt.io.atomic_files import (
    fresh_folder,
    json_text,
    link_latest,
    shown,
    write_arrays,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_text_is_unchanged(tmp_path: Path) -> None:
    write_text(tmp_path / "a.yaml", "größe: 1\r\n")
    assert (tmp_path / "a.yaml").read_bytes() == "größe: 1\r\n".encode()
    assert names(tmp_path) == ["a.yaml"]


def test_written_file_uses_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_file_with_the_longest_name_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("a" * 255), "x")
    with pytest.raises(OutputError, match="too long"):
        write_text(tmp_path / ("a" * 256), "x")
    assert names(tmp_path) == ["a" * 255]


@pytest.mark.parametrize("where", ["file/a", "missing/a", "folder"])
def test_path_where_no_file_can_be_written_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write_bytes(tmp_path / where, b"x")
    message = str(caught.value)
    assert str(tmp_path / where) in message
    assert "hydra.run.dir" in message
    assert "\n" not in message
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_write_on_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"no room for 12,345 bytes \([\d,]+ bytes are free\)"):
        write_bytes(path, b"x" * 12_345)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == []


def test_arrays_larger_than_the_file_size_limit_are_refused(tmp_path: Path) -> None:
    """The limit is RLIMIT_FSIZE, which the operating system applies to each file of a process."""
    program = (
        "import numpy as np, sys; from pathlib import Path\n"
        "from nnopt.io.atomic_files import write_arrays\n"
        "from nnopt.errors import OutputError\n"
        "try: write_arrays(Path(sys.argv[1]), {'w': np.ones(100_000)})\n"
        "except OutputError as error: print(error)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "w.npz")],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"cannot write {tmp_path / 'w.npz'}" in answer.stdout
    assert "no room for 800,000 bytes" in answer.stdout
    assert names(tmp_path) == []


@given(
    arrays=st.dictionaries(
        st.text("abc._1/", min_size=1, max_size=9),
        hnp.arrays(
            st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        ),
        max_size=8,
    ),
    compressed=st.booleans(),
)
@settings(max_examples=40)
def test_written_arrays_are_read_back_bit_by_bit(
    arrays: dict[str, np.ndarray], compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    write_arrays(path, arrays, compressed)
    with np.load(path, allow_pickle=False) as back:
        assert set(back.files) == set(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype
            assert back[name].shape == array.shape
            assert back[name].tobytes() == array.tobytes()


def test_array_of_any_name_and_memory_layout_is_written(tmp_path: Path) -> None:
    across = np.arange(12.0).reshape(3, 4)
    write_arrays(tmp_path / "a.npz", {"file": across.T, "self": across[:, ::2]})
    back = np.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(back["file"], across.T)
    np.testing.assert_array_equal(back["self"], across[:, ::2])


def test_equal_arrays_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_arrays(tmp_path / name, {"w": np.arange(5)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "a.npz", {"w": np.array([{}], dtype=object)})
    assert names(tmp_path) == []


def test_nan_and_infinity_become_null_in_json(tmp_path: Path) -> None:
    value: dict[str, Any] = {
        "loss": math.nan,
        "list": [math.inf, -math.inf, 1.5],
        "numpy": [np.float32(0.5), np.float64(math.nan), np.int64(3), np.bool_(True)],
        "array": np.array([1.0, math.inf]),
        "path": Path("a/b"),
        "none": None,
        3: (1, 2),
    }
    write_json(tmp_path / "a.json", value)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    back = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert back == {
        "loss": None,
        "list": [None, None, 1.5],
        "numpy": [0.5, None, 3, True],
        "array": [1.0, None],
        "path": "a/b",
        "none": None,
        "3": [1, 2],
    }


@given(texts=st.lists(st.text(), max_size=20))
@settings(max_examples=25)
def test_any_texts_are_kept_in_json(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, {"texts": texts})
    assert json.loads(path.read_text(encoding="utf-8")) == {"texts": texts}


def test_name_that_is_not_utf8_is_escaped_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", name)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == name


def test_fresh_folder_with_repeated_name_is_numbered(tmp_path: Path) -> None:
    parent = tmp_path / "outputs" / "runs"
    made = [fresh_folder(parent, "spiral") for _ in range(3)]
    assert [folder.name for folder in made] == ["spiral", "spiral-2", "spiral-3"]
    assert all(folder.is_dir() for folder in made)


def test_threads_get_different_fresh_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: fresh_folder(tmp_path, "run"), range(64)))
    assert len(set(made)) == 64


def test_processes_get_different_fresh_folders(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nnopt.io.atomic_files import fresh_folder\n"
        "for _ in range(25): print(fresh_folder(Path(sys.argv[1]), 'run').name)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    made = [name for process in running for name in process.communicate()[0].split()]
    assert len(made) == 100
    assert sorted(made) == names(tmp_path)


@pytest.mark.parametrize(("parent", "stem"), [("file", "run"), ("file/a", "run"), (".", "a" * 300)])
def test_fresh_folder_that_cannot_be_created_is_refused(
    tmp_path: Path, parent: str, stem: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot create folder"):
        fresh_folder(tmp_path / parent, stem)


def test_latest_link_is_relative_and_replaced(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for _ in range(2):
        target = fresh_folder(outputs / "runs", "spiral")
        link_latest(outputs, target)
        assert (outputs / "latest").resolve() == target.resolve()
    assert os.readlink(outputs / "latest") == os.path.join("runs", "spiral-2")
    outputs.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").is_dir()
    assert names(tmp_path / "moved") == ["latest", "runs"]


def test_latest_link_in_a_linked_outputs_folder_leads_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "outputs").symlink_to(tmp_path / "disk" / "deep")
    target = fresh_folder(tmp_path / "elsewhere", "run")
    link_latest(tmp_path / "outputs", target)
    assert (tmp_path / "outputs" / "latest").resolve() == target.resolve()


def test_latest_link_that_cannot_be_created_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").mkdir()
    link_latest(tmp_path, tmp_path / "run")
    assert names(tmp_path) == ["latest"]
    assert not (tmp_path / "latest").is_symlink()

    def refuse(*arguments: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "symlink", refuse)
    link_latest(tmp_path, tmp_path / "run")
    link_latest(tmp_path / "missing", tmp_path / "run")
    assert names(tmp_path) == ["latest"]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", os.fsdecode(b"\xff")])
def test_shown_path_is_on_one_line(name: str) -> None:
    assert shown(Path("runs/größe, a b=c")) == "runs/größe, a b=c"
    assert shown(Path(name)).isprintable()
    assert len(shown(Path(name)).splitlines()) == 1


def test_json_text_is_strict_and_ascii() -> None:
    value = {"mean ± σ": (np.float32(0.5), math.inf), "missing": math.nan, "file": "a\udcff"}
    text = json_text(value)
    assert text.isascii()
    assert text.endswith("}\n")
    expected = {"mean ± σ": [0.5, None], "missing": None, "file": "a\udcff"}
    assert json.loads(text) == expected
