"""Scores of weights: pruning removes the weights with the lowest scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.random import generator

Arrays = Mapping[str, NDArray[Any]]
Scores = dict[str, NDArray[np.float64]]
"""Full name of a weight -> score of each element, with the shape of the weight."""


def magnitude_scores(weights: Arrays) -> Scores:
    """Return |w| (Han et al. 2015, section 3)."""
    return {name: np.abs(w, dtype=np.float64) for name, w in weights.items()}


def gradient_scores(weights: Arrays, gradients: Arrays) -> Scores:
    """Return |w · g| with g = dL/dw.

    Removing w changes the loss by L(0) - L(w) = -w·g + O(w²), so the score is the first-order
    estimate of the change (Molchanov et al. 2017, eq. 7). Before the training, these are the scores
    of SNIP (Lee et al. 2019, eq. 6) without normalization, which does not change their order.
    """
    return {
        name: np.abs(np.multiply(w, gradients[name], dtype=np.float64))
        for name, w in weights.items()
    }


def random_scores(names_and_shapes: Iterable[tuple[str, tuple[int, ...]]], seed: int) -> Scores:
    """Return uniform random scores in [0, 1).

    The score of a weight depends only on the seed, the name and the shape, so the weights that are
    pruned at a sparsity are also pruned at every higher sparsity.
    """
    scores = {}
    for name, shape in names_and_shapes:
        layer = name.removesuffix(".weight")
        scores[name] = generator(seed, f"pruning/{layer}").random(shape)
    return scores
