"""Which samples make a batch, how its images are moved and hidden, and how samples are mixed: index
arithmetic, the same for both backends, so that each sees the same batches to the bit.

Every draw is a function of (seed, epoch) alone: a resumed run repeats no draw and skips none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset import Dataset
from nnopt.data.policies import Policy, draw_policy
from nnopt.random import generator
from nnopt.schema import Config

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


@dataclass(frozen=True)
class Squares:
    """The square of each training image that is hidden (cutout; DeVries and Taylor 2017).

    row, column: (N,) int64, the centre, anywhere in the image; side: in pixels.
    """

    row: Indices
    column: Indices
    side: int


Box = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Mixing:
    """How the samples of each batch are mixed with each other, t being labels as one-hot rows:

        x ← λ x + (1 - λ) x[partner]           mixup (Zhang et al. 2018), or
        x[box] ← x[partner][box]               cutmix (Yun et al. 2019, equation 1), then
        t ← λ t + (1 - λ) t[partner]

    weight λ: (batches,) float64 in 0..1, a multiple of 2⁻²⁴, so that λ and 1 - λ are exact in
    float32 too; of cutmix, the area outside of the box over that of the image. boxes: of each
    batch, one for all its samples; None is mixup. partner: (N,) int64, positions within the batch;
    classes: K, the length of t.
    """

    weight: NDArray[np.float64]
    boxes: tuple[Box | None, ...]
    partner: Indices
    classes: int


@dataclass(frozen=True)
class Augmentation:
    """What is done to the training samples of one epoch, in this order, with normalization after
    the policy; None is nothing. Entry i of each belongs to the i-th sample in the epoch's order."""

    crops: Crops | None = None
    policy: Policy | None = None
    squares: Squares | None = None
    mixing: Mixing | None = None


PLAIN = Augmentation()
"""Samples and labels as they are."""


def draw_augmentation(config: Config, dataset: Dataset, epoch: int, count: int) -> Augmentation:
    """Draw what the configuration asks for, for ``count`` samples in the order of this epoch."""
    seed, chosen = config.seed, config.regularizer.augmentation
    squares = None
    if chosen.cutout:
        height, width = dataset.input_shape[1:]
        squares = draw_squares(seed, epoch, count, chosen.cutout, height, width)
    kinds = []
    sizes = count, config.batch_size
    if chosen.mixup:
        kinds.append(draw_mixup(seed, epoch, *sizes, chosen.mixup, len(dataset.classes)))
    if chosen.cutmix:
        shape = len(dataset.classes), *dataset.input_shape[1:]
        kinds.append(draw_cutmix(seed, epoch, *sizes, chosen.cutmix, *shape))
    if len(kinds) == 2:
        kinds = [draw_either(seed, epoch, *sizes, *kinds)]
    return Augmentation(
        draw_crops(seed, epoch, count, chosen.crop, chosen.flip),
        draw_policy(seed, epoch, count, chosen),
        squares,
        kinds[0] if kinds else None,
    )


def batch_parts(count: int, batch_size: int, accumulation: int) -> list[slice]:
    """The rows of a batch of ``count`` samples that are computed at a time, their gradients added
    up: at most ⌈batch_size / accumulation⌉, in as few parts as will do, whose sizes differ by at
    most one. A smaller last batch has fewer parts."""
    parts = -(-count // -(-batch_size // accumulation))
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def parts_of(batches: Iterable[Any], batch_size: int, accumulation: int) -> Iterator[Any]:
    """The inputs (N, ...) of all ``batch_parts`` of these batches, one after another."""
    for x in batches:
        for rows in batch_parts(len(x), batch_size, accumulation):
            yield x[rows]


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


def crop_indices(top: Any, left: Any, flip: Any, down: Any, across: Any) -> tuple[Any, Any]:
    """Rows (n, H, 1) and columns (n, 1, W) of padded images that make up the cut-out ones.

    With ``padded`` (n, C, H + 2 crop, W + 2 crop), zeros around raw pixel values,

        i, c = np.arange(n)[:, None, None, None], np.arange(C)[:, None, None]
        cut = padded[i, c, rows[:, None], columns[:, None]]     # (n, C, H, W)

    top, left, flip: (n,), entries of ``Crops``; down, across: 0..H-1 and 0..W-1 of an image without
    padding. All are arrays of NumPy's, or all of another library's on one device.
    """
    turned = flip[:, None] * (len(across) - 1 - 2 * across)  # W-1-c in place of c
    columns = left[:, None] + across + turned
    rows = top[:, None] + down
    return rows[:, :, None], columns[:, None, :]


def draw_squares(seed: int, epoch: int, count: int, side: int, height: int, width: int) -> Squares:
    """Draw an epoch's hidden squares: the centre is any pixel of the image, each as likely."""
    random = generator(seed, "cutout", epoch)
    return Squares(random.integers(0, height, count), random.integers(0, width, count), side)


def hidden_pixels(row: Any, column: Any, side: int, down: Any, across: Any) -> Any:
    """True (n, 1, H, W) inside of the squares: side x side pixels, less what sticks out.

    row, column: (n,), entries of ``Squares``; down, across: 0..H-1 and 0..W-1, of the same library
    as these. Of an even side, one pixel more lies above and left of the centre than below and right
    of it.
    """
    below = down - (row - side // 2)[:, None]
    right = across - (column - side // 2)[:, None]
    rows, columns = (below >= 0) & (below < side), (right >= 0) & (right < side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def draw_mixup(
    seed: int, epoch: int, count: int, batch_size: int, alpha: float, classes: int
) -> Mixing:
    """Draw an epoch's partners, a permutation of each batch, and one λ from Beta(α, α) a batch.

    Another α does not change the partners.
    """
    random = generator(seed, "mixup", epoch)
    partner, share = _draw_partners(random, count, batch_size, alpha)
    return Mixing(_in_24_bits(share), (None,) * len(share), partner, classes)


def draw_cutmix(
    seed: int,
    epoch: int,
    count: int,
    batch_size: int,
    alpha: float,
    classes: int,
    height: int,
    width: int,
) -> Mixing:
    """Draw an epoch's partners and boxes, a box a batch (Yun et al. 2019, equation 2): λ from
    Beta(α, α), a box of height H √(1 - λ) and width W √(1 - λ), to the nearest pixel, its centre
    any pixel, each as likely.

    What sticks out of the image is cut off, so λ becomes what the box leaves of the area. Another α
    changes neither partners nor centres.
    """
    random = generator(seed, "cutmix", epoch)
    batches = -(-count // batch_size)
    centres = random.integers(0, (height, width), (batches, 2))
    partner, share = _draw_partners(random, count, batch_size, alpha)
    sides = np.rint(np.sqrt(1 - share)[:, None] * (height, width)).astype(np.int64)
    starts = centres - sides // 2
    (top, left), (bottom, right) = (
        np.clip(edges, 0, (height, width)).T for edges in (starts, starts + sides)
    )
    weight = _in_24_bits(1 - (bottom - top) * (right - left) / (height * width))
    edges = np.stack([top, bottom, left, right], axis=1).tolist()
    return Mixing(weight, tuple((slice(*e[:2]), slice(*e[2:])) for e in edges), partner, classes)


def draw_either(
    seed: int, epoch: int, count: int, batch_size: int, first: Mixing, second: Mixing
) -> Mixing:
    """One of two kinds for each batch, with probability ½: what that kind alone would do to it."""
    chosen = generator(seed, "mixup or cutmix", epoch).random(len(first.weight)) < 0.5
    boxes = zip(chosen, first.boxes, second.boxes, strict=True)
    return Mixing(
        np.where(chosen, first.weight, second.weight),
        tuple(a if is_first else b for is_first, a, b in boxes),
        np.where(np.repeat(chosen, batch_size)[:count], first.partner, second.partner),
        first.classes,
    )


def _draw_partners(
    random: np.random.Generator, count: int, batch_size: int, alpha: float
) -> tuple[Indices, NDArray[np.float64]]:
    """Partners (count,), a permutation of each batch, then shares (batches,) from Beta(α, α)."""
    starts = range(0, count, batch_size)
    partner = np.concatenate([random.permutation(min(batch_size, count - i)) for i in starts])
    return partner, random.beta(alpha, alpha, len(starts))


def _in_24_bits(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """To the nearest multiple of 2⁻²⁴."""
    rounded: NDArray[np.float64] = np.round(share * 2**24) / 2**24
    return rounded
