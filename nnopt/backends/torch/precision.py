"""Number formats of a training step: a single format, or mixed precision."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from nnopt.schema import TorchConfig

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}

SCALER_KEYS = ("scale", "_growth_tracker")
"""Keys of the gradient scaler's state that change during training."""

FULL: AbstractContextManager[None] = nullcontext()


class Precision:
    """A single format, or mixed precision (Micikevicius et al. 2018).

    In mixed precision, weights, their gradients, the update and the loss are in float32. Matrix
    products and convolutions are computed in 16 bits. With the five exponent bits of fp16, small
    gradients would become zero. For fp16, the loss is therefore multiplied by a scale before the
    backward pass, and gradients are divided by the scale afterwards (section 3.2). If a gradient
    overflows, the step is skipped and the scale is reduced.
    """

    def __init__(self, backend: TorchConfig) -> None:
        self._device = torch.device(backend.device).type
        self._format = FORMATS.get(backend.precision)
        self._dtype = getattr(torch, backend.dtype)
        self._scaler = torch.amp.GradScaler(self._device, enabled=backend.precision == "fp16")

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the scale of the loss, if any, and the number of steps since its last change."""
        state = self._scaler.state_dict()  # empty if the loss is not scaled
        return {f"scaler/{key}": np.array(float(state[key])) for key in SCALER_KEYS if key in state}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the scale of the loss."""
        if self._scaler.is_enabled():
            values = {key: state[f"scaler/{key}"].item() for key in SCALER_KEYS}
            values["_growth_tracker"] = int(values["_growth_tracker"])
            self._scaler.load_state_dict(self._scaler.state_dict() | values)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which PyTorch selects the format of each operation."""
        if self._format is None:
            return FULL
        return torch.autocast(self._device, self._format)

    def restore(self, x: Tensor) -> Tensor:
        """Return x in the backend's number type."""
        return x.to(self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the loss. They are scaled until ``unscale`` is called."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    @property
    def scale(self) -> float:
        """The factor of the gradients after ``backward``; 1 if the loss is not scaled."""
        return float(self._scaler.get_scale())

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, before penalties and clipping."""
        self._scaler.unscale_(optimizer)

    def overflowed(self, optimizer: Optimizer) -> Tensor | None:
        """Return whether ``step`` will skip the update because a gradient overflowed.

        The result is a boolean tensor, or None if the loss is not scaled. Call ``unscale`` first.
        """
        if not self._scaler.is_enabled():
            return None
        (overflows,) = self._scaler._found_inf_per_device(optimizer).values()
        return overflows > 0  # type: ignore[no-any-return]

    def step(self, optimizer: Optimizer) -> None:
        """Perform the update, or skip it if a gradient overflowed.

        Fused optimizers decide this on the device. With others, ``step`` waits for the device.
        """
        self._scaler.step(optimizer)
        self._scaler.update()
