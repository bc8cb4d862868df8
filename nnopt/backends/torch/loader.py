"""Batches in PyTorch: the data lie on the device once, and each batch is gathered there."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nnopt.data.batches import Augmentation, Crops, Mixing, Squares, crop_indices, hidden_pixels
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

if TYPE_CHECKING:
    from nnopt.backends.torch.policies import PolicyOperations

CPU_CHUNK_BYTES = 2**20
"""Small batches are gathered and normalized several at a time, up to so many bytes: on 64 rows an
operation costs more to start than to do. More would leave a CPU's level-2 cache, and the memory
that it gets without asking the operating system."""

CPU_POLICY_CHUNK_BYTES = 2**23
"""A policy's operations have more to start than to keep in the cache."""

ACCELERATOR_CHUNK_BYTES = 2**26
"""An accelerator has neither worry."""

EVALUATION_ROWS, EVALUATION_BYTES = 1024, 2**24
"""Of a batch, at most; there is no backward pass to keep anything for."""


class TorchLoader:
    """See ``nnopt.backends.Loader`` for what the methods promise.

    Images stay uint8 until they are gathered: a quarter of the memory to read.
    """

    def __init__(self, part: Part, normalization: Normalization, config: Config) -> None:
        self._part = part
        self._device = torch.device(config.backend.device)
        self._dtype = getattr(torch, config.backend.dtype)
        self._crop = config.regularizer.augmentation.crop
        self._policy = config.regularizer.augmentation.policy
        on_cpu = self._device.type == "cpu"
        self._features = normalization if part.inputs.dtype == np.float64 else None
        if on_cpu:  # the (memory-mapped) array as it is
            self._inputs, rows = _wrap(part.inputs), part.rows
        else:  # this part's rows alone
            self._inputs = self._whole(part).to(self._device)
            rows = np.arange(len(part))
        self._rows = torch.tensor(rows, device=self._device)
        self._labels = torch.tensor(part.labels[part.rows], device=self._device)
        axes = (1,) * (part.inputs.ndim - 2)  # (C,) -> (C, 1, 1) for images
        self._scale, self._shift = (
            torch.tensor(x, dtype=self._dtype, device=self._device).reshape(-1, *axes)
            for x in (normalization.scale, normalization.shift)
        )
        row_bytes = math.prod(part.inputs.shape[1:]) * self._dtype.itemsize
        chunk_bytes = CPU_CHUNK_BYTES if self._policy == "none" else CPU_POLICY_CHUNK_BYTES
        chunk_bytes = chunk_bytes if on_cpu else ACCELERATOR_CHUNK_BYTES
        self._chunk_rows = max(1, chunk_bytes // row_bytes)
        self._evaluation_rows = min(EVALUATION_ROWS, max(1, EVALUATION_BYTES // row_bytes))

    def train_batches(
        self, order: NDArray[np.int64], batch_size: int, augmentation: Augmentation
    ) -> Iterator[tuple[Tensor, Tensor]]:
        policy, squares, mixing = augmentation.policy, augmentation.squares, augmentation.mixing
        # All of an epoch at once: a copy of pageable memory waits until the device is idle.
        chosen = self._placed(order)
        rows, labels = self._rows[chosen], self._labels[chosen]
        crops = self._entries(augmentation.crops, "top", "left", "flip")
        centres = self._entries(squares, "row", "column")
        partners = self._entries(mixing, "partner")
        chunk = batch_size * max(1, self._chunk_rows // batch_size)
        for start in range(0, len(order), chunk):
            window = slice(start, start + chunk)
            self._part.check_file()
            raw = self._inputs.index_select(0, rows[window])
            if crops:
                raw = self._cut_out(raw, *(drawn[window] for drawn in crops))
            if policy is not None:
                self._operations.apply(raw, policy, window)
            x = self._normalize(raw)
            if squares is not None:
                row, column = (at[window] for at in centres)
                x.masked_fill_(hidden_pixels(row, column, squares.side, *self._axes), 0)
            batches = zip(_split(x, batch_size), _split(labels[window], batch_size), strict=True)
            if mixing is None:
                yield from batches
            else:
                parts = _split(partners[0][window], batch_size)
                first = start // batch_size
                for number, (x, y), partner in zip(count(first), batches, parts, strict=False):
                    yield x, self._mix(x, y, partner, mixing, number)

    def evaluation_batches(self) -> Iterator[Tensor]:
        for rows in _split(self._rows, self._evaluation_rows):
            self._part.check_file()
            yield self._normalize(self._inputs.index_select(0, rows))

    def _placed(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _entries(self, drawn: Crops | Squares | Mixing | None, *names: str) -> tuple[Tensor, ...]:
        """These arrays of an epoch's draws, on the device; none of none."""
        return () if drawn is None else tuple(self._placed(getattr(drawn, x)) for x in names)

    def _whole(self, part: Part) -> Tensor:
        """Return the rows of a part.

        Features in float64, which not every accelerator has, are in the network's precision.
        """
        dtype = _wrap(part.inputs).dtype if self._features is None else self._dtype
        seen = torch.empty((len(part), *part.inputs.shape[1:]), dtype=dtype)
        for start in range(0, len(part), EVALUATION_ROWS):
            raw = part.take(part.rows[start : start + EVALUATION_ROWS])
            seen_rows = raw if self._features is None else self._features.of_features(raw)
            seen[start : start + len(raw)] = torch.from_numpy(seen_rows)
        return seen

    def _normalize(self, raw: Tensor) -> Tensor:
        """x · scale + shift, in the backend's number type; of float64 features in theirs, and then
        rounded. raw is overwritten."""
        if self._features is not None:
            if raw.device.type == "cpu":
                self._features.of_features(raw.numpy())
            return raw.to(self._dtype)
        return raw.to(self._dtype).mul_(self._scale).add_(self._shift)

    @cached_property
    def _operations(self) -> PolicyOperations:
        """Torchvision is imported for those alone who want a policy."""
        from nnopt.backends.torch.policies import PolicyOperations

        height, width = self._inputs.shape[2:]
        return PolicyOperations(self._policy, height, width, self._device)

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """0..H-1 and 0..W-1 of an image."""
        height, width = self._inputs.shape[2:]
        return torch.arange(height, device=self._device), torch.arange(width, device=self._device)

    def _cut_out(self, raw: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Pad the images (N, C, H, W) with zeros, cut each out at its own place, maybe mirrored."""
        rows, columns = crop_indices(top, left, flip, *self._axes)
        padded = F.pad(raw, (self._crop,) * 4)
        channels, pixels = raw.shape[1], (rows * padded.shape[-1] + columns).flatten(1)[:, None]
        cut = padded.flatten(2).gather(2, pixels.expand(-1, channels, -1))
        return cut.view(raw.shape)

    def _mix(
        self, x: Tensor, labels: Tensor, partner: Tensor, mixing: Mixing, batch: int
    ) -> Tensor:
        """Mix the inputs x (N, ...) of a batch in place; returns the labels (N,) mixed likewise,
        targets (N, K). partner: (N,), positions within the batch."""
        weight, box = float(mixing.weight[batch]), mixing.boxes[batch]
        if box is None:
            others = x[partner].mul_(1 - weight)
            x.mul_(weight).add_(others)
        else:
            patch = x[..., *box]
            patch.copy_(patch[partner])
        one_hot = F.one_hot(labels, mixing.classes).to(self._dtype)
        return one_hot * weight + one_hot[partner] * (1 - weight)


def _wrap(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory, which nothing here ever writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _split(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """Views of so many rows each, the last maybe of fewer."""
    return x.split(size)  # type: ignore[no-untyped-call, no-any-return]
