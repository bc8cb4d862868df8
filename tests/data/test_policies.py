"""The distribution of an augmentation policy's operations. Other augmentations do not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnopt.data.policies import LEVELS, OPERATIONS, SIGNED, WITHOUT_LEVEL, Policy, draw_policy
from nnopt.schema import AugmentationConfig

COUNT = 20_000


def drawn(
    policy: str = "rand_augment",
    operations: int = 2,
    magnitude: int = 9,
    seed: int = 0,
    epoch: int = 1,
    **others: float,
) -> Policy:
    kinds = {"crop": 0, "flip": False, "cutout": 0, "mixup": 0.0, "cutmix": 0.0} | others
    chosen = AugmentationConfig(
        policy=policy,  # type: ignore[arg-type]
        num_ops=operations,
        magnitude=magnitude,
        **kinds,  # type: ignore[arg-type]
    )
    found = draw_policy(seed, epoch, COUNT, chosen)
    assert found is not None
    return found


def assert_likely(counts: np.ndarray, expected: np.ndarray) -> None:
    """Check that Pearson's statistic is within five standard deviations of its expected value."""
    freedom = counts.size - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_drawn_operations_are_uniform_and_independent() -> None:
    first, second = drawn().operation
    pairs = np.bincount(first * len(OPERATIONS) + second, minlength=len(OPERATIONS) ** 2)
    assert_likely(pairs, np.full(pairs.shape, COUNT / len(OPERATIONS) ** 2))


def test_rand_augment_has_one_level_and_both_signs() -> None:
    policy = drawn(operations=1, magnitude=7)
    for number, name in enumerate(OPERATIONS):
        levels = policy.level[policy.operation == number]
        counts = np.array([(levels == -7).sum(), (levels == 7).sum(), (levels == 0).sum()])
        if name in SIGNED:
            assert_likely(counts[:2], np.full(2, len(levels) / 2))
            assert counts[2] == 0
        else:
            assert counts.tolist() == ([0, 0, len(levels)] if name in WITHOUT_LEVEL else
                                       [0, len(levels), 0])  # fmt: skip


def test_trivial_augment_has_one_operation_and_all_levels() -> None:
    policy = drawn("trivial_augment", operations=2)
    assert policy.operation.shape == policy.level.shape == (1, COUNT)
    for number, name in enumerate(OPERATIONS):
        levels = policy.level[policy.operation == number]
        if name in WITHOUT_LEVEL:
            assert not levels.any()
            continue
        strengths = np.bincount(abs(levels), minlength=LEVELS)
        assert_likely(strengths, np.full(LEVELS, len(levels) / LEVELS))
        negative, positive = (levels < 0).sum(), (levels > 0).sum()
        if name in SIGNED:
            assert_likely(np.array([negative, positive]), np.full(2, (negative + positive) / 2))
        else:
            assert negative == 0


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_drawn_policy_depends_on_seed_and_epoch_but_not_on_other_augmentations(policy: str) -> None:
    expected = drawn(policy)
    again = drawn(policy, crop=4, flip=True, cutout=8, mixup=0.2, cutmix=1.0)
    assert (again.operation == expected.operation).all()
    assert (again.level == expected.level).all()
    for other in (drawn(policy, seed=1), drawn(policy, epoch=2)):
        assert np.mean(other.operation == expected.operation) < 0.1  # 1/14 are equal by chance


def test_drawn_operations_do_not_depend_on_magnitude_or_number_of_operations() -> None:
    expected = drawn()
    stronger, more = drawn(magnitude=20), drawn(operations=3)
    assert (stronger.operation == expected.operation).all()
    assert (stronger.level * 9 == expected.level * 20).all()
    assert (more.operation[:2] == expected.operation).all()
    assert (more.level[:2] == expected.level).all()
    assert np.mean(more.operation[2] == more.operation[0]) < 0.1
