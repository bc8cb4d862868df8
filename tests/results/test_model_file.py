"""``model.json``: written, read, and refused if it is damaged or of a newer version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnopt.data.dataset import InputFormat, Normalization
from nnopt.errors import ModelError
from nnopt.io.atomic_files import FileRecord, write_hashed_arrays
from nnopt.results.model_file import ModelFile, read_model_file, weights_sha256, write_model_file
from nnopt.results.summary import values_digest
from nnopt.results.weights import read_weights


@pytest.fixture
def model() -> ModelFile:
    rng = np.random.default_rng(0)
    scale, shift, origin = rng.standard_normal((3, 2))
    records = {x: FileRecord(f"model_{x}.npz", 10, "0" * 64) for x in ("best", "last")}
    return ModelFile(
        inputs=InputFormat((2,), "float64", ("width", "höhe")),
        classes=("a", "b"),
        normalization=Normalization(scale / 3, shift * 1e-300, origin),
        architecture={"name": "layers", "layers": ["relu"]},
        config={"seed": 3},
        threads=2,
        weights=records,
        data={"name": "csv", "sources": {"a.csv": "0"}},
        versions={"nnopt": "1"},
    )


def test_model_file_is_read_back_with_the_same_bits(tmp_path: Path, model: ModelFile) -> None:
    write_model_file(tmp_path, model)
    found = read_model_file(tmp_path)
    assert found is not None
    for key in ("scale", "shift", "origin"):
        expected = getattr(model.normalization, key)
        np.testing.assert_array_equal(getattr(found.normalization, key), expected, strict=True)
    for key in ("inputs", "classes", "architecture", "threads", "weights", "data", "versions"):
        assert getattr(found, key) == getattr(model, key)
    assert found.config["seed"] == 3


def test_missing_model_file_is_none(tmp_path: Path) -> None:
    assert read_model_file(tmp_path) is None


def with_checksum(values: dict[str, Any]) -> str:
    return json.dumps(values | {"sha256": values_digest(values)})


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "half a file": (lambda x: json.dumps(x)[:100], "is damaged"),
    "a list": (lambda x: "[]", "no description of a model"),
    "another program's file": (lambda x: '{"layers": []}', "no description of a model"),
    "a changed value": (lambda x: json.dumps(x | {"threads": 3}), "checksum does not match"),
    "no checksum": (lambda x: json.dumps(x | {"sha256": None}), "checksum does not match"),
    "a newer format": (
        lambda x: json.dumps(x | {"format": 99, "versions": {"nnopt": "9.1"}}),
        "was written by nnopt 9.1 in format 99",
    ),
    "a wrong type": (lambda x: with_checksum(x | {"classes": "ab"}), "classes is not a value"),
    "numbers as classes": (lambda x: with_checksum(x | {"classes": [1]}), "not a list of texts"),
    "another number of columns": (
        lambda x: with_checksum(x | {"columns": ["x"]}),
        "not one column for each number",
    ),
    "another number of constants": (
        lambda x: with_checksum(x | {"normalization": x["normalization"] | {"scale": [1.0]}}),
        "scale is not a list of 2 numbers",
    ),
    "infinity": (
        lambda x: with_checksum(x).replace('"origin": [', '"origin": [1e999, '),
        "is damaged",
    ),
    "images of floats": (
        lambda x: with_checksum(x | {"input_shape": [1, 2, 1]}),
        "cannot have the type 'float64'",
    ),
    "no threads": (lambda x: with_checksum(x | {"threads": 0}), "threads is 0"),
    "a path as the name of the weights": (
        lambda x: with_checksum(
            x | {"weights": x["weights"] | {"best": {"name": "../x", "size": 1, "sha256": ""}}}
        ),
        "the file of the best weights is not model_best.npz",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_model_file_is_refused_in_one_line(
    tmp_path: Path, model: ModelFile, damage: Callable[[dict[str, Any]], str], message: str
) -> None:
    write_model_file(tmp_path, model)
    path = tmp_path / "model.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ModelError) as caught:
        read_model_file(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_weights_that_differ_from_their_record_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_best.npz"
    record = write_hashed_arrays(path, {"w": np.arange(3.0)})
    assert record.size == path.stat().st_size
    assert weights_sha256(tmp_path) == record.sha256
    np.testing.assert_array_equal(read_weights(path, 3, record)["w"], np.arange(3.0))
    write_hashed_arrays(path, {"w": np.arange(3.0)[::-1]})
    with pytest.raises(ModelError, match="is damaged: its SHA-256 is"):
        read_weights(path, 3, record)
    write_hashed_arrays(path, {"w": np.arange(4.0)})
    with pytest.raises(ModelError, match="is damaged: it has 288 bytes"):
        read_weights(path, 3, record)
