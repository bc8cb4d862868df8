"""Hashes of rows, and repeated rows."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.data.duplicates import groups_among, repeated_rows, row_hashes


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("width", [1, 3, 8, 9])
def test_row_hashes_are_equal_only_for_equal_rows(dtype: str, width: int) -> None:
    rows = np.unique(np.random.default_rng(0).integers(0, 7, (3000, width)), axis=0).astype(dtype)
    assert len(np.unique(row_hashes(rows))) == len(rows)
    assert np.array_equal(row_hashes(rows[::-1])[::-1], row_hashes(rows))


def test_row_hashes_depend_on_the_order_of_the_columns() -> None:
    assert len(set(row_hashes(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])))) == 3


def test_repeated_rows_are_the_same_in_every_process() -> None:
    program = (
        "import numpy as np; from nnopt.data.duplicates import repeated_rows; "
        "rows = np.random.default_rng(0).integers(0, 9, (40, 1)); "
        "print(repeated_rows({'train': (rows, None), 'test': (rows[:9], None)}))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(outputs) == 1


def test_row_hashes_of_negative_zero_and_zero_are_equal() -> None:
    hashes = row_hashes(np.array([[0.0], [-0.0]]))
    assert hashes[0] == hashes[1]


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_repeated_rows_agree_with_a_comparison_of_all_values(
    train: list[int], test: list[int]
) -> None:
    parts = {
        name: (np.array(values, dtype=np.float64)[:, None], None)
        for name, values in (("train", train), ("test", test))
    }
    found = repeated_rows(parts)
    rows = {name: np.arange(len(inputs))[::2] for name, (inputs, _) in parts.items()}
    known = groups_among(found["train"], rows["train"])
    count = np.isin(groups_among(found["test"], rows["test"]), known).sum()
    assert count == sum(value in train[::2] for value in test[::2])
