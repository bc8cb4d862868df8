"""Dropout with masks that are a function of seed, layer and step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnopt.random import DropoutMasks, generator
from nnopt.schema import Config

MAX_STEPS = 2**26
"""Difference between the seeds of two uses of a module in the same step. Few trainings have as many
steps. A larger value would allow fewer uses: on a CPU, PyTorch uses only 32 bits of a seed."""


class DeviceMasks:
    """Dropout masks drawn on the device, as a pure function of (seed, layer, step).

    With the generator of the process, as in ``torch.nn.Dropout``, the masks would depend on other
    networks, and a resumed run would need the generator's state. Drawing 16 random bits
    for each unit, as in ``nnopt.random.DropoutMasks``, takes a third of the time of a float.
    """

    def __init__(self, seed: int, layer: str, rate: float, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._first = int(generator(seed, f"dropout/torch/{layer}").integers(2**62))
        kept = min(max(round((1 - rate) * 65536), 1), 65535)
        self._threshold = kept - 32768  # the 16 bits are read as a number from -32768 to 32767
        self.scale = 65536 / kept

    def draw(self, step: int, shape: torch.Size) -> Tensor:
        """Return a boolean tensor of ``shape``, which is True where a unit is kept."""
        self._generator.manual_seed(self._first + step)
        count = shape.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._generator.device)
        bits.random_(-(2**63), None, generator=self._generator)
        return bits.view(torch.int16)[:count].view(shape) < self._threshold


class Dropout(nn.Module):
    """Inverted dropout. ``set_step`` is called before every step and determines the masks.

    A mask has the first ``axes`` axes of the input, or all if ``axes`` is None, and is repeated
    along the other axes. ``axes=2`` drops whole channels of images (N, C, H, W), ``axes=1`` drops
    whole samples. A module that is used several times in a step draws a mask for each use.
    """

    def __init__(self, masks: DropoutMasks | DeviceMasks, axes: int | None = None) -> None:
        super().__init__()
        self._masks = masks
        self._axes = axes
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Set the step that determines the masks."""
        self._step, self._uses = step, 0

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor with the shape and type of x."""
        return (x * self._factor(x)).to(x.dtype) if self.training else x

    # PyTorch would compile this function again at every step, because the step number changes.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _factor(self, x: Tensor) -> Tensor:
        """Return the mask times the scale, in a shape that can be broadcast to the shape of x."""
        shape = x.shape[: self._axes]
        draw = self._step + self._uses * MAX_STEPS
        self._uses += 1
        keep = torch.as_tensor(self._masks.draw(draw, shape), device=x.device)
        dtype = torch.promote_types(x.dtype, torch.float32)  # a 16-bit type would round the scale
        factor = keep.to(dtype).mul_(self._masks.scale)
        return factor.view(*shape, *(1,) * (x.ndim - len(shape)))


def build_dropout(name: str, rate: float, config: Config, axes: int | None = None) -> nn.Module:
    """Return the dropout of layer ``name``. With backend.shared_masks, its masks equal NumPy's."""
    if not rate:
        return nn.Identity()
    if config.backend.shared_masks:
        return Dropout(DropoutMasks(config.seed, name, rate), axes)
    return Dropout(DeviceMasks(config.seed, name, rate, torch.device(config.backend.device)), axes)
