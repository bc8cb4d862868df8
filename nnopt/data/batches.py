"""Which samples make a batch, and how its images are moved: index arithmetic, the same for both
backends, so that each sees the same batches, crops and flips.

Every draw is a function of (seed, epoch) alone: a resumed run repeats no draw and skips none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.random import generator

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Crops:
    """Where each training image of an epoch is cut out of its padded self, and whether mirrored.

    top, left: (N,) int64, from 0 to twice the padding; flip: (N,) bool, left and right exchanged.
    Entry i belongs to the i-th sample in the epoch's order.
    """

    top: Indices
    left: Indices
    flip: NDArray[np.bool_]


def epoch_order(seed: int, epoch: int, count: int) -> Indices:
    """The order (N,) in which an epoch sees ``count`` training samples: a permutation of 0..N-1."""
    return generator(seed, "shuffle", epoch).permutation(count)


def draw_crops(seed: int, epoch: int, count: int, crop: int, flip: bool) -> Crops | None:
    """Draw an epoch's crops and flips; None if both are off.

    crop: padding in pixels on each side, 0 is off; flip: mirror half of the images. Switching one
    on or off does not change the other's draws.
    """
    if not crop and not flip:
        return None
    random = generator(seed, "augment", epoch)
    mirrored = random.random(count) < 0.5
    top, left = random.integers(0, 2 * crop, (2, count), endpoint=True)
    return Crops(top, left, mirrored & flip)


def crop_indices(
    top: Indices, left: Indices, flip: NDArray[np.bool_], height: int, width: int
) -> tuple[Indices, Indices]:
    """Rows (n, H, 1) and columns (n, 1, W) of padded images that make up the cut-out ones.

    With ``padded`` (n, C, H + 2 crop, W + 2 crop), zeros around raw pixel values,

        i, c = np.arange(n)[:, None, None, None], np.arange(C)[:, None, None]
        cut = padded[i, c, rows[:, None], columns[:, None]]     # (n, C, H, W)

    top, left, flip: (n,), entries of ``Crops``; height, width: H, W of an image without padding.
    """
    across = np.arange(width)
    columns = np.where(flip[:, None], across[::-1], across) + left[:, None]
    rows = top[:, None] + np.arange(height)
    return rows[:, :, None], columns[:, None, :]
