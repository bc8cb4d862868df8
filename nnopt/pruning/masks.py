"""Masks: boolean arrays that are True where a weight is kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnopt.pruning.criteria import Scores
from nnopt.random import generator

Masks = dict[str, NDArray[np.bool_]]
"""Full name of a weight -> mask with the shape of the weight."""


def kept_count(size: int, sparsity: float) -> int:
    """Return round((1 - sparsity) · size), the number of weights that are kept."""
    return round((1 - sparsity) * size)


def global_masks(scores: Scores, masks: Mapping[str, NDArray[np.bool_]], sparsity: float) -> Masks:
    """Keep the weights with the highest scores among all layers.

    Args:
        scores: The score of every prunable weight.
        masks: The current masks. A pruned weight stays pruned, whatever its score.
        sparsity: The fraction of the weights in ``scores`` that are pruned afterwards, in [0, 1).

    Returns:
        Masks that keep exactly ``kept_count(N, sparsity)`` of N weights, or as many as ``masks``
        keeps if these are fewer. Among equal scores, the first weights are kept, in the order of
        the layers and, within a weight array, in C order.
    """
    flat = np.concatenate([score.ravel() for score in scores.values()])
    kept = np.concatenate([masks[name].ravel() for name in scores])
    chosen = _keep_highest(flat, kept, kept_count(flat.size, sparsity))
    parts = np.split(chosen, np.cumsum([score.size for score in scores.values()])[:-1])
    pairs = zip(scores.items(), parts, strict=True)
    return {name: part.reshape(score.shape) for (name, score), part in pairs}


def layer_masks(scores: Scores, masks: Mapping[str, NDArray[np.bool_]], sparsity: float) -> Masks:
    """Keep the weights with the highest scores in each layer; the layers have equal sparsity.

    The arguments, the exact counts and the choice among equal scores are those of ``global_masks``,
    applied to each weight array separately.
    """
    return {
        name: global_masks({name: score}, masks, sparsity)[name] for name, score in scores.items()
    }


def shuffled_masks(masks: Mapping[str, NDArray[np.bool_]], seed: int) -> Masks:
    """Return random masks that keep as many weights of each array as ``masks``."""
    shuffled = {}
    for name, mask in masks.items():
        layer = name.removesuffix(".weight")
        random = generator(seed, f"pruning/shuffle/{layer}")
        shuffled[name] = random.permutation(mask.ravel()).reshape(mask.shape)
    return shuffled


def sparsity_of(masks: Mapping[str, NDArray[np.bool_]]) -> float:
    """Return the fraction of weights that are pruned; 0 without masks."""
    size = sum(mask.size for mask in masks.values())
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    return 1 - kept / size if size else 0.0


def empty_layers(masks: Mapping[str, NDArray[np.bool_]]) -> list[str]:
    """Return the names of the layers without a weight that is kept."""
    return [name.removesuffix(".weight") for name, mask in masks.items() if not mask.any()]


def _keep_highest(
    scores: NDArray[np.float64], kept: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """Return a mask (N,) with the ``count`` highest of ``scores`` (N,) among the kept elements."""
    order = np.argsort(-scores, kind="stable")
    order = order[kept[order]][:count]
    chosen = np.zeros(scores.shape, bool)
    chosen[order] = True
    return chosen
