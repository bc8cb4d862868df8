"""Checkpoints: files are read back, and damaged files or files of another format are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnopt.errors import ResumeError
from nnopt.results import checkpoint_file
from nnopt.results.checkpoint_file import Checkpoint, Content, read_checkpoint, write_checkpoint
from nnopt.results.metrics_file import LayerRow

SUMMARY = {
    "status": "running",
    "seed": 0,
    "config": {},
    "overrides": [],
    "data": None,
    "error": None,
    "total_seconds": 1.5,
}
VALUES = {
    "numbers": {"loss": math.nan, "best": -math.inf, "rate": 0.1 + 0.2, "none": None, "x": ["ä"]},
    "stopping": {},
    "plateau": {},
    "averaging": {},
    "epoch": {"n": 3},
    "history": [],
    "prunings": [],
    "target": {"step": 3, "seconds": 0.5},
    "updates": {"dense1.weight": 0.001},
}
VALUES_OF_2 = {
    **{name: x for name, x in VALUES.items() if name not in ("target", "updates")},
    "stopping": {"best": 0.25, "epoch": 1, "step": 2},
}
"""Values of a training in format 2."""

ARRAYS = {
    "learning_rates": np.array([0.1, 0.2]),
    "network/a": np.array([[math.nan, -0.0, 1e-45]], np.float32),
    "steps": np.array(7),
    "empty": np.zeros((0, 3)),
    "column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}
LAYERS = [LayerRow(1, "dense1", 0.5, math.nan, None, math.inf, 1e-320, 2.5, None)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a valid checkpoint, and return its path."""
    path = tmp_path / "checkpoint_a.npz"
    write_checkpoint(path, Checkpoint(Content(VALUES, ARRAYS), SUMMARY, LAYERS))
    return path


def sign(path: Path, arrays: dict[str, Any]) -> None:
    """Write the arrays of a checkpoint with a correct checksum."""
    arrays = {name: array for name, array in arrays.items() if name != "sha256"}
    with path.open("wb") as file:
        np.savez(file, sha256=checkpoint_file._digest(arrays), **arrays)


def stored(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return dict(file)


def test_checkpoint_round_trip_keeps_all_bits(path: Path) -> None:
    found = read_checkpoint(path)
    assert repr(found.training.values) == repr(VALUES)
    assert (found.summary, repr(found.layers), found.step) == (
        SUMMARY,
        repr(LAYERS),
        2,
    )
    assert found.training.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        other = found.training.arrays[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        assert array.tobytes() == other.tobytes()
    assert found.path == path


def test_checkpoint_signed_by_the_test_is_accepted(path: Path) -> None:
    """A checkpoint that ``sign`` writes is valid, unless a test below changes its contents."""
    sign(path, stored(path))
    assert read_checkpoint(path).step == 2


def test_checkpoint_of_format_1_has_no_prunings(path: Path) -> None:
    """Format 1 has no list of prunings, and its rows of metrics have no sparsity."""
    old = {name: value for name, value in VALUES_OF_2.items() if name != "prunings"}
    old["history"] = [[1, 2, 0.1, 0.5, 0.75, None, None, 0.0, 1.5, 9.0]]
    training = read_values(path, {"format": 1, "training": old})
    assert training["prunings"] == []
    assert training["history"] == [[1, 2, 0.1, 0.5, 0.75, None, None, 0.0, 1.5, 9.0, 0.0]]


def test_checkpoint_of_format_2_has_its_best_value_as_reference(path: Path) -> None:
    """In format 2, the best value was that of the last improvement above ``min_delta``."""
    training = read_values(path, {"format": 2, "training": VALUES_OF_2})
    assert training["stopping"] == {"best": 0.25, "reference": 0.25, "epoch": 1, "step": 2}


@pytest.mark.parametrize("stopping", [{}, [], None])
def test_checkpoint_of_format_2_without_best_value_is_refused(path: Path, stopping: Any) -> None:
    with pytest.raises(ResumeError, match="is not a checkpoint of nnopt: stopping has a wrong"):
        read_values(path, {"format": 2, "training": {**VALUES_OF_2, "stopping": stopping}})


def test_checkpoint_of_format_2_has_no_target_and_no_norms(path: Path) -> None:
    row = [1, "dense1", 0.5, 0.25, None, 1.0, 2.0]
    training = read_values(path, {"format": 2, "training": VALUES_OF_2, "layers": [row]})
    assert training["target"] == {"step": None, "seconds": None}
    assert training["updates"] == {}
    expected = LayerRow(1, "dense1", 0.5, 0.25, None, 1.0, 2.0, None, None)
    assert read_checkpoint(path).layers == [expected]


def read_values(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the training that are read from a checkpoint with these values."""
    text = json.dumps({"summary": SUMMARY, "layers": [], **values}).encode("ascii")
    sign(path, stored(path) | {"values": np.frombuffer(text, np.uint8)})
    return read_checkpoint(path).training.values


@pytest.mark.parametrize("size", [0, 10, 0.5, -1], ids=["empty", "10 bytes", "half", "last byte"])
def test_checkpoint_that_is_truncated_is_refused(path: Path, size: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data)) if size == 0.5 else int(size)])
    with pytest.raises(ResumeError, match=r"checkpoint_a\.npz is damaged"):
        read_checkpoint(path)


def test_checkpoint_that_is_missing_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(ResumeError, match="does not exist"):
        read_checkpoint(path)


def test_checkpoint_with_flipped_bit_is_refused_or_unchanged(path: Path) -> None:
    """Some bits of the archive, such as the times of its members, do not change the arrays."""
    data, whole = path.read_bytes(), read_checkpoint(path)
    accepted, messages = 0, []
    for place in range(0, 8 * len(data), 101):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except ResumeError as error:
            messages.append(str(error))
            continue
        accepted += 1
        assert repr(found) == repr(whole)
    assert accepted < len(messages)
    assert [x for x in messages if "checkpoint_a.npz" not in x or "\n" in x] == []


def test_checkpoint_with_an_open_bracket_in_a_header_is_refused(path: Path) -> None:
    """NumPy parses the header of a large array before zipfile has checked the array's CRC."""
    write_checkpoint(path, Checkpoint(Content(VALUES, {"large": np.zeros(2000)}), SUMMARY, []))
    data = path.read_bytes()
    place = data.index(b")", data.index(b"large.npy"))
    path.write_bytes(data[:place] + b"(" + data[place + 1 :])
    with pytest.raises(ResumeError, match=r"checkpoint_a\.npz is damaged: .*EOF"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["network/a", "steps", "values"])
def test_checkpoint_with_changed_array_is_refused(path: Path, name: str) -> None:
    """The CRC of the archive is correct, but the SHA-256 of the arrays is not."""
    arrays = stored(path)
    arrays[name] = arrays[name] + np.ones((), arrays[name].dtype)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ResumeError, match="is damaged: its SHA-256 does not match"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"steps": arrays["steps"].astype(np.int32)},
        lambda arrays: arrays | {"network/a": arrays["network/a"].reshape(3)},
        lambda arrays: {name.replace("network", "last"): x for name, x in arrays.items()},
        lambda arrays: arrays | {"new": np.zeros(0)},
    ],
    ids=["type", "shape", "name", "number"],
)
def test_checkpoint_with_changed_names_types_or_shapes_is_refused(path: Path, change: Any) -> None:
    np.savez(path, **change(stored(path)))
    with pytest.raises(ResumeError, match="SHA-256"):
        read_checkpoint(path)


CONTENTS: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "is not a checkpoint of nnopt"),
    "no UTF-8": (b"\xff\xfe\x80", "is not a checkpoint of nnopt"),
    "a list": ([], "is not a checkpoint of nnopt"),
    "nested deeply": (b"[" * 100_000, "is not a checkpoint of nnopt"),
    "a huge number": (b"9" * 10_000, "is not a checkpoint of nnopt"),
    "a newer format": ({"format": 4, "anything": 1}, "has format 4, but this nnopt reads format 3"),
    "an older format": ({"format": 0}, "is not a checkpoint of nnopt"),
    "a format as text": ({"format": "1"}, "is not a checkpoint of nnopt"),
    "no layers": (
        {"format": 3, "training": {}, "summary": {}},
        "is not a checkpoint of nnopt: expected a map with exactly the keys format, training",
    ),
    "layers that are a map": (
        {"format": 3, "training": {}, "summary": SUMMARY, "layers": {}},
        "layers has a wrong type",
    ),
    "a layer that is short": (
        {"format": 3, "training": VALUES, "summary": SUMMARY, "layers": [[1]]},
        "a row has 1 values",
    ),
    "no summary": (
        {"format": 3, "training": VALUES, "summary": {}, "layers": []},
        "it has no 'status', 'seed', 'config', 'overrides', 'data', 'error'",
    ),
    "a summary with a wrong type": (
        {
            "format": 3,
            "training": VALUES,
            "summary": SUMMARY | {"interruptions": "3"},
            "layers": [],
        },
        'interruptions is "3", expected a whole number',
    ),
    "a summary with a list of seconds": (
        {"format": 3, "training": VALUES, "summary": SUMMARY | {"total_seconds": []}, "layers": []},
        r"total_seconds is \[\], expected a number",
    ),
    "training without plateau": (
        {"format": 3, "training": {"numbers": {}}, "summary": SUMMARY, "layers": []},
        "exactly the keys numbers, stopping, plateau",
    ),
    "a layer of format 2 that is a number": (
        {"format": 2, "training": VALUES_OF_2, "summary": SUMMARY, "layers": [7]},
        "layers has a wrong type",
    ),
    "a negative epoch": (
        {
            "format": 3,
            "training": VALUES,
            "summary": SUMMARY,
            "layers": [[-1, "a", 0.0, 0.0, None, None, None, None, None]],
        },
        "epoch is out of range",
    ),
}


@pytest.mark.parametrize(("content", "fragment"), CONTENTS.values(), ids=CONTENTS)
def test_checkpoint_with_wrong_values_and_correct_checksum_is_refused(
    path: Path, content: Any, fragment: str
) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    sign(path, stored(path) | {"values": np.frombuffer(text, np.uint8)})
    with pytest.raises(ResumeError, match=fragment) as error:
        read_checkpoint(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["values", "sha256"])
def test_checkpoint_without_an_array_is_refused(path: Path, name: str) -> None:
    arrays = {key: array for key, array in stored(path).items() if key != name}
    np.savez(path, **arrays) if name == "sha256" else sign(path, arrays)
    with pytest.raises(ResumeError, match=r"is damaged|is not a checkpoint"):
        read_checkpoint(path)
