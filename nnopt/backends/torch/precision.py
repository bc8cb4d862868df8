"""Number formats of a step: everything in the backend's own, or products in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.optim import Optimizer

from nnopt.schema import TorchConfig

FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}

FULL: AbstractContextManager[None] = nullcontext()


class Precision:
    """Mixed precision (Micikevicius et al. 2018): weights, their gradients and the update stay in
    float32, products and convolutions are computed in 16 bits, the loss in float32 again.

    fp16 has five bits of exponent, so that small gradients would become zero: the loss is scaled
    up before the backward pass and the gradients down after it (section 3.2); a step whose
    gradients overflow is left out, and the next ones are scaled less. bf16 has float32's exponent.
    """

    def __init__(self, backend: TorchConfig) -> None:
        self._device = torch.device(backend.device).type
        self._format = FORMATS.get(backend.precision)
        self._dtype = getattr(torch, backend.dtype)
        self._scaler = torch.amp.GradScaler(self._device) if backend.precision == "fp16" else None

    def autocast(self) -> AbstractContextManager[None]:
        """Within it, PyTorch picks the format of each operation."""
        if self._format is None:
            return FULL
        return torch.autocast(self._device, self._format)

    def restore(self, x: Tensor) -> Tensor:
        """x in the backend's own number type."""
        return x.to(self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, scaled until ``unscale``."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """The gradients as they are, for penalties and clipping."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def overflowed(self, optimizer: Optimizer) -> Tensor | None:
        """After ``unscale``: did a gradient overflow, so that ``step`` will do nothing? A truth
        value () on the device, by which to leave out what comes with the update; None without
        scaling. Penalties added since then change nothing about it: they are finite."""
        if self._scaler is None:
            return None
        (found,) = self._scaler._found_inf_per_device(optimizer).values()
        return found > 0  # type: ignore[no-any-return]

    def step(self, optimizer: Optimizer) -> None:
        """The update; left out if a gradient overflowed. Fused optimizers see to that on the
        device; for the others the scaler waits for it at every step."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()
