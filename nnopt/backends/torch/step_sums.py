"""Losses and correct predictions of several steps, accumulated on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnopt.backends.protocol import StepRecord

MAX_PENDING_STEPS = 256
"""Maximum number of steps whose correct predictions are counted in one operation."""


class StepSums:
    """Losses and numbers of correct predictions, kept on the device until ``record`` is called."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._pending: list[tuple[Tensor, Tensor]] = []  # logits and labels
        self._correct: Tensor | int = 0
        self._count = 0

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add a step. ``y`` must not change before ``record`` is called."""
        self._losses.append(loss)
        self._pending.append((logits, y))
        if len(self._pending) == MAX_PENDING_STEPS:
            self._count_correct()

    def _count_correct(self) -> None:
        logits, labels = map(torch.cat, zip(*self._pending, strict=True))
        labels = labels if labels.ndim == 1 else labels.argmax(dim=1)
        self._correct = self._correct + (logits.argmax(dim=1) == labels).sum()
        self._count += len(labels)
        self._pending.clear()

    def record(self, gradient_norm: float, state_is_finite: bool) -> StepRecord:
        """Return the record of all steps. Waits for the device."""
        if self._pending:
            self._count_correct()
        losses = torch.stack(self._losses).cpu().numpy() if self._losses else np.zeros(0)
        return StepRecord(
            losses.astype(np.float64),
            int(self._correct),
            self._count,
            gradient_norm,
            state_is_finite=state_is_finite,
        )
