"""Policies of augmentation: which operations change each training image, and how strongly.

RandAugment (Cubuk et al. 2020, section 3) and TrivialAugment (Müller and Hutter 2021, section 3),
this with its wide space, as torchvision has them: the same fourteen operations, each as likely, of
31 strengths. What an operation does is the backend's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.random import generator
from nnopt.schema import AugmentationConfig

SIGNED = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
)
"""They go either way, each with probability ½."""

OPERATIONS = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")
"""By torchvision's names, in its order."""

WITHOUT_LEVEL = ("Identity", "AutoContrast", "Equalize")

LEVELS = 31
"""Strengths of an operation, evenly spaced from the weakest, 0, to the strongest, 30."""


@dataclass(frozen=True)
class Policy:
    """What is done to each training image of an epoch, one operation after another.

    operation: (operations, N) int64, an index into ``OPERATIONS``; level: (operations, N) int64,
    -30..30, the sign being the direction, 0 where the operation has no strengths. Column i belongs
    to the i-th sample in the epoch's order.
    """

    operation: NDArray[np.int64]
    level: NDArray[np.int64]


def draw_policy(seed: int, epoch: int, count: int, chosen: AugmentationConfig) -> Policy | None:
    """Draw an epoch's operations and levels for ``count`` images; None if the policy is none.

    Another magnitude or number of operations changes no operation that is drawn anyway.
    """
    if chosen.policy == "none":
        return None
    is_signed, has_level = (
        np.array([name in names for name in OPERATIONS])
        for names in (SIGNED, set(OPERATIONS) - set(WITHOUT_LEVEL))
    )
    operations, levels = [], []
    for number in range(chosen.num_ops if chosen.policy == "rand_augment" else 1):
        random = generator(seed, "policy", epoch, number)
        operation = random.integers(0, len(OPERATIONS), count)
        sign = np.where(is_signed[operation] & (random.random(count) < 0.5), -1, 1)
        level = random.integers(0, LEVELS, count)
        if chosen.policy == "rand_augment":
            level[:] = chosen.magnitude
        operations.append(operation)
        levels.append(sign * level * has_level[operation])
    return Policy(np.stack(operations), np.stack(levels))
