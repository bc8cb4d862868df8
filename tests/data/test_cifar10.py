"""CIFAR-10 in the binary and the Python version."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnopt.data import cifar10
from nnopt.data.published import CIFAR10
from nnopt.errors import DataError

COUNT = 20  # images per file, instead of 10,000
NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", COUNT)


def records(index: int) -> np.ndarray:
    """Return the records of one file: labels and random pixels."""
    random = np.random.default_rng(index)
    labels = (np.arange(COUNT) + index) % 10
    return np.column_stack([labels, random.integers(0, 256, (COUNT, 3072))]).astype(np.uint8)


def write_binary(root: Path) -> None:
    (root / "cifar-10-batches-bin").mkdir()
    for index, name in enumerate(NAMES):
        path = root / "cifar-10-batches-bin" / f"{name}.bin"
        path.write_bytes(records(index).tobytes())


def batch(index: int) -> dict[Any, Any]:
    """Return the content of a batch file of the Python version: a dictionary with bytes as keys."""
    values = records(index)
    return {
        b"batch_label": b"training batch 1 of 5",
        b"labels": [int(label) for label in values[:, 0]],
        b"data": values[:, 1:].copy(),
        b"filenames": [b"image.png"] * COUNT,
    }


def write_python(root: Path, protocol: int = 2, **changes: Any) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(NAMES):
        values = {**batch(index), **{key.encode(): value for key, value in changes.items()}}
        content = {key: value for key, value in values.items() if value is not None}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder / NAMES[0]


def test_binary_version_is_read(tmp_path: Path) -> None:
    write_binary(tmp_path)
    decoded = cifar10.locate(CIFAR10, tmp_path).decode()
    images, labels = decoded.parts["train"]
    assert images.shape == (5 * COUNT, 3, 32, 32)
    second = records(1)[3]
    assert labels[COUNT + 3] == second[0]
    red, green, blue = images[COUNT + 3]
    assert np.array_equal(np.concatenate([red, green, blue], axis=None), second[1:])
    assert decoded.parts["test"][0].shape == (COUNT, 3, 32, 32)
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1)
    assert decoded.mean == pytest.approx(pixels.mean(axis=1), rel=1e-14)
    assert decoded.std == pytest.approx(pixels.std(axis=1), rel=1e-12)


@pytest.mark.parametrize("protocol", range(5))
def test_data_of_python_version_equal_data_of_binary_version(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "binary").mkdir()
    write_binary(tmp_path / "binary")
    write_python(tmp_path, protocol)
    one = cifar10.locate(CIFAR10, tmp_path / "binary").decode()
    other = cifar10.locate(CIFAR10, tmp_path).decode()
    for part in ("train", "test"):
        for array, same in zip(one.parts[part], other.parts[part], strict=True):
            assert np.array_equal(array, same)


@pytest.mark.parametrize("size", [0, 10, "half", "last"])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_truncated_file_is_refused(tmp_path: Path, version: str, size: int | str) -> None:
    write_binary(tmp_path) if version == "binary" else write_python(tmp_path)
    path = next(path for path in tmp_path.rglob("data_batch_3*"))
    content = path.read_bytes()
    path.write_bytes(content[: {"half": len(content) // 2, "last": -1}.get(size, size)])  # type: ignore[call-overload]
    with pytest.raises(DataError, match=path.name):
        cifar10.locate(CIFAR10, tmp_path).decode()


def test_label_out_of_range_is_refused_with_its_index(tmp_path: Path) -> None:
    write_binary(tmp_path)
    path = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    values = records(5)
    values[4, 0] = 10
    path.write_bytes(values.tobytes())
    with pytest.raises(DataError, match=r"test_batch\.bin: label 10 at index 4"):
        cifar10.locate(CIFAR10, tmp_path).decode()


class Hostile:
    """An object whose unpickling calls ``open``, which creates the file ``marker``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", range(5))
def test_hostile_pickle_runs_no_code(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    write_python(tmp_path, protocol, extra=Hostile(marker))
    with pytest.raises(DataError, match=r"open, which is not allowed"):
        cifar10.locate(CIFAR10, tmp_path).decode()
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "numpy.load",
        "numpy.core.multiarray.scalar",
        "builtins.getattr",
    ],
)
def test_forbidden_global_of_a_pickle_is_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    content = f"c{module}\n{attribute}\n(S'echo'\ntR.".encode()
    with pytest.raises(DataError, match=f"{name}, which is not allowed"):
        cifar10.parse_python(content, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "no key 'labels'"),
        ({"data": None}, "no key 'data'"),
        (
            {"data": np.zeros((COUNT, 3071), np.uint8)},
            r"\(20, 3071\), expected an array \(20, 3072",
        ),
        ({"data": np.zeros((COUNT, 3072), np.float32)}, "numbers of type 'f4'"),
        ({"data": [1, 2]}, "'data' is of type list"),
        ({"labels": [0] * (COUNT - 1)}, "not a list of 20"),
        ({"labels": [0] * (COUNT - 1) + [-1]}, "label -1 at index 19"),
        ({"labels": [0.5] * COUNT}, "label 0.5 at index 0"),
        ({"labels": [True] * COUNT}, "label True at index 0"),
    ],
)
def test_malformed_batch_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_python(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        cifar10.locate(CIFAR10, tmp_path).decode()


def test_pickle_without_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains a list"):
        cifar10.parse_python(pickle.dumps([1]), tmp_path)


def test_error_about_missing_batch_mentions_its_file_name(tmp_path: Path) -> None:
    write_binary(tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin not found.*nnopt data fetch cifar10"):
        cifar10.locate(CIFAR10, tmp_path)
