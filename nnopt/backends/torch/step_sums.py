"""What the steps of an epoch leave behind, on the device until it is read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnopt.backends.protocol import StepRecord

FOLD = 256
"""Steps whose logits are kept before their right answers are counted, all in one operation."""


class StepSums:
    """Losses and right answers of many steps, counted on the device and brought over only when
    they are read: reading every step would make Python wait for the device every step."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._correct: Tensor | int = 0
        self._count = 0

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Remember a step; y must not be overwritten afterwards."""
        self._losses.append(loss)
        self._logits.append(logits)
        self._labels.append(y)
        if len(self._logits) == FOLD:
            self._fold()

    def _fold(self) -> None:
        logits, labels = torch.cat(self._logits), torch.cat(self._labels)
        labels = labels if labels.ndim == 1 else labels.argmax(dim=1)
        self._correct = self._correct + (logits.argmax(dim=1) == labels).sum()
        self._count += len(labels)
        self._logits.clear()
        self._labels.clear()

    def record(self, gradient_norm: float, state_is_finite: bool) -> StepRecord:
        """Waits for the device."""
        if self._logits:
            self._fold()
        losses = torch.stack(self._losses).cpu().numpy() if self._losses else np.zeros(0)
        return StepRecord(
            losses.astype(np.float64),
            int(self._correct),
            self._count,
            gradient_norm,
            state_is_finite=state_is_finite,
        )
