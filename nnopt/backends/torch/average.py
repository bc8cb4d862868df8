"""Running averages of tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Average:
    """The running average of each of ``tensors``, zero at first. No method waits for the device.

    In the methods, ``w`` is a tensor and ``a`` its average. Each tensor must stay in its memory.

    Attributes:
        averages: The average of each tensor, in the order of ``tensors``.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self.averages = [torch.zeros_like(tensor) for tensor in self._tensors]

    def move(self, weight: float) -> None:
        """Compute a ← a + weight · (w - a)."""
        torch._foreach_lerp_(self.averages, self._tensors, weight)

    def swap(self) -> None:
        """Exchange a and w without rounding."""
        saved = [tensor.clone() for tensor in self._tensors]
        torch._foreach_copy_(self._tensors, self.averages)
        torch._foreach_copy_(self.averages, saved)
