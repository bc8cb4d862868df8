"""Batches in NumPy: gathered from the memory map, augmented and normalized into kept arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.numpy.memory import empty
from nnopt.backends.numpy.ops import Array
from nnopt.data.batches import Augmentation, Crops, Mixing, Squares, crop_indices, hidden_pixels
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

EVALUATION_BATCH = 1024


class NumpyLoader:
    """See ``nnopt.backends.Loader``. The inputs of a batch are overwritten by the next one."""

    def __init__(self, part: Part, normalization: Normalization, config: Config) -> None:
        self._part = part
        self._crop = config.regularizer.augmentation.crop
        self._dtype = np.dtype(config.backend.dtype)
        self._normalization = normalization
        axes = (1,) * (part.inputs.ndim - 2)  # (C,) -> (C, 1, 1) for images
        self._scale = normalization.scale.reshape(-1, *axes).astype(self._dtype)
        self._shift = normalization.shift.reshape(-1, *axes).astype(self._dtype)
        self._labels = part.labels[part.rows]
        self._batches: dict[int, Array] = {}
        self._partners: dict[int, Array] = {}

    def train_batches(
        self, order: NDArray[np.int64], batch_size: int, augmentation: Augmentation
    ) -> Iterator[tuple[Array, Array]]:
        crops, squares, mixing = augmentation.crops, augmentation.squares, augmentation.mixing
        for batch, start in enumerate(range(0, len(order), batch_size)):
            window = slice(start, start + batch_size)
            chosen = order[window]
            raw = self._part.take(self._part.rows[chosen])
            if crops is not None:
                raw = self._cut_out(raw, crops, window)
            x, y = self._normalize(raw), self._labels[chosen]
            if squares is not None:
                _hide(x, squares, window)
            if mixing is not None:
                y = self._mix(x, y, mixing, batch, window)
            yield x, y

    def evaluation_batches(self) -> Iterator[Array]:
        for start in range(0, len(self._part), EVALUATION_BATCH):
            yield self._normalize(self._part.take(self._part.rows[start:][:EVALUATION_BATCH]))

    def _normalize(self, raw: Array) -> Array:
        """x · scale + shift, in the backend's number type; of float64 features in theirs, and then
        rounded. raw is overwritten."""
        count = len(raw)
        if count not in self._batches:
            self._batches[count] = empty(raw.shape, self._dtype)
        x = self._batches[count]
        if raw.dtype == np.float64:
            np.copyto(x, self._normalization.of_features(raw), casting="same_kind")
            return x
        np.copyto(x, raw, casting="same_kind" if raw.dtype.kind == "f" else "unsafe")
        np.multiply(x, self._scale, out=x)
        return np.add(x, self._shift, out=x)

    def _cut_out(self, raw: Array, crops: Crops, window: slice) -> Array:
        """Pad the images (N, C, H, W) with zeros, cut each out at its own place, maybe mirrored."""
        _, channels, height, width = raw.shape
        pad = self._crop
        padded = np.pad(raw, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        rows, columns = crop_indices(
            crops.top[window],
            crops.left[window],
            crops.flip[window],
            np.arange(height),
            np.arange(width),
        )
        image = np.arange(len(raw))[:, None, None, None]
        channel = np.arange(channels)[None, :, None, None]
        cut: Array = padded[image, channel, rows[:, None], columns[:, None]]
        return cut

    def _mix(self, x: Array, labels: Array, mixing: Mixing, batch: int, window: slice) -> Array:
        """Mix x (N, ...) in place; returns the labels (N,) mixed likewise, targets (N, K)."""
        count, weight, partner = len(x), float(mixing.weight[batch]), mixing.partner[window]
        if (box := mixing.boxes[batch]) is not None:
            patch = x[..., *box]
            patch[:] = patch[partner]
        else:
            if count not in self._partners:
                self._partners[count] = empty(x.shape, self._dtype)
            others = np.take(x, partner, axis=0, out=self._partners[count], mode="clip")
            np.multiply(x, weight, out=x)
            np.add(x, np.multiply(others, 1 - weight, out=others), out=x)
        targets = np.zeros((count, mixing.classes), self._dtype)
        targets[np.arange(count), labels] = weight
        targets[np.arange(count), labels[partner]] += 1 - weight
        return targets


def _hide(x: Array, squares: Squares, window: slice) -> None:
    """Set a square of each normalized image (N, C, H, W) to 0."""
    row, column = squares.row[window], squares.column[window]
    hidden = hidden_pixels(row, column, squares.side, *map(np.arange, x.shape[2:]))
    np.copyto(x, 0, where=hidden)
