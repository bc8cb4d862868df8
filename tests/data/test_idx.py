"""MNIST and Fashion-MNIST in IDX files."""

from __future__ import annotations

import gzip
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import idx_bytes, write_idx

from nnopt.data import idx, published
from nnopt.data.dataset_files import sha256
from nnopt.data.published import FASHION_MNIST, MNIST
from nnopt.data.source import Decoded
from nnopt.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def decode(root: Path) -> Decoded:
    return idx.locate(MNIST, root).decode()


@pytest.mark.parametrize("packed", [False, True])
def test_images_and_labels_are_read(tmp_path: Path, packed: bool) -> None:
    arrays = write_idx(tmp_path, packed=packed)
    decoded = decode(tmp_path)
    images, labels = decoded.parts["train"]
    assert images.shape == (40, 1, 4, 4)
    assert images.dtype == np.uint8
    assert np.array_equal(images[:, 0], arrays[IMAGES])
    assert labels.dtype == np.int64
    assert np.array_equal(labels, arrays[LABELS])
    assert np.array_equal(decoded.parts["test"][1], arrays["t10k-labels-idx1-ubyte"])
    assert decoded.mean[0] == pytest.approx(arrays[IMAGES].mean(), rel=1e-15)
    assert decoded.std[0] == pytest.approx(arrays[IMAGES].std(), rel=1e-12)
    # The checksums are of uncompressed contents. The files of this test are not the published ones.
    assert decoded.sources[f"MNIST/raw/{LABELS}"] == sha256(idx_bytes(arrays[LABELS]))
    assert len(decoded.notes) == 4
    assert "not the published file" in decoded.notes[0]


@pytest.mark.parametrize("file", [IMAGES, LABELS, "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize("size", [0, 3, 10, "half", "last", "one more"])
@pytest.mark.parametrize("packed", [False, True])
def test_file_of_wrong_size_is_refused(
    tmp_path: Path, file: str, size: int | str, packed: bool
) -> None:
    write_idx(tmp_path, packed=packed)
    path = tmp_path / "MNIST/raw" / (f"{file}.gz" if packed else file)
    content = path.read_bytes()
    if size == "one more":
        path.write_bytes(content + b"x")
    else:
        path.write_bytes(content[: {"half": len(content) // 2, "last": -1}.get(size, size)])  # type: ignore[call-overload]
    with pytest.raises(DataError, match=re.escape(str(path))):
        decode(tmp_path)


def test_error_about_wrong_size_has_both_sizes(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "MNIST/raw" / IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"truncated: 655 bytes.*means 656"):
        decode(tmp_path)


def test_wrong_contents_are_refused(tmp_path: Path) -> None:
    arrays = write_idx(tmp_path)
    folder = tmp_path / "MNIST/raw"
    cases = [
        (IMAGES, b"<html>not found</html>", "not an IDX file.*3c 68 74 6d"),
        (IMAGES, idx_bytes(arrays[LABELS]), "not an IDX file with 3"),
        (IMAGES, idx_bytes(arrays[IMAGES][:39]), "39 images, but .* 40 labels"),
        (IMAGES, idx_bytes(arrays[IMAGES][:, :3]), r"\(1, 3, 4\), test images \(1, 4, 4\)"),
        (LABELS, idx_bytes(np.full(40, 7) + 3 * (np.arange(40) == 5)), "label 10 at index 5 "),
        (IMAGES, bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\0" * 99, "truncated: 115 bytes"),
    ]
    for file, content, message in cases:
        original = (folder / file).read_bytes()
        (folder / file).write_bytes(content)
        with pytest.raises(DataError, match=message):
            decode(tmp_path)
        (folder / file).write_bytes(original)
    decode(tmp_path)


def test_giant_file_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    os.truncate(tmp_path / "MNIST/raw" / IMAGES, 20 * 2**30)  # sparse: occupies no disk space
    with pytest.raises(DataError, match=r"has 21,474,836,480 bytes, expected 1,073,741,824 at"):
        decode(tmp_path)


def test_file_without_images_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    for file, shape in ((IMAGES, (0, 4, 4)), (LABELS, (0,))):
        (tmp_path / "MNIST/raw" / file).write_bytes(idx_bytes(np.zeros(shape)))
    with pytest.raises(DataError, match="has no images"):
        decode(tmp_path)


@pytest.mark.parametrize("damage", ["crc", "html", "bomb"])
def test_damaged_gzip_is_refused(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / f"MNIST/raw/{IMAGES}.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the CRC of the contents
    if damage == "html":
        content = bytearray(b"<html>404</html>")
    if damage == "bomb":
        content = bytearray(gzip.compress(idx_bytes(np.zeros((2**12, 16, 16)))))
        monkeypatch.setattr("nnopt.data.dataset_files.GZIP_FLOOR", 2**16)
    path.write_bytes(content)
    message = "unpacks to more than" if damage == "bomb" else "is damaged"
    with pytest.raises(DataError, match=message):
        decode(tmp_path)


def test_error_about_missing_file_has_address_and_command(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "MNIST/raw" / LABELS).unlink()
    with pytest.raises(DataError) as caught:
        idx.locate(MNIST, tmp_path)
    message = str(caught.value)
    assert f"MNIST/raw/{LABELS} not found in {tmp_path}" in message
    assert f"https://ossci-datasets.s3.amazonaws.com/mnist/{LABELS}.gz" in message
    assert f"nnopt data fetch mnist --root {tmp_path}" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling link"])
def test_special_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    write_idx(tmp_path)
    path = tmp_path / "MNIST/raw" / IMAGES
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"a folder|FIFO|dangling link") as caught:
        decode(tmp_path)
    assert kind.upper() in str(caught.value).upper()


def test_file_of_another_dataset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = write_idx(tmp_path)
    known = sha256(idx_bytes(arrays[IMAGES]))
    fashion = replace(FASHION_MNIST, sha256={IMAGES: known})
    monkeypatch.setitem(published.PUBLISHED, "fashion_mnist", fashion)
    with pytest.raises(DataError, match=f"is {IMAGES} of fashion_mnist.*dataset=fashion_mnist"):
        decode(tmp_path)


def test_gzip_is_unpacked_only_up_to_the_size_in_the_idx_header(tmp_path: Path) -> None:
    """100 MB of zeros follow the 40 images that the IDX header announces.

    Only one of these zeros is unpacked. It shows that the file is too long.
    """
    write_idx(tmp_path, packed=True)
    path = tmp_path / f"MNIST/raw/{IMAGES}.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((40, 4, 4))) + bytes(10**8)))
    tracemalloc.start()
    with pytest.raises(DataError, match="is too long: 657 bytes"):
        decode(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7
