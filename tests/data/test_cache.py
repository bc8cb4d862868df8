"""The cache of decoded datasets: reuse, damage, and concurrent processes."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import csv_config, image_config, write_idx

from nnopt.backends.numpy.loader import NumpyLoader
from nnopt.data import cache, cache_entry, csv_file, idx
from nnopt.data.batches import PLAIN
from nnopt.data.cache import cached, damaged
from nnopt.data.dataset import Normalization, Part
from nnopt.data.published import MNIST, Published
from nnopt.data.source import Decoded
from nnopt.errors import DataError
from nnopt.schema import Config

LABELS = "MNIST/raw/train-labels-idx1-ubyte"


class Counted:
    """A source of MNIST; ``times`` is how often it was decoded."""

    def __init__(self, root: Path) -> None:
        write_idx(root)
        self.times = 0
        real = idx.locate(MNIST, root)

        def decode(settings: Published, files: Mapping[str, Path]) -> Decoded:
            self.times += 1
            return real.decoder(settings, files)

        self.source = replace(real, decoder=decode)


def entry(folder: Path) -> Path:
    (found,) = folder.glob("mnist-*")
    return found


@pytest.mark.parametrize("is_copied", [True, False])
def test_second_read_through_the_cache_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copied: bool
) -> None:
    if not is_copied:
        monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    counted = Counted(tmp_path)
    expected = counted.source.decode()
    first, second = (cached(counted.source, tmp_path / "cache") for _ in range(2))
    assert counted.times == 2
    for decoded in (first, second):
        inputs, labels = decoded.parts["train"]
        assert isinstance(inputs, np.memmap) is not is_copied
        assert not isinstance(labels, np.memmap)
        assert np.array_equal(inputs, expected.parts["train"][0])
        assert np.array_equal(labels, expected.parts["train"][1])
        assert replace(decoded, parts={}, repeated={}) == replace(expected, parts={}, repeated={})
    assert not list((tmp_path / "cache").glob(".*"))


def test_cache_key_depends_on_the_contents(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    first = entry(tmp_path / "cache")
    assert len(first.name) == len("mnist-") + 16
    # The same bytes with a new modification time: the file is read again, but no new entry is
    # stored.
    path = tmp_path / LABELS
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    cached(counted.source, tmp_path / "cache")
    assert counted.times == 2
    assert entry(tmp_path / "cache") == first
    # Other bytes of the same size give another key.
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    decoded = cached(counted.source, tmp_path / "cache")
    assert counted.times == 3
    assert len(list((tmp_path / "cache").glob("mnist-*"))) == 2
    assert decoded.parts["train"][1][-1] == content[-1] ^ 1


@pytest.mark.parametrize("file", ["contents.json", "train_inputs.npy", "test_labels.npy"])
@pytest.mark.parametrize("size", [None, 0, 10, "half", "last"])
def test_damaged_entry_is_rewritten(tmp_path: Path, file: str, size: int | str | None) -> None:
    counted = Counted(tmp_path)
    expected = np.array(cached(counted.source, tmp_path / "cache").parts["train"][0])
    path = entry(tmp_path / "cache") / file
    content = path.read_bytes()
    path.unlink()
    if size is not None:
        cut = {"half": len(content) // 2, "last": -2}.get(size, size)  # type: ignore[call-overload]
        path.write_bytes(content[:cut])
    decoded = cached(counted.source, tmp_path / "cache")
    assert counted.times == 2
    assert np.array_equal(decoded.parts["train"][0], expected)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entry": "../../x"}', "null"])
def test_damaged_index_is_rewritten(tmp_path: Path, content: str) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    (index,) = (tmp_path / "cache/index").glob("*.json")
    index.write_text(content)
    cached(counted.source, tmp_path / "cache")
    cached(counted.source, tmp_path / "cache")
    assert counted.times == 2
    assert json.loads(index.read_text())["entry"] == entry(tmp_path / "cache").name


def test_entry_of_another_format_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    cached(counted.source, tmp_path / "cache")
    assert counted.times == 2


def test_data_are_decoded_into_memory_if_no_cache_can_be_created(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "nnopt"):
        decoded = cached(counted.source, tmp_path / "file/cache")
    assert decoded.parts["train"][0].shape == (40, 1, 4, 4)
    (record,) = caplog.records
    assert "cannot write the cache" in record.message
    assert "data.cache=DIR" in record.message


def test_cache_on_full_disk_contains_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_entry.os, "fsync", full)
    with caplog.at_level(logging.WARNING, "nnopt"):
        decoded = cached(Counted(tmp_path).source, tmp_path / "cache")
    assert len(decoded.parts["test"][0]) == 20
    assert "No space left" in caplog.text
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["index"]


def test_temporary_folder_of_killed_process_is_removed(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    (index,) = (tmp_path / "cache/index").glob("*.json")
    left = tmp_path / "cache" / f".{index.stem}.tmp"
    left.mkdir()
    (left / "train_inputs.npy").write_bytes(b"half")
    index.unlink()
    cached(counted.source, tmp_path / "cache")
    assert not left.exists()


def _in_another_process(root: str) -> int:
    decoded = cached(idx.locate(MNIST, Path(root)), Path(root) / "cache")
    return int(decoded.parts["train"][0].sum())


def test_concurrent_processes_read_equal_data(tmp_path: Path) -> None:
    arrays = write_idx(tmp_path)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        sums = pool.map(_in_another_process, [str(tmp_path)] * 6, chunksize=1)
    assert set(sums) == {int(arrays["train-images-idx3-ubyte"].sum())}
    assert entry(tmp_path / "cache").is_dir()
    assert not list((tmp_path / "cache").glob(".*"))


def test_sources_with_equal_content_share_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = Counted(tmp_path / "one"), Counted(tmp_path / "other")
    cached(one.source, tmp_path / "cache")
    first = entry(tmp_path / "cache").stat()
    cached(other.source, tmp_path / "cache")
    assert caplog.text == ""
    assert entry(tmp_path / "cache").stat().st_ino == first.st_ino


def test_entry_with_other_labels_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry has the expected name and valid checksums, but other labels than the source."""
    one, other = Counted(tmp_path / "one"), Counted(tmp_path / "other")
    expected = np.array(cached(one.source, tmp_path / "cache").parts["train"][1])
    folder = entry(tmp_path / "cache")
    labels = np.zeros_like(expected)
    np.save(folder / "train_labels.npy", labels)
    contents = json.loads((folder / "contents.json").read_text())
    contents["arrays"]["train_labels"]["sha256"] = hashlib.sha256(labels).hexdigest()
    (folder / "contents.json").write_text(json.dumps(contents))
    actual = cached(other.source, tmp_path / "cache")
    assert np.array_equal(actual.parts["train"][1], expected)
    assert "is damaged and is written again" in caplog.text


def _with_array(contents: dict[str, Any], shape: list[int], dtype: str) -> dict[str, Any]:
    facts = {"shape": shape, "dtype": dtype, "sha256": ""}
    return contents | {"arrays": contents["arrays"] | {"train_inputs": facts}}


CONTENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "list": lambda contents: [contents],
    "arrays are a list": lambda contents: contents | {"arrays": [1]},
    "class is a number": lambda contents: contents | {"classes": [0] * 10},
    "fewer classes": lambda contents: contents | {"classes": ["0"]},
    "mean is null": lambda contents: contents | {"mean": [None]},
    "two means": lambda contents: contents | {"mean": [0.5, 0.5]},
    "no training part": lambda contents: contents | {"parts": ["test"]},
    "part outside of the entry": lambda contents: (
        contents | {"parts": ["train", "test", "../../x"]}
    ),
    "source is a number": lambda contents: contents | {"sources": {"a": 1}},
    "giant shape": lambda contents: _with_array(contents, [2**50, 1, 4, 4], "uint8"),
    "negative shape": lambda contents: _with_array(contents, [-1, 1, 4, 4], "uint8"),
    "object type": lambda contents: _with_array(contents, [40, 1, 4, 4], "O"),
}


@pytest.mark.parametrize("change", CONTENTS.values(), ids=CONTENTS)
def test_hostile_contents_file_is_replaced(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    path = entry(tmp_path / "cache") / "contents.json"
    original = path.read_bytes()
    path.write_text(json.dumps(change(json.loads(original))))
    cached(counted.source, tmp_path / "cache")
    assert counted.times == 2
    assert path.read_bytes() == original


@pytest.mark.parametrize("kind", ["[" * 100_000, "(" * 9_000, "object"])
def test_hostile_array_file_is_replaced(tmp_path: Path, kind: str) -> None:
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    path = entry(tmp_path / "cache") / "train_inputs.npy"
    original = path.read_bytes()
    if kind == "object":
        np.save(path, np.array([print] * 640, object), allow_pickle=True)
    else:
        header = kind.encode()[:9000]
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    cached(counted.source, tmp_path / "cache")
    assert path.read_bytes() == original


def test_part_with_truncated_mapped_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Callable[..., Config]
) -> None:
    monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    inputs, labels = cached(Counted(tmp_path).source, tmp_path / "cache").parts["train"]
    part = Part(inputs, labels, np.arange(40))
    config = make_config(dataset=image_config("mnist"))
    batches = NumpyLoader(part, Normalization(np.ones(1), np.zeros(1)), config)
    next(batches.evaluation_batches())
    os.truncate(entry(tmp_path / "cache") / "train_inputs.npy", 0)
    with pytest.raises(DataError, match="truncated to 0 bytes while it was in use"):
        next(batches.evaluation_batches())
    with pytest.raises(DataError, match="truncated"):
        next(batches.train_batches(np.arange(40), 8, PLAIN))


def test_part_with_deleted_mapped_file_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    inputs, labels = cached(Counted(tmp_path).source, tmp_path / "cache").parts["train"]
    before = inputs.copy()
    shutil.rmtree(tmp_path / "cache")
    Part(inputs, labels, np.arange(40)).check_file()
    assert np.array_equal(inputs, before)


def test_flipped_bit_of_an_entry_is_found(tmp_path: Path) -> None:
    cached(Counted(tmp_path).source, tmp_path / "cache")
    assert damaged(tmp_path / "cache", "mnist") == []
    path = entry(tmp_path / "cache") / "train_inputs.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert damaged(tmp_path / "cache", "mnist") == [str(path)]


CHANGES: list[dict[str, object]] = [
    {},
    {"label": "b"},
    {"train": "test.csv", "test": "train.csv"},
    {"test": None},
    {"train": "test.csv", "test": None},
    {"test": "train.csv"},
    {"shape": (1, 1, 2)},
    {"shape": (1, 2, 1)},
    {"shape": (2,)},
]


def csv_facts(decoded: Decoded) -> object:
    return {
        part: (inputs.shape, inputs.tolist(), labels.tolist())
        for part, (inputs, labels) in decoded.parts.items()
    }


@pytest.mark.parametrize("order", [1, -1])
def test_csv_sources_with_different_options_never_share_an_entry(
    tmp_path: Path, order: int
) -> None:
    (tmp_path / "train.csv").write_text("label,b,c\n0,1,2\n1,0,3\n1,1,4\n")
    (tmp_path / "test.csv").write_text("label,b,c\n1,0,5\n0,1,6\n")
    for changes in CHANGES[::order]:
        values = {"train": "train.csv", "test": "test.csv", **changes}
        source = csv_file.locate(csv_config(**values), tmp_path, tmp_path)  # type: ignore[arg-type]
        for _ in range(2):
            found = cached(source, tmp_path / "cache")
            assert csv_facts(found) == csv_facts(source.decode())
            assert found.sources == source.decode().sources
    assert len(list((tmp_path / "cache").glob("csv-*"))) == len(CHANGES)


def test_csv_sources_that_differ_only_in_chosen_rows_or_normalization_share_an_entry(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.csv").write_text("label,b\n0,1\n1,0\n1,1\n")
    for changes in ({}, {"subset": 2}, {"classes": ("1",)}, {"normalization": "unit"}):
        config = csv_config("train.csv", **changes)
        cached(csv_file.locate(config, tmp_path, tmp_path), tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("csv-*"))) == 1


def test_train_and_test_csv_files_with_swapped_contents_are_decoded_again(tmp_path: Path) -> None:
    one, other = "label,b\n0,1\n1,2\n", "label,b\n0,3\n1,4\n"
    for first, second in ((one, other), (other, one)):
        (tmp_path / "train.csv").write_text(first)
        (tmp_path / "test.csv").write_text(second)
        config = csv_config("train.csv", test="test.csv")
        found = cached(csv_file.locate(config, tmp_path, tmp_path), tmp_path / "cache")
        assert found.parts["train"][0][:, 0].tolist() == [int(first[10]), int(first[14])]


def test_cache_key_depends_on_the_settings(tmp_path: Path) -> None:
    """The sources differ only in their settings, as if a decoder had a new option."""
    counted = Counted(tmp_path)
    cached(counted.source, tmp_path / "cache")
    other = replace(counted.source, settings=replace(MNIST, shape=(1, 4, 4)))
    cached(other, tmp_path / "cache")
    assert counted.times == 2
    assert len(list((tmp_path / "cache").glob("mnist-*"))) == 2


def test_damaged_entry_is_replaced_while_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped files are deleted, not overwritten, so their mappings keep the old contents."""
    monkeypatch.setattr(cache_entry, "MAX_COPIED_BYTES", 0)
    counted = Counted(tmp_path)
    inputs, _ = cached(counted.source, tmp_path / "cache").parts["train"]
    before = inputs.copy()
    folder = entry(tmp_path / "cache")
    (folder / "contents.json").write_text("{")
    old = (folder / "train_inputs.npy").stat().st_ino
    again, _ = cached(counted.source, tmp_path / "cache").parts["train"]
    assert (folder / "train_inputs.npy").stat().st_ino != old
    assert np.array_equal(inputs, before)
    assert np.array_equal(again, before)
