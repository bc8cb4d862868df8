"""Stratified splits, subsets and chosen classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt.data.load import split
from nnopt.data.source import Decoded
from nnopt.data.split import (
    chosen_classes,
    hold_out,
    renumber,
    stratified,
    subset,
    training_samples,
)
from nnopt.errors import ConfigError, DataError
from nnopt.schema import ImageConfig, Validation


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    share=st.floats(0, 1),
    seed=st.integers(0, 3),
)
def test_stratified_choice_keeps_class_proportions(
    labels: list[int], share: float, seed: int
) -> None:
    every = np.array(labels)
    rows = np.flatnonzero(np.arange(len(every)) % 3 != 1)
    if not len(rows):
        return
    count = round(share * len(rows))
    chosen = stratified(every, rows, count, np.random.default_rng(seed))
    assert chosen.dtype == np.int64
    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0)
    assert np.isin(chosen, rows).all()
    for label in np.unique(every[rows]):
        exact = np.sum(every[rows] == label) * count / len(rows)
        assert abs(np.sum(every[chosen] == label) - exact) < 1


def test_stratified_choice_depends_on_the_random_generator() -> None:
    labels, rows = np.zeros(1000, dtype=np.int64), np.arange(1000)
    first, second = (stratified(labels, rows, 500, np.random.default_rng(s)) for s in (0, 1))
    assert 200 < len(np.intersect1d(first, second)) < 300
    assert 450 < first.mean() < 550


def test_hold_out_split_contains_each_row_once() -> None:
    labels, rows = np.arange(100) % 4, np.arange(10, 90)
    rest, held = hold_out(labels, rows, 0.25, "key", np.random.default_rng(0))
    assert len(held) == 20
    assert sorted([*rest, *held]) == list(rows)
    assert np.bincount(labels[held]).tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize(("count", "fraction"), [(3, 0.1), (3, 0.9), (1, 0.5), (0, 0.5)])
def test_hold_out_split_with_empty_part_is_refused(count: int, fraction: float) -> None:
    rows = np.arange(count)
    with pytest.raises(DataError, match=rf"the\.key={fraction} of {count} samples"):
        hold_out(np.zeros(count, int), rows, fraction, "the.key", np.random.default_rng(0))


def test_subset_is_stratified_and_limited() -> None:
    labels, rows = np.repeat([0, 1], [60, 20]), np.arange(80)
    chosen = subset(labels, rows, 20, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [15, 5]
    assert subset(labels, rows, None, np.random.default_rng(0)) is rows
    with pytest.raises(ConfigError, match=r"dataset\.subset=81.*80 samples"):
        subset(labels, rows, 81, np.random.default_rng(0))


def test_chosen_class_is_searched_by_name_and_then_by_number() -> None:
    names = ("airplane", "bird", "cat", "dog")
    assert chosen_classes(names, None) == [0, 1, 2, 3]
    assert chosen_classes(names, ["dog", 0]) == [3, 0]
    assert chosen_classes(("1", "5", "9"), [5, 1]) == [1, 0]
    labels = np.array([0, 1, 2, 3, 3])
    assert renumber(labels, [3, 0], 4).tolist() == [1, -1, -1, 0, 0]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (["dgo"], "no class 'dgo'; did you mean 'dog'"),
        ([4], "no class 4"),
        ([-1], "no class -1"),
        ([], "at least one"),
        (["dog", 3], "named twice"),
    ],
)
def test_wrong_entry_of_chosen_classes_is_refused(expected: list[int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chosen_classes(("airplane", "bird", "cat", "dog"), expected)


def test_error_about_chosen_classes_is_short_for_many_classes() -> None:
    names = tuple(f"class {number}" for number in range(1000))
    with pytest.raises(ConfigError) as caught:
        chosen_classes(names, ["xyz"])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("source", ["train", "test", "own", "none"])
@pytest.mark.parametrize("count", [None, 7])
@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_number_of_training_samples_equals_size_of_training_part_after_split(
    source: Literal["train", "test", "own", "none"], count: int | None, fraction: float
) -> None:
    sizes = {"train": 30, "valid": 12, "test": 20}
    parts = {
        name: (np.zeros((size, 3, 2, 2), np.uint8), np.arange(size) % 2)
        for name, size in sizes.items()
    }
    decoded = Decoded(("cat", "dog"), parts, {}, (0.0,) * 3, (1.0,) * 3)
    config = ImageConfig("cinic10", count, "unit", Validation(source, fraction), None)
    assert training_samples(config, sizes) == len(split(decoded, config, seed=0).train)
    assert training_samples(replace(config, classes=("cat",)), sizes) == count
