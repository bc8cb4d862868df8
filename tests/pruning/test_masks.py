"""The masks: exact counts, the choice among equal scores, and nested sparsities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nnopt.pruning.masks import (
    Masks,
    empty_layers,
    global_masks,
    kept_count,
    layer_masks,
    shuffled_masks,
    sparsity_of,
)

SHAPES = {"dense1.weight": (4, 3), "conv2d1.weight": (2, 3, 3, 3), "dense2.weight": (5, 4)}


def full_masks() -> Masks:
    return {name: np.ones(shape, bool) for name, shape in SHAPES.items()}


def random_scores(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.random(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("size", "sparsity", "count"),
    [(10, 0.0, 10), (10, 0.8, 2), (266_200, 0.95, 13_310), (7, 0.5, 4), (5, 0.5, 2), (3, 0.999, 0)],
)
def test_kept_count_is_the_rounded_fraction(size: int, sparsity: float, count: int) -> None:
    """Halves are rounded to even numbers: 3.5 to 4 and 2.5 to 2."""
    assert kept_count(size, sparsity) == count


@given(sparsity=st.floats(0, 0.999), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_global_masks_keep_exactly_the_highest_scores(sparsity: float, seed: int) -> None:
    scores = random_scores(seed)
    masks = global_masks(scores, full_masks(), sparsity)
    every = np.concatenate([score.ravel() for score in scores.values()])
    count = kept_count(every.size, sparsity)
    kept = np.concatenate([scores[name][mask] for name, mask in masks.items()])
    assert_array_equal(np.sort(kept), np.sort(every)[every.size - count :])


def test_global_masks_equal_scores_keep_the_first_weights() -> None:
    scores = {"a.weight": np.array([[1.0, 2.0], [1.0, 1.0]]), "b.weight": np.array([[1.0, 3.0]])}
    masks = {name: np.ones(score.shape, bool) for name, score in scores.items()}
    found = global_masks(scores, masks, 1 / 3)  # keeps four of six weights
    assert_array_equal(found["a.weight"], [[True, True], [True, False]])
    assert_array_equal(found["b.weight"], [[False, True]])


@pytest.mark.parametrize("choose", [global_masks, layer_masks])
def test_pruned_weight_with_the_highest_score_stays_pruned(choose: type) -> None:
    before = choose(random_scores(0), full_masks(), 0.5)
    scores = {name: np.where(mask, 0.0, 9.0) for name, mask in before.items()}
    after = choose(scores, before, 0.7)
    for name, mask in after.items():
        assert not np.any(mask & ~before[name])


def test_layer_masks_keep_the_same_fraction_of_each_layer() -> None:
    masks = layer_masks(random_scores(), full_masks(), 0.7)
    for name, mask in masks.items():
        assert np.count_nonzero(mask) == kept_count(mask.size, 0.7), name


def test_shuffled_masks_keep_as_many_weights_at_other_places() -> None:
    masks = layer_masks(random_scores(), full_masks(), 0.5)
    first, again, other = (shuffled_masks(masks, seed) for seed in (0, 0, 1))
    for name, mask in masks.items():
        assert np.count_nonzero(first[name]) == np.count_nonzero(mask)
        assert_array_equal(first[name], again[name])
    assert any(np.any(first[name] != other[name]) for name in masks)
    assert any(np.any(first[name] != masks[name]) for name in masks)


def test_sparsity_and_empty_layers_of_masks() -> None:
    masks = {"a.weight": np.zeros((2, 2), bool), "b.weight": np.array([[True, False, False, True]])}
    assert sparsity_of(masks) == 0.75
    assert empty_layers(masks) == ["a"]
    assert sparsity_of({}) == 0
