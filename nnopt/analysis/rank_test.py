"""The Mann-Whitney test with ties: exact p values, or permutations for many runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.random import generator

MAX_OPERATIONS = 3e8  # additions up to which the exact distribution is computed, about 0.5 s
PERMUTATIONS = 50_000
CHUNK = 2_000_000  # number of ranks that are permuted at once


def mann_whitney_p(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the two-sided p value of the Mann-Whitney test (Mann and Whitney 1947).

    W is the sum of the ranks of x among all N times, where tied times share their mean rank. Under
    the null hypothesis, every choice of the ranks of x has the same probability. p is the fraction
    of choices whose W is at least as far from its mean as the observed W.

    The fraction is exact unless its computation is expensive, as for hundreds of different times.
    Then it is estimated from random permutations, which are always the same ones. The observed
    choice counts as one of them, so that the test is not anti-conservative (Phipson and Smyth 2010,
    "Permutation p-values should never be zero").
    """
    x, y = sorted((x, y), key=len)  # p is the same for both groups; the smaller one is cheaper
    ranks = _doubled_ranks([*x, *y])
    mean = len(x) * (len(ranks) + 1)  # of the doubled rank sum
    distance = abs(int(ranks[: len(x)].sum()) - mean)
    blocks = _blocks(ranks)
    if blocks.operations(len(x)) > MAX_OPERATIONS:
        far = np.abs(_permuted_sums(ranks, len(x)) - mean) >= distance
        return (1 + int(far.sum())) / (1 + PERMUTATIONS)
    sums, probability = _distribution(blocks, len(x))
    return min(1.0, float(probability[np.abs(sums - mean) >= distance].sum()))


def _doubled_ranks(times: Sequence[float]) -> NDArray[np.int64]:
    """Return twice the mean rank of each time, a whole number, shape (N,)."""
    x = np.asarray(times)
    below, not_above = (np.searchsorted(np.sort(x), x, side=side) for side in ("left", "right"))
    return np.asarray(below + not_above + 1, np.int64)


@dataclass(frozen=True)
class _Blocks:
    """The blocks of tied ranks, with their sizes. The largest block is the last one.

    A rank is lowest + divisor · step, with a whole-numbered step for each block.
    """

    lowest: int
    divisor: int
    steps: tuple[int, ...]
    sizes: tuple[int, ...]

    def shape(self, chosen: int) -> tuple[int, int]:
        """Return the shape of the table of ``_distribution``.

        Its indices are a number of ranks outside of the last block, and their sum of steps.
        """
        rows = min(chosen, sum(self.sizes[:-1]))
        steps = sorted(np.repeat(self.steps[:-1], self.sizes[:-1]).tolist(), reverse=True)
        return rows + 1, sum(steps[:rows]) + 1

    def operations(self, chosen: int) -> float:
        """Return the number of additions of ``_distribution``."""
        rows, sums = self.shape(chosen)
        return sum(min(size, rows - 1) + 1.0 for size in self.sizes[:-1]) * rows * sums


def _blocks(ranks: NDArray[np.int64]) -> _Blocks:
    different, sizes = np.unique(ranks, return_counts=True)
    lowest = int(different[0])
    divisor = int(np.gcd.reduce(different - lowest)) or 1
    order = np.argsort(sizes, kind="stable")
    steps = (different - lowest) // divisor
    return _Blocks(lowest, divisor, tuple(steps[order].tolist()), tuple(sizes[order].tolist()))


def _distribution(blocks: _Blocks, chosen: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return sums of ``chosen`` ranks without replacement, and their probabilities.

    table[k, s] is the probability that the blocks so far contain k chosen ranks with the sum of
    steps s. Given k, the number of chosen ranks in the next block has a hypergeometric
    distribution. All ranks that are not chosen from the other blocks are chosen from the last one.
    """
    rows, sums = blocks.shape(chosen)
    table, rest = np.zeros((rows, sums)), sum(blocks.sizes)
    table[0, 0] = 1
    for step, size in zip(blocks.steps[:-1], blocks.sizes[:-1], strict=True):
        following = np.zeros_like(table)
        for count in range(min(size, rows - 1) + 1):
            shift = count * step
            if shift >= sums:
                break
            before = range(rows - count)
            share = np.array([_share(rest, chosen - k, size, count) for k in before])
            following[count:, shift:] += table[: rows - count, : sums - shift] * share[:, None]
        table, rest = following, rest - size
    steps = np.arange(sums) + blocks.steps[-1] * (chosen - np.arange(rows))[:, None]
    return chosen * blocks.lowest + blocks.divisor * steps, table


def _share(rest: int, chosen: int, size: int, count: int) -> float:
    """Return the probability that ``count`` of ``chosen`` ranks are in a block of ``size`` ranks.

    The ranks are chosen among ``rest`` ranks, which include the block.
    """
    if not max(0, chosen - (rest - size)) <= count <= min(size, chosen):
        return 0.0
    if size == 1:
        return (chosen if count else rest - chosen) / rest
    choices = math.comb(size, count) * math.comb(rest - size, chosen - count)
    return choices / math.comb(rest, chosen)


def _permuted_sums(ranks: NDArray[np.int64], chosen: int) -> NDArray[np.int64]:
    """Return the sum of ``chosen`` ranks for each of ``PERMUTATIONS`` random choices."""
    draw = generator(0, "permutation", len(ranks), chosen)
    rows = max(CHUNK // len(ranks), 1)
    parts = []
    for start in range(0, PERMUTATIONS, rows):
        keys = draw.random((min(rows, PERMUTATIONS - start), len(ranks)), np.float32)
        order = np.argpartition(keys, chosen - 1, axis=1)[:, :chosen]
        parts.append(ranks[order].sum(axis=1))
    return np.concatenate(parts)
