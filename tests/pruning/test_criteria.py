"""Scores of weights."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from nnopt.pruning.criteria import gradient_scores, magnitude_scores, random_scores

RNG = np.random.default_rng(5)


def test_magnitude_scores_are_absolute_values_in_float64() -> None:
    weight = np.array([[-2.0, 0.5], [0.0, -1e-45]], np.float32)
    scores = magnitude_scores({"dense1.weight": weight})["dense1.weight"]
    assert scores.dtype == np.float64
    assert_array_equal(scores, [[2.0, 0.5], [0.0, float(np.float32(1e-45))]])


def test_gradient_scores_predict_change_of_loss_without_a_weight() -> None:
    """For a logistic loss and small weights, removing a weight changes the loss by about -w·g."""
    inputs, labels = RNG.standard_normal((200, 6)), RNG.integers(0, 2, 200) * 2.0 - 1

    def loss(w: np.ndarray) -> float:
        return float(np.mean(np.log1p(np.exp(-labels * (inputs @ w)))))

    weight = 1e-4 * RNG.standard_normal(6)
    probability = 1 / (1 + np.exp(labels * (inputs @ weight)))
    gradient = -(labels * probability) @ inputs / len(labels)
    scores = gradient_scores({"a.weight": weight}, {"a.weight": gradient, "a.bias": np.ones(1)})
    removed = [loss(np.where(np.arange(6) == k, 0.0, weight)) for k in range(6)]
    assert list(scores) == ["a.weight"]
    assert_allclose(scores["a.weight"], np.abs(np.array(removed) - loss(weight)), rtol=2e-3)


def test_gradient_scores_of_float32_are_products_in_float64() -> None:
    weight, gradient = np.float32([1e-30]), np.float32([1e-30])
    scores = gradient_scores({"a.weight": weight}, {"a.weight": gradient})
    assert_allclose(scores["a.weight"], [1e-60], rtol=1e-6)


def test_random_scores_depend_on_seed_name_and_shape_only() -> None:
    first = random_scores([("a.weight", (3, 4)), ("b.weight", (3, 4))], seed=1)
    second = random_scores([("b.weight", (3, 4))], seed=1)
    assert_array_equal(first["b.weight"], second["b.weight"])
    assert not np.array_equal(first["a.weight"], first["b.weight"])
    assert not np.array_equal(
        first["b.weight"], random_scores([("b.weight", (3, 4))], 2)["b.weight"]
    )


def test_random_scores_are_uniform() -> None:
    scores = random_scores([("a.weight", (100, 1000))], seed=3)["a.weight"]
    counts, _ = np.histogram(scores, 10, (0, 1))
    expected = scores.size / 10
    chi_squared = float(np.sum((counts - expected) ** 2) / expected)
    assert chi_squared < 27.9, "above the 99.9 % quantile with 9 degrees of freedom"
