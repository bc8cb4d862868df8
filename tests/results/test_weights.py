"""Reading the weights of two runs and comparing them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nnopt.errors import ModelError
from nnopt.io.atomic_files import write_arrays
from nnopt.results import weights
from nnopt.results.weights import array_differences, read_weights


def test_array_differences_equal_hand_calculation() -> None:
    a = {"w": np.array([[3.0, 0.0], [0.0, 4.0]], np.float32), "zero": np.zeros(2)}
    b = {"w": np.array([[0.0, 0.0], [0.0, 8.0]], np.float32), "zero": np.ones(2)}
    first, second = array_differences(a, b)
    assert (first.name, first.shape) == ("w", (2, 2))
    assert first.norms == (5.0, 8.0)
    assert first.distance == 5.0  # √(3² + 4²)
    assert first.cosine == pytest.approx(32 / 40)
    assert (second.norms[0], second.cosine) == (0.0, None)
    assert second.distance == pytest.approx(math.sqrt(2))


def test_array_differences_omit_arrays_of_different_shapes() -> None:
    a = {"w": np.ones((2, 3)), "b": np.ones(3), "only": np.ones(1)}
    b = {"w": np.ones((3, 2)), "b": np.ones(3), "other": np.ones(1)}
    assert [row.name for row in array_differences(a, b)] == ["b"]


def test_written_weights_are_read_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"dense1.weight": np.eye(2, dtype=np.float32)})
    found = read_weights(tmp_path / "a.npz")
    assert list(found) == ["dense1.weight"]
    np.testing.assert_array_equal(found["dense1.weight"], np.eye(2))


def test_compressed_weights_are_small_and_read_back(tmp_path: Path) -> None:
    weight = np.zeros((100, 100), np.float32)
    weight[::10, ::10] = np.random.default_rng(0).standard_normal((10, 10))
    write_arrays(tmp_path / "a.npz", {"dense1.weight": weight}, compressed=True)
    assert (tmp_path / "a.npz").stat().st_size < 0.05 * weight.nbytes
    np.testing.assert_array_equal(read_weights(tmp_path / "a.npz")["dense1.weight"], weight)


def test_compressed_weights_above_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file could otherwise fill the memory."""
    write_arrays(tmp_path / "a.npz", {"w": np.zeros(1000)}, compressed=True)
    monkeypatch.setattr(weights, "MAX_COMPRESSED_BYTES", 8000)
    with pytest.raises(ModelError, match="its compressed arrays are too large"):
        read_weights(tmp_path / "a.npz")
    write_arrays(tmp_path / "b.npz", {"w": np.zeros(1000)})
    assert not read_weights(tmp_path / "b.npz")["w"].any()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half a file", b"no archive"])
def test_damaged_weights_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.npz"):
        read_weights(path)


def test_weights_file_with_pickled_object_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="damaged"):
        read_weights(tmp_path / "a.npz")


def test_weights_file_in_npy_format_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ModelError, match="damaged"):
        read_weights(tmp_path / "a.npz")


def test_weights_file_with_damaged_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"w": np.arange(1000.0)})
    data = bytearray(path.read_bytes())
    data[4000] ^= 0xFF  # the CRC of the entry is now wrong
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        read_weights(path)
