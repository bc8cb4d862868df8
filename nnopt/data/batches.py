"""Order and augmentation of the training samples, drawn identically for both backends.

All draws of an epoch depend only on the seed, the epoch, the configuration and the dataset.
"""

from __future__ import annotations

import math
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
    """Random crops of an epoch's padded training images, and horizontal flips.

    Entry i of a field belongs to the i-th sample in the order of the epoch.
    """

    top: Indices  # (N,), offsets from 0 to twice the padding
    left: Indices  # (N,), offsets in the same range
    flip: NDArray[np.bool_]  # (N,), whether the image is mirrored


@dataclass(frozen=True)
class Squares:
    """The hidden square of each training image (cutout; DeVries and Taylor 2017)."""

    row: Indices  # (N,), row of the square's centre; any pixel of the image may be the centre
    column: Indices  # (N,), column of the square's centre
    side: int  # side of the square in pixels


Box = tuple[slice, slice]  # rows and columns of an image


@dataclass(frozen=True)
class Mixing:
    """Mixup or cutmix of the samples of each batch.

    Inputs x and one-hot labels t are replaced:

        x ← λ x + (1 - λ) x[partner]           mixup (Zhang et al. 2018), or
        x[box] ← x[partner][box]               cutmix (Yun et al. 2019, equation 1), then
        t ← λ t + (1 - λ) t[partner]

    For cutmix, λ is the fraction of the image outside of the box. λ is a multiple of 2⁻²⁴, so that
    λ and 1 - λ are exact in float32.
    """

    weight: NDArray[np.float64]  # (batches,), λ of each batch, from 0 to 1
    boxes: tuple[Box | None, ...]  # one box per batch, shared by its samples; None for mixup
    partner: Indices  # (N,), position of each sample's partner within the batch
    classes: int  # K, the length of a row of t


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of an epoch's training samples.

    The fields are applied in the order below; None turns a field off. Samples are normalized after
    ``policy``. Entry i of an array (N,) belongs to the i-th sample in the order of the epoch.
    """

    crops: Crops | None = None
    policy: Policy | None = None
    squares: Squares | None = None
    mixing: Mixing | None = None


PLAIN = Augmentation()  # no augmentation


def draw_augmentation(config: Config, dataset: Dataset, epoch: int, count: int) -> Augmentation:
    """Draw the configured augmentation of the ``count`` training samples in an epoch."""
    chosen, classes = config.regularizer.augmentation, len(dataset.classes)
    size = dataset.input_shape[1:]  # height and width
    drawn = config.seed, epoch, count
    batches = *drawn, config.batch_size
    mixings = []
    if chosen.mixup:
        mixings.append(draw_mixup(*batches, chosen.mixup, classes))
    if chosen.cutmix:
        mixings.append(draw_cutmix(*batches, chosen.cutmix, classes, *size))
    if len(mixings) == 2:
        mixings = [draw_either(*batches, *mixings)]
    return Augmentation(
        draw_crops(*drawn, chosen.crop, chosen.flip),
        draw_policy(*drawn, chosen),
        draw_squares(*drawn, chosen.cutout, *size) if chosen.cutout else None,
        mixings[0] if mixings else None,
    )


def batch_parts(count: int, batch_size: int, accumulation_steps: int) -> list[slice]:
    """Split a batch of ``count`` samples into micro-batches, whose gradients are added.

    A micro-batch has at most ⌈batch_size / accumulation_steps⌉ samples. A batch is split into as
    few micro-batches as possible. The sizes of its micro-batches differ by at most one.
    """
    parts = -(-count // -(-batch_size // accumulation_steps))
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def parts_of(batches: Iterable[Any], batch_size: int, accumulation_steps: int) -> Iterator[Any]:
    """Split each batch of inputs (n, ...), and yield its micro-batches in order."""
    for x in batches:
        for rows in batch_parts(len(x), batch_size, accumulation_steps):
            yield x[rows]


def epoch_order(seed: int, epoch: int, count: int) -> Indices:
    """Draw the order of the training samples in an epoch, a permutation (N,) of 0..N-1."""
    return generator(seed, "shuffle", epoch).permutation(count)


def draw_crops(seed: int, epoch: int, count: int, crop: int, flip: bool) -> Crops | None:
    """Draw an epoch's crops and flips; None if both are off.

    ``crop``: padding in pixels on each side, 0 for none. ``flip``: mirror with probability ½.
    ``flip`` does not affect the drawn crops, and ``crop`` does not affect the drawn flips.
    """
    if not crop and not flip:
        return None
    random = generator(seed, "augment", epoch)
    mirrored = random.random(count) < 0.5
    top, left = random.integers(0, 2 * crop, (2, count), endpoint=True)
    return Crops(top, left, mirrored & flip)


def crop_indices(top: Any, left: Any, flip: Any, down: Any, across: Any) -> tuple[Any, Any]:
    """Return the rows (n, H, 1) and columns (n, 1, W) of padded images that form the crops.

    ``padded`` (n, C, H + 2 crop, W + 2 crop) contains the raw values of n images, with zeros around
    each image. Callers cut the crops as follows:

        i, c = np.arange(n)[:, None, None, None], np.arange(C)[:, None, None]
        cut = padded[i, c, rows[:, None], columns[:, None]]     # (n, C, H, W)

    top, left, flip: (n,), entries of ``Crops``. down, across: 0..H-1 and 0..W-1. All arguments
    are NumPy arrays, or all are PyTorch tensors on one device.
    """
    mirrored = flip[:, None] * (len(across) - 1 - 2 * across)  # column W-1-k in place of k
    columns = left[:, None] + across + mirrored
    rows = top[:, None] + down
    return rows[:, :, None], columns[:, None, :]


def draw_squares(seed: int, epoch: int, count: int, side: int, height: int, width: int) -> Squares:
    """Draw an epoch's hidden squares. All pixels are equally likely to be the centre."""
    random = generator(seed, "cutout", epoch)
    return Squares(random.integers(0, height, count), random.integers(0, width, count), side)


def hidden_pixels(row: Any, column: Any, side: int, down: Any, across: Any) -> Any:
    """Return a mask (n, 1, H, W) that is True inside of the squares.

    row, column: (n,), entries of ``Squares``. down, across: 0..H-1 and 0..W-1, arrays of the same
    library. If the side is even, the centre is the pixel below and right of the square's middle.
    """
    below = down - (row - side // 2)[:, None]
    right = across - (column - side // 2)[:, None]
    rows, columns = (below >= 0) & (below < side), (right >= 0) & (right < side)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def draw_mixup(
    seed: int, epoch: int, count: int, batch_size: int, alpha: float, classes: int
) -> Mixing:
    """Draw partners by a permutation of each batch, and one λ ~ Beta(α, α) per batch.

    The partners do not depend on α, the argument ``alpha``.
    """
    partner, weight = _draw_partners(generator(seed, "mixup", epoch), count, batch_size, alpha)
    return Mixing(_in_24_bits(weight), (None,) * len(weight), partner, classes)


def draw_cutmix(
    seed: int, epoch: int, count: int, batch_size: int, alpha: float, classes: int, *size: int
) -> Mixing:
    """Draw an epoch's partners, and one box per batch (Yun et al. 2019, equation 2).

    ``size`` is the height H and the width W of the images. λ is drawn from Beta(α, α). The box has
    the height H √(1 - λ) and the width W √(1 - λ), rounded, and a uniformly drawn centre. The box
    is clipped to the image, and λ becomes the fraction of the image outside of the box. Partners
    and centres do not depend on α.
    """
    random = generator(seed, "cutmix", epoch)
    centres = random.integers(0, size, (-(-count // batch_size), 2))
    partner, fraction = _draw_partners(random, count, batch_size, alpha)
    sides = np.rint(np.sqrt(1 - fraction)[:, None] * size).astype(np.int64)
    starts = centres - sides // 2
    starts, stops = np.clip([starts, starts + sides], 0, size)
    weight = _in_24_bits(1 - np.prod(stops - starts, axis=1) / math.prod(size))
    boxes = tuple(
        (slice(top, bottom), slice(left, right))
        for (top, left), (bottom, right) in zip(starts.tolist(), stops.tolist(), strict=True)
    )
    return Mixing(weight, boxes, partner, classes)


def draw_either(
    seed: int, epoch: int, count: int, batch_size: int, first: Mixing, second: Mixing
) -> Mixing:
    """Choose ``first`` or ``second`` (mixup or cutmix) for each batch, with probability ½ each."""
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
    """Permute each batch to draw partners (count,), and draw λ (batches,) from Beta(α, α)."""
    starts = range(0, count, batch_size)
    partner = np.concatenate([random.permutation(min(batch_size, count - i)) for i in starts])
    return partner, random.beta(alpha, alpha, len(starts))


def _in_24_bits(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to the nearest multiple of 2⁻²⁴."""
    rounded: NDArray[np.float64] = np.round(weight * 2**24) / 2**24
    return rounded
