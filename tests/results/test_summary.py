"""``summary.json``: the checksum detects changes, and the schema detects wrong types."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from nnopt.errors import DataError
from nnopt.results.summary import CHECKSUM, RUN_KEYS, read_summary, write_summary

VALUES: dict[str, Any] = {
    "status": "done",
    "error": None,
    "test_loss": 0.1 + 0.2,
    "test_accuracy": 1e-300,
    "epochs": 3,
    "stopped_early": True,
    "seed": 1,
    "overrides": ["a=ä", "name=\udcff"],
    "data": {"name": "x", "sources": {"f": "ab"}, "samples": {"train": 1}},
    "config": {"optimizer": {"lr": 1.0}},
}


def test_written_summary_is_read_back(tmp_path: Path) -> None:
    write_summary(tmp_path, VALUES)
    found = dict(read_summary(tmp_path).values)
    assert len(found.pop(CHECKSUM)) == 64
    assert found == VALUES
    write_summary(tmp_path, read_summary(tmp_path).values)  # the old checksum is replaced
    assert read_summary(tmp_path).values["seed"] == 1


def test_flipped_bit_of_a_summary_never_changes_a_value(tmp_path: Path) -> None:
    write_summary(tmp_path, VALUES)
    path = tmp_path / "summary.json"
    whole, draw = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            found = dict(read_summary(tmp_path).values)
        except DataError:
            refused += 1
            continue
        # A flip in white space, or in the name of the key ``sha256``, changes no other value.
        assert {key: found[key] for key in VALUES} == VALUES
    assert refused > 300


def test_reformatted_summary_is_accepted(tmp_path: Path) -> None:
    write_summary(tmp_path, VALUES)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_summary(tmp_path).values["test_loss"] == VALUES["test_loss"]


def test_edited_summary_is_refused_until_its_checksum_is_deleted(tmp_path: Path) -> None:
    write_summary(tmp_path, VALUES)
    path = tmp_path / "summary.json"
    edited = json.loads(path.read_text()) | {"test_accuracy": 0.99}
    path.write_text(json.dumps(edited))
    with pytest.raises(DataError, match='the changed file: delete its line "sha256"'):
        read_summary(tmp_path)
    del edited["sha256"]
    path.write_text(json.dumps(edited))
    assert read_summary(tmp_path).values["test_accuracy"] == 0.99


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


WRONG: dict[str, tuple[Any, str]] = {
    "status": ("finished", 'status is "finished", expected one of running, done'),
    "error": (["x"], "error is"),
    "seed": (True, "expected a whole number"),
    "overrides": ([1], "expected a list of texts"),
    "data": ("x", 'data is "x", expected a map of name, sources and samples'),
    "config": ([], "config is [], expected a map"),
    "test_loss": ("0.1", "expected a number"),
    "test_accuracy": ([0.5], "expected a number"),
    "found_lr": ("0.1", "expected a number"),  # a key of version 0.1.0
    "finished": ("yesterday", "expected a time"),
    "started": ("2026-11-20T10:00:00", "expected a time"),
    "versions": ({"numpy": 2}, "expected a map of texts"),
    "machine": (None, "expected a map"),
    "git": ("abc", "expected a map"),
    "files": ({"metrics.csv": 1}, "expected a map of texts"),
    "name": ("x" * 200_000, "more than 100,000 characters"),
    "id": (2**70, "above 2^64"),
    "threads": (nested(40), "more than 50 levels"),
    "more": (list(range(200_000)), "more than 100,000 values"),
}


@pytest.mark.parametrize("key", WRONG)
def test_summary_with_value_of_wrong_type_is_refused(tmp_path: Path, key: str) -> None:
    value, reason = WRONG[key]
    write_summary(tmp_path, VALUES | {key: value})
    with pytest.raises(DataError) as caught:
        read_summary(tmp_path)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("status", ["done", "failed", "interrupted"])
@pytest.mark.parametrize("key", RUN_KEYS)
def test_summary_with_missing_key_is_refused(tmp_path: Path, key: str, status: str) -> None:
    values = VALUES | {"status": status}
    write_summary(tmp_path, {name: value for name, value in values.items() if name != key})
    with pytest.raises(DataError, match=f"is damaged: it has no '{key}'"):
        read_summary(tmp_path)


DATA: dict[str, Any] = {
    "sources that are numbers": {"name": "x", "sources": {"f": 1}},
    "sources in a list": {"name": "x", "sources": ["a"]},
    "a name that is a number": {"name": 1, "sources": {}},
    "samples that are texts": {"name": "x", "sources": {}, "samples": {"train": "1"}},
    "a list": [],
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_summary_with_wrong_value_of_data_is_refused(tmp_path: Path, data: Any) -> None:
    write_summary(tmp_path, VALUES | {"data": data})
    with pytest.raises(DataError, match="data is "):
        read_summary(tmp_path)


def test_summary_with_number_changed_by_one_ulp_is_refused(tmp_path: Path) -> None:
    write_summary(tmp_path, VALUES)
    path = tmp_path / "summary.json"
    text = path.read_text()
    assert "0.30000000000000004" in text
    path.write_text(text.replace("0.30000000000000004", "0.3000000000000001"))
    with pytest.raises(DataError, match="checksum"):
        read_summary(tmp_path)
