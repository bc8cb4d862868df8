"""Dropout whose masks are a function of seed, layer and step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnopt.random import DropoutMasks, generator
from nnopt.schema import Config

MOST_STEPS = 2**26
"""Few trainings take more, and of a seed PyTorch's generator on a CPU heeds 32 bits."""


class DeviceMasks:
    """Dropout masks drawn on the device, as a pure function of (seed, layer, step).

    ``torch.nn.Dropout`` draws from the process's one generator: two networks would disturb each
    other, and a resumed run would need its state. It also takes a whole random number for each
    unit; here 16 bits decide, as in ``nnopt.random.DropoutMasks``, at a third of the time.
    """

    def __init__(self, seed: int, layer: str, rate: float, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._first = int(generator(seed, f"dropout/torch/{layer}").integers(2**62))
        kept = min(max(round((1 - rate) * 65536), 1), 65535)
        self._threshold = kept - 32768  # the 16 bits are read as a number from -32768 to 32767
        self.scale = 65536 / kept

    def draw(self, step: int, shape: torch.Size) -> Tensor:
        """True where a unit is kept, in a tensor of ``shape``."""
        self._generator.manual_seed(self._first + step)
        count = shape.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._generator.device)
        words.random_(-(2**63), None, generator=self._generator)
        return words.view(torch.int16)[:count].view(shape) < self._threshold


class Dropout(nn.Module):
    """x · keep · scale in training, x in evaluation. Whoever trains calls ``begin`` before.

    A module that is used several times in a step draws for each use.

    axes: so many of the first axes are drawn for, and what lies behind them shares the outcome: 2
    keeps or drops whole channels (N, C) of images, 1 whole samples. None is all axes.
    """

    def __init__(self, masks: DropoutMasks | DeviceMasks, axes: int | None = None) -> None:
        super().__init__()
        self._masks = masks
        self._axes = axes
        self.begin(0)

    def begin(self, step: int) -> None:
        """From here on it is this step."""
        self._step, self._uses = step, 0

    def forward(self, x: Tensor) -> Tensor:
        return (x * self._factor(x)).to(x.dtype) if self.training else x

    # PyTorch would compile this function again at every step, because the step number changes.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _factor(self, x: Tensor) -> Tensor:
        """scale where a unit is kept, else 0, in a shape that multiplies x; in float32 at least,
        for 16 bits would round the scale, and so shift the mean of what follows."""
        shape = x.shape[: self._axes]
        draw = self._step + self._uses * MOST_STEPS
        self._uses += 1
        keep = torch.as_tensor(self._masks.draw(draw, shape), device=x.device)
        factor = keep.to(torch.promote_types(x.dtype, torch.float32)).mul_(self._masks.scale)
        return factor.view(*shape, *(1,) * (x.ndim - len(shape)))


def dropout(name: str, rate: float, config: Config, axes: int | None = None) -> nn.Module:
    """Dropout of the layer so named, with the configured kind of masks. axes: see ``Dropout``."""
    if not rate:
        return nn.Identity()
    if config.backend.shared_masks:
        return Dropout(DropoutMasks(config.seed, name, rate), axes)
    return Dropout(DeviceMasks(config.seed, name, rate, torch.device(config.backend.device)), axes)
