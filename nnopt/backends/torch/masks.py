"""Masks of pruned parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Masks:
    """The masks of a network's parameters, as tensors of 0 and 1. Without masks, nothing changes.

    Args:
        named: The parameters by full name.
        masks: The masks by full name, with the shapes of the parameters.
    """

    def __init__(
        self, named: Mapping[str, nn.Parameter], masks: Mapping[str, NDArray[np.bool_]]
    ) -> None:
        self._parameters: list[Tensor] = [named[name] for name in masks]
        self._masks = [torch.from_numpy(x).to(named[name]) for name, x in masks.items()]
        self._by_name = dict(zip(masks, self._masks, strict=True))

    @torch.no_grad()
    def set_to_zero(self, tensors: Mapping[str, Tensor]) -> None:
        """Set pruned elements to zero. Each key of ``tensors`` is NAME or PREFIX/NAME."""
        for name, tensor in tensors.items():
            mask = self._by_name.get(name.rpartition("/")[2])
            if mask is not None and tensor.shape == mask.shape:
                tensor.masked_fill_(mask == 0, 0)

    def mask_gradients(self) -> None:
        """Multiply the gradients by the masks."""
        if self._masks:
            pairs = zip(self._parameters, self._masks, strict=True)
            present = [(p.grad, mask) for p, mask in pairs if p.grad is not None]
            torch._foreach_mul_([g for g, _ in present], [mask for _, mask in present])

    def mask_parameters(self) -> None:
        """Multiply the parameters by the masks, after an update that mixes the elements."""
        if self._masks:
            torch._foreach_mul_(self._parameters, self._masks)
