"""Batches in NumPy: gathered from the memory map, augmented and normalized into kept arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.numpy_scratch.memory import empty
from nnopt.backends.numpy_scratch.ops import Array
from nnopt.data.batches import Crops, crop_indices
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

EVALUATION_BATCH = 1024


class NumpyLoader:
    """See ``nnopt.backends.Loader``. The inputs of a batch are overwritten by the next one."""

    def __init__(self, part: Part, normalization: Normalization, config: Config) -> None:
        self._part = part
        self._crop = config.regularizer.augmentation.crop
        self._dtype = np.dtype(config.backend.dtype)
        axes = (1,) * (part.inputs.ndim - 2)  # (C,) -> (C, 1, 1) for images
        self._scale = normalization.scale.reshape(-1, *axes).astype(self._dtype)
        self._shift = normalization.shift.reshape(-1, *axes).astype(self._dtype)
        self._labels = part.labels[part.rows]
        self._batches: dict[int, Array] = {}

    def train_batches(
        self, order: NDArray[np.int64], batch_size: int, crops: Crops | None
    ) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(order), batch_size):
            window = slice(start, start + batch_size)
            chosen = order[window]
            raw = self._part.inputs[self._part.rows[chosen]]
            if crops is not None:
                raw = self._augment(raw, crops, window)
            yield self._normalize(raw), self._labels[chosen]

    def evaluation_batches(self) -> Iterator[Array]:
        for start in range(0, len(self._part), EVALUATION_BATCH):
            yield self._normalize(self._part.inputs[self._part.rows[start:][:EVALUATION_BATCH]])

    def _normalize(self, raw: Array) -> Array:
        """x · scale + shift, in the backend's number type."""
        count = len(raw)
        if count not in self._batches:
            self._batches[count] = empty(raw.shape, self._dtype)
        x = self._batches[count]
        np.copyto(x, raw, casting="same_kind" if raw.dtype.kind == "f" else "unsafe")
        np.multiply(x, self._scale, out=x)
        return np.add(x, self._shift, out=x)

    def _augment(self, raw: Array, crops: Crops, window: slice) -> Array:
        """Pad the images (N, C, H, W) with zeros, cut each out at its own place, maybe mirrored."""
        _, channels, height, width = raw.shape
        pad = self._crop
        padded = np.pad(raw, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        rows, columns = crop_indices(
            crops.top[window], crops.left[window], crops.flip[window], height, width
        )
        image = np.arange(len(raw))[:, None, None, None]
        channel = np.arange(channels)[None, :, None, None]
        cut: Array = padded[image, channel, rows[:, None], columns[:, None]]
        return cut
