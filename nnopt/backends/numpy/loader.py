"""Batches in NumPy: gathered from the array of inputs, augmented and normalized."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.tape import Buffers
from nnopt.data.batches import Augmentation, Crops, Mixing, crop_indices, hidden_pixels
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

EVALUATION_BATCH_SIZE = 1024


class NumpyLoader:
    """A loader in NumPy; ``nnopt.backends.protocol.Loader`` documents its methods.

    Batches share their memory: each batch overwrites the inputs of the previous one.
    """

    def __init__(self, part: Part, normalization: Normalization, config: Config) -> None:
        self._part = part
        self._padding = config.regularizer.augmentation.crop
        self._dtype = np.dtype(config.backend.dtype)
        self._normalization = normalization
        axes = (1,) * (part.inputs.ndim - 2)  # (C,) -> (C, 1, 1) for images
        self._scale = normalization.scale.reshape(-1, *axes).astype(self._dtype)
        self._shift = normalization.shift.reshape(-1, *axes).astype(self._dtype)
        self._labels = part.labels[part.rows]
        self._buffers = Buffers()

    def train_batches(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        augmentation: Augmentation,
        first: int = 0,
    ) -> Iterator[tuple[Array, Array]]:
        """Yield inputs (N, ...) and labels (N,) or (N, K), in the given order."""
        crops, squares, mixing = augmentation.crops, augmentation.squares, augmentation.mixing
        for batch in range(first, -(-len(order) // batch_size)):
            start = batch * batch_size
            batch_slice = slice(start, start + batch_size)
            chosen = order[batch_slice]
            raw = self._part.take(self._part.rows[chosen])
            if crops is not None:
                raw = self._crop(raw, crops, batch_slice)
            x, y = self._normalize(raw), self._labels[chosen]
            if squares is not None:
                row, column = squares.row[batch_slice], squares.column[batch_slice]
                axes = map(np.arange, x.shape[2:])
                np.copyto(x, 0, where=hidden_pixels(row, column, squares.side, *axes))
            if mixing is not None:
                y = self._mix(x, y, mixing, batch, batch_slice)
            yield x, y

    def evaluation_batches(self) -> Iterator[Array]:
        """Yield inputs (N, ...) in the order of the part."""
        for start in range(0, len(self._part), EVALUATION_BATCH_SIZE):
            rows = self._part.rows[start : start + EVALUATION_BATCH_SIZE]
            yield self._normalize(self._part.take(rows))

    def _normalize(self, raw: Array) -> Array:
        """Return ``raw``, normalized, in the backend's number type. May overwrite ``raw``."""
        x = self._buffers("x", raw.shape, self._dtype)
        if raw.dtype == np.float64:  # features are normalized in float64, then rounded
            np.copyto(x, self._normalization.of_features(raw), casting="same_kind")
            return x
        np.copyto(x, raw, casting="same_kind" if raw.dtype.kind == "f" else "unsafe")
        np.multiply(x, self._scale, out=x)
        return np.add(x, self._shift, out=x)

    def _crop(self, raw: Array, crops: Crops, batch_slice: slice) -> Array:
        """Pad images (N, C, H, W) with zeros, then crop and flip each image as drawn."""
        _, channels, height, width = raw.shape
        pad = self._padding
        padded = np.pad(raw, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        top, left, flip = (x[batch_slice] for x in (crops.top, crops.left, crops.flip))
        rows, columns = crop_indices(top, left, flip, np.arange(height), np.arange(width))
        image = np.arange(len(raw))[:, None, None, None]
        channel = np.arange(channels)[None, :, None, None]
        cropped: Array = padded[image, channel, rows[:, None], columns[:, None]]
        return cropped

    def _mix(
        self, x: Array, labels: Array, mixing: Mixing, batch: int, batch_slice: slice
    ) -> Array:
        """Mix the inputs x (N, ...) in place and return the mixed labels (N, K)."""
        weight, partner = float(mixing.weight[batch]), mixing.partner[batch_slice]
        if (box := mixing.boxes[batch]) is not None:
            patch = x[..., *box]
            patch[:] = patch[partner]
        else:
            others = self._buffers("others", x.shape, self._dtype)
            np.take(x, partner, axis=0, out=others, mode="clip")
            np.multiply(x, weight, out=x)
            np.add(x, np.multiply(others, 1 - weight, out=others), out=x)
        rows, targets = np.arange(len(x)), np.zeros((len(x), mixing.classes), self._dtype)
        targets[rows, labels] = weight
        targets[rows, labels[partner]] += 1 - weight
        return targets
