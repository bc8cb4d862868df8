"""Augmentation policies: random operations on each training image.

The policies are RandAugment (Cubuk et al. 2020, section 3) and TrivialAugment with "wide" ranges
(Müller and Hutter 2021, section 3). As in torchvision, all fourteen operations are equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.random import generator
from nnopt.schema import AugmentationConfig

# The level of these operations has a random sign. Both signs have the probability ½.
SIGNED = (
    *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
)
WITHOUT_LEVEL = ("Identity", "AutoContrast", "Equalize")
# All operations, with the names and the order of torchvision.
OPERATIONS = ("Identity", *SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")

LEVELS = 31  # number of levels of an operation: 0 (weakest) to 30 (strongest), evenly spaced


@dataclass(frozen=True)
class Policy:
    """The operations on each training image of an epoch, applied in order.

    Column i belongs to the i-th sample in the order of the epoch.
    """

    operation: NDArray[np.int64]  # (operations, N), an index into ``OPERATIONS``
    level: NDArray[np.int64]  # (operations, N) in -30..30, 0 for operations without a level


def draw_policy(seed: int, epoch: int, count: int, chosen: AugmentationConfig) -> Policy | None:
    """Draw an epoch's operations and levels for ``count`` images; None if no policy is chosen.

    The k-th operation of an image depends neither on the magnitude nor on the number of operations.
    """
    if chosen.policy == "none":
        return None
    is_signed = np.array([name in SIGNED for name in OPERATIONS])
    has_level = np.array([name not in WITHOUT_LEVEL for name in OPERATIONS])
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
