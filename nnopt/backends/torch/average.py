"""A running average of tensors, beside them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Average:
    """An average a of ``tensors`` w, which lie where they are for good; it starts at zero. Nothing
    here waits for the device."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [tensor.detach() for tensor in tensors]
        self._average = [torch.zeros_like(tensor) for tensor in self._tensors]

    def move(self, weight: float) -> None:
        """a ← a + weight · (w - a)."""
        torch._foreach_lerp_(self._average, self._tensors, weight)

    def swap(self) -> None:
        """Exchange a and w, to the bit."""
        kept = [tensor.clone() for tensor in self._tensors]
        torch._foreach_copy_(self._tensors, self._average)
        torch._foreach_copy_(self._average, kept)
