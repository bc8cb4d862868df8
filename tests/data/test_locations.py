"""Datasets in folders with usual names."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_files import write_cinic, write_idx

from nnopt.data import cifar10, cinic10, idx
from nnopt.data.published import CIFAR10, CINIC10, FASHION_MNIST, MNIST
from nnopt.data.source import owner
from nnopt.errors import DataError

IDX_FILES = [name for pair in idx.FILES.values() for name in pair]
CIFAR_FILES = [name for files in cifar10.FILES.values() for name in files]


@pytest.mark.parametrize(
    "folder",
    ["MNIST/raw", "MNIST", "mnist/raw", "mnist", "Mnist", "MNIST/data/fashion", "raw", "."],
)
def test_mnist_folder_is_found(tmp_path: Path, folder: str) -> None:
    arrays = write_idx(tmp_path, folder)
    images, _ = idx.locate(MNIST, tmp_path).decode().parts["train"]
    assert np.array_equal(images[:, 0], arrays[IDX_FILES[0]])


@pytest.mark.parametrize(
    "folder",
    ["FashionMNIST/raw", "fashion-mnist", "fashion_mnist/raw", "fashion-mnist/data/fashion", "."],
)
def test_fashion_mnist_folder_is_found(tmp_path: Path, folder: str) -> None:
    write_idx(tmp_path, folder, packed=True)
    assert idx.locate(FASHION_MNIST, tmp_path).decode().parts["test"][0].shape == (20, 1, 4, 4)


@pytest.mark.parametrize("name", ["{dotted}", "{dotted}.gz", "{file}/{file}", "{file}/{dotted}"])
def test_mnist_file_with_unusual_name_is_found(tmp_path: Path, name: str) -> None:
    write_idx(tmp_path)
    for file in IDX_FILES:
        path = tmp_path / "MNIST/raw" / file
        content = path.read_bytes()
        path.unlink()
        new = path.parent / name.format(file=file, dotted=file.replace("-idx", ".idx"))
        new.parent.mkdir(exist_ok=True)
        new.write_bytes(gzip.compress(content) if new.suffix == ".gz" else content)
    assert idx.locate(MNIST, tmp_path).decode().parts["train"][0].shape == (40, 1, 4, 4)


def test_file_is_found_if_a_folder_has_its_usual_name(tmp_path: Path) -> None:
    write_idx(tmp_path)
    shutil.copy(tmp_path / "MNIST/raw" / IDX_FILES[0], tmp_path / "MNIST/raw/keep")
    (tmp_path / "MNIST/raw" / IDX_FILES[0]).unlink()
    (tmp_path / "MNIST/raw" / IDX_FILES[0]).mkdir()
    (tmp_path / "MNIST/raw/keep").rename(tmp_path / "MNIST/raw/train-images.idx3-ubyte")
    assert idx.locate(MNIST, tmp_path).decode().parts["train"][0].shape == (40, 1, 4, 4)


def test_folder_of_another_dataset_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both datasets have the same file names, so only the checksums distinguish them."""
    write_idx(tmp_path, ".")
    write_idx(tmp_path, "mnist")
    labels = (tmp_path / IDX_FILES[1]).read_bytes()
    changed = labels[:-1] + bytes([3])
    (tmp_path / IDX_FILES[1]).write_bytes(changed)
    fake = lambda digest: (FASHION_MNIST, IDX_FILES[1]) if digest == idx.sha256(changed) else None  # noqa: E731
    monkeypatch.setattr(idx, "owner", fake)
    assert Path(idx.locate(MNIST, tmp_path).location) == tmp_path / "mnist"
    assert Path(idx.locate(FASHION_MNIST, tmp_path).location) == tmp_path
    shutil.rmtree(tmp_path / "mnist")
    with pytest.raises(
        DataError, match=r"is train-labels.* of fashion_mnist.*dataset=fashion_mnist"
    ):
        idx.locate(MNIST, tmp_path)
    assert owner("0" * 64) is None


def test_error_about_missing_files_refers_to_most_complete_folder(tmp_path: Path) -> None:
    write_idx(tmp_path, "mnist")
    (tmp_path / "mnist" / IDX_FILES[2]).unlink()
    (tmp_path / "mnist" / IDX_FILES[3]).unlink()
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"mnist/{IDX_FILES[2]} and 1 more not found in "):
        idx.locate(MNIST, tmp_path)


def write_cifar(folder: Path, files: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_bytes(b"")


PYTHON_FILES = [name.removesuffix(".bin") for name in CIFAR_FILES]


@pytest.mark.parametrize("binary", [[], CIFAR_FILES[:3]])
def test_complete_cifar10_folder_is_chosen(tmp_path: Path, binary: list[str]) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", binary)
    write_cifar(tmp_path / "cifar-10-batches-py", PYTHON_FILES)
    source = cifar10.locate(CIFAR10, tmp_path)
    assert Path(source.location).name == "cifar-10-batches-py"
    assert list(source.files) == CIFAR_FILES
    write_cifar(tmp_path / "cifar-10-batches-bin", CIFAR_FILES)
    assert Path(cifar10.locate(CIFAR10, tmp_path).location).name == "cifar-10-batches-bin"


@pytest.mark.parametrize(
    "folder",
    ["cifar10/cifar-10-batches-bin", "CIFAR-10", "cifar-10-binary/cifar-10-batches-bin", "."],
)
def test_cifar10_folder_is_found(tmp_path: Path, folder: str) -> None:
    write_cifar(tmp_path / folder, CIFAR_FILES)
    assert Path(cifar10.locate(CIFAR10, tmp_path).location) == tmp_path / folder


def test_error_about_incomplete_cifar10_folder_mentions_a_missing_file(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", CIFAR_FILES[:1])
    write_cifar(tmp_path / "cifar-10-batches-py", PYTHON_FILES[:4])
    with pytest.raises(DataError, match="cifar-10-batches-py/data_batch_5 and 1 more not found"):
        cifar10.locate(CIFAR10, tmp_path)


@pytest.mark.parametrize("folder", ["CINIC-10", "cinic10", "CINIC_10", "."])
def test_cinic10_folder_is_found(tmp_path: Path, folder: str) -> None:
    write_cinic(tmp_path / "made")
    shutil.copytree(tmp_path / "made/CINIC-10", tmp_path / "root" / folder, dirs_exist_ok=True)
    assert len(cinic10.locate(CINIC10, tmp_path / "root").decode().parts["valid"][0]) == 20


@pytest.mark.parametrize(
    ("kind", "message"), [("file", "it is not a folder"), ("dangling link", "a dangling link")]
)
def test_root_that_is_not_a_folder_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    root = tmp_path / "root"
    root.write_text("") if kind == "file" else root.symlink_to("nowhere")
    for locate, published in (
        (cifar10.locate, CIFAR10),
        (cinic10.locate, CINIC10),
        (idx.locate, MNIST),
    ):
        with pytest.raises(DataError, match=message):
            locate(published, root)
