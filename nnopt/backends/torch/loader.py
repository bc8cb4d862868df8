"""Batches in PyTorch: gathered on the device that holds the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import count, islice
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
"""Size of a chunk on a CPU. A chunk has small batches that are gathered and normalized together,
because an operation on 64 rows has more overhead than work. Larger chunks do not fit into the
level-2 cache, and PyTorch requests their memory from the operating system each time."""

CPU_POLICY_CHUNK_BYTES, ACCELERATOR_CHUNK_BYTES = 2**23, 2**26
"""Sizes of a chunk on a CPU with an augmentation policy, and on an accelerator. Operations of
policies have more overhead."""

EVALUATION_ROWS, EVALUATION_BYTES = 1024, 2**24
"""Maximum size of an evaluation batch, in rows and in bytes."""


class TorchLoader:
    """A loader in PyTorch; ``nnopt.backends.protocol.Loader`` documents its methods.

    Images stay uint8 until they are gathered, because float32 has four times the memory traffic.
    """

    def __init__(self, part: Part, normalization: Normalization, config: Config) -> None:
        self._part = part
        self._device = torch.device(config.backend.device)
        self._dtype = getattr(torch, config.backend.dtype)
        self._padding = config.regularizer.augmentation.crop
        self._policy = config.regularizer.augmentation.policy
        on_cpu = self._device.type == "cpu"
        self._features = normalization if part.inputs.dtype == np.float64 else None
        if on_cpu:  # use the (memory-mapped) array itself
            self._inputs, rows = _wrap(part.inputs), part.rows
        else:  # copy this part's rows only
            self._inputs = self._rows_of(part).to(self._device)
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
        self,
        order: NDArray[np.int64],
        batch_size: int,
        augmentation: Augmentation,
        first: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (N, ...) and labels (N,) or (N, K), in the given order."""
        batches_per_chunk = max(1, self._chunk_rows // batch_size)
        chunk_of_first, skipped = divmod(first, batches_per_chunk)
        chunks = self._chunks(order, batch_size, augmentation, chunk_of_first)
        yield from islice(chunks, skipped, None)

    def _chunks(
        self, order: NDArray[np.int64], batch_size: int, augmentation: Augmentation, first: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all batches, starting with those of the chunk with the index ``first``."""
        policy, squares, mixing = augmentation.policy, augmentation.squares, augmentation.mixing
        # Each array is copied once per epoch: a copy from pageable memory waits for an idle device.
        chosen = self._to_device(order)
        rows, labels = self._rows[chosen], self._labels[chosen]
        crops = self._draws(augmentation.crops, "top", "left", "flip")
        centres = self._draws(squares, "row", "column")
        partners = self._draws(mixing, "partner")
        chunk_size = batch_size * max(1, self._chunk_rows // batch_size)
        for start in range(first * chunk_size, len(order), chunk_size):
            chunk = slice(start, start + chunk_size)
            self._part.check_file()
            raw = self._inputs.index_select(0, rows[chunk])
            if crops:
                raw = self._crop(raw, *(drawn[chunk] for drawn in crops))
            if policy is not None:
                self._operations.apply(raw, policy, chunk)
            x = self._normalize(raw)
            if squares is not None:
                row, column = (drawn[chunk] for drawn in centres)
                x.masked_fill_(hidden_pixels(row, column, squares.side, *self._axes), 0)
            batches = zip(_split(x, batch_size), _split(labels[chunk], batch_size), strict=True)
            if mixing is None:
                yield from batches
            else:
                partners_of_batches = _split(partners[0][chunk], batch_size)
                for number, (x, y), partner in zip(
                    count(start // batch_size), batches, partners_of_batches, strict=False
                ):
                    yield x, self._mix(x, y, partner, mixing, number)

    def evaluation_batches(self) -> Iterator[Tensor]:
        """Yield inputs (N, ...) in the order of the part."""
        for rows in _split(self._rows, self._evaluation_rows):
            self._part.check_file()
            yield self._normalize(self._inputs.index_select(0, rows))

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _draws(self, drawn: Crops | Squares | Mixing | None, *names: str) -> tuple[Tensor, ...]:
        """Return the fields ``names`` of an epoch's random draws, as tensors on the device."""
        return () if drawn is None else tuple(self._to_device(getattr(drawn, x)) for x in names)

    def _rows_of(self, part: Part) -> Tensor:
        """Copy a part's inputs. Some devices lack float64, so normalize float64 features here."""
        dtype = _wrap(part.inputs).dtype if self._features is None else self._dtype
        copied = torch.empty((len(part), *part.inputs.shape[1:]), dtype=dtype)
        for start in range(0, len(part), EVALUATION_ROWS):
            raw = part.take(part.rows[start : start + EVALUATION_ROWS])
            rows = raw if self._features is None else self._features.of_features(raw)
            copied[start : start + len(raw)] = torch.from_numpy(rows)
        return copied

    def _normalize(self, raw: Tensor) -> Tensor:
        """Return ``raw``, normalized, in the backend's number type. May overwrite ``raw``."""
        if self._features is not None:  # features are normalized in float64, then rounded
            if raw.device.type == "cpu":
                self._features.of_features(raw.numpy())
            return raw.to(self._dtype)
        return raw.to(self._dtype).mul_(self._scale).add_(self._shift)

    @cached_property
    def _operations(self) -> PolicyOperations:
        """The operations of the policy. Torchvision is imported only if there is a policy."""
        from nnopt.backends.torch.policies import PolicyOperations

        height, width = self._inputs.shape[2:]
        return PolicyOperations(self._policy, height, width, self._device)

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """The row indices 0..H-1 and the column indices 0..W-1 of an image."""
        height, width = self._inputs.shape[2:]
        return torch.arange(height, device=self._device), torch.arange(width, device=self._device)

    def _crop(self, raw: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """Pad images (N, C, H, W) with zeros, then crop and flip each image as drawn."""
        rows, columns = crop_indices(top, left, flip, *self._axes)
        padded = F.pad(raw, (self._padding,) * 4)
        channels, pixels = raw.shape[1], (rows * padded.shape[-1] + columns).flatten(1)[:, None]
        cropped = padded.flatten(2).gather(2, pixels.expand(-1, channels, -1))
        return cropped.view(raw.shape)

    def _mix(
        self, x: Tensor, labels: Tensor, partner: Tensor, mixing: Mixing, batch: int
    ) -> Tensor:
        """Mix x (N, ...) with the samples ``partner`` (N,) in place. Return the labels (N, K)."""
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
    """Return a tensor that shares the memory of an array. The caller must not write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _split(x: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return views of ``size`` rows each. The last view may have fewer rows."""
    return x.split(size)  # type: ignore[no-untyped-call, no-any-return]
