"""Augmentation policies in PyTorch: torchvision's operations, chosen for each image.

Torchvision's classes draw one operation for all images of a call, so that each image needs a call.
Here, a batch needs few calls. If an operation only moves pixels, or maps each pixel value to
another value, torchvision computes a lookup table once, and one gather applies the tables of all
images. Any other operation is computed once for all images with the same operation and level. The
results equal torchvision's bit for bit.

This file imports torchvision, so it is imported only if the configuration has a policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional as F

from nnopt.data.policies import LEVELS, OPERATIONS, Policy

GEOMETRIC_OPERATIONS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""Operations that only move pixels. Pixels from outside of the image are black."""

VALUE_OPERATIONS = ("Brightness", "Posterize", "Solarize")
"""Operations that map each pixel value to another value."""

_GEOMETRIC, _VALUE, _IDENTITY = (
    np.array([OPERATIONS.index(name) for name in names])
    for names in (GEOMETRIC_OPERATIONS, VALUE_OPERATIONS, ("Identity",))
)

Setting = tuple[int, int]
"""The index of an operation in ``OPERATIONS``, and a level from -30 to 30."""


def magnitudes(policy: str, height: int, width: int) -> dict[str, list[float]]:
    """Return the magnitudes (31,) of each operation that has a magnitude, weakest first.

    Units: tangent of the angle (shear), pixels (translate), degrees (rotate), difference of the
    factor from 1 (brightness, color, contrast, sharpness), number of remaining bits (posterize),
    fraction of 255 above which values are inverted (solarize).
    """
    wide = policy == "trivial_augment"
    # Computed in float32 as in torchvision, because rounding can change the integer part.
    rising = {
        "ShearX": 0.99 if wide else 0.3,
        "ShearY": 0.99 if wide else 0.3,
        "TranslateX": 32.0 if wide else 150 / 331 * width,
        "TranslateY": 32.0 if wide else 150 / 331 * height,
        "Rotate": 135.0 if wide else 30.0,
        **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.99 if wide else 0.9),
    }
    lost_bits = torch.arange(LEVELS) / ((LEVELS - 1) / (6 if wide else 4))
    return {
        **{name: torch.linspace(0, most, LEVELS).tolist() for name, most in rising.items()},
        "Posterize": (8 - lost_bits).round().tolist(),
        "Solarize": torch.linspace(1, 0, LEVELS).tolist(),
    }


def _degrees(tangent: float) -> float:
    return math.degrees(math.atan(tangent))


FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "ShearX": lambda x, m: F.affine(x, 0.0, [0, 0], 1.0, [_degrees(m), 0.0], center=[0, 0]),
    "ShearY": lambda x, m: F.affine(x, 0.0, [0, 0], 1.0, [0.0, _degrees(m)], center=[0, 0]),
    "TranslateX": lambda x, m: F.affine(x, 0.0, [int(m), 0], 1.0, [0.0, 0.0]),
    "TranslateY": lambda x, m: F.affine(x, 0.0, [0, int(m)], 1.0, [0.0, 0.0]),
    "Rotate": lambda x, m: F.rotate(x, m),
    "Brightness": lambda x, m: F.adjust_brightness(x, 1 + m),
    "Color": lambda x, m: F.adjust_saturation(x, 1 + m),
    "Contrast": lambda x, m: F.adjust_contrast(x, 1 + m),
    "Sharpness": lambda x, m: F.adjust_sharpness(x, 1 + m),
    "Posterize": lambda x, m: F.posterize(x, int(m)),
    "Solarize": lambda x, m: F.solarize(x, 255 * m),
    "AutoContrast": lambda x, m: F.autocontrast(x),
    "Equalize": lambda x, m: F.equalize(x),
}
"""torchvision's operations on images (..., C, H, W) with 1 or 3 channels and a magnitude m. Images
are uint8. Geometric operations also accept other types."""


class PolicyOperations:
    """The operations of one policy on images of one size."""

    def __init__(self, policy: str, height: int, width: int, device: torch.device) -> None:
        self._magnitudes = magnitudes(policy, height, width)
        positions = torch.arange(1, height * width + 1, dtype=torch.float32, device=device)
        self._positions = positions.view(1, height, width)
        self._values = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 256)
        self._tables: dict[Setting, Tensor] = {}

    def apply(self, images: Tensor, policy: Policy, columns: slice) -> None:
        """Apply ``columns`` of ``policy``, one per image, to uint8 images (n, C, H, W) in place."""
        for operation, level in zip(policy.operation, policy.level, strict=True):
            self._apply(images, operation[columns], level[columns])

    def _apply(
        self, images: Tensor, operation: NDArray[np.int64], level: NDArray[np.int64]
    ) -> None:
        """Apply one operation to each image. ``operation`` and ``level`` have the shape (n,)."""
        is_geometric, is_value = np.isin(operation, _GEOMETRIC), np.isin(operation, _VALUE)
        is_other = ~(is_geometric | is_value | (operation == _IDENTITY))
        for chosen, change in (
            (is_geometric, self._move_pixels),
            (is_value, self._map_values),
            (is_other, self._apply_by_setting),
        ):
            if chosen.any():
                indices = np.flatnonzero(chosen)
                code = operation[indices] * 2 * LEVELS + level[indices] + LEVELS
                codes, counts = np.unique(code, return_counts=True)
                pairs = (divmod(x, 2 * LEVELS) for x in codes.tolist())
                settings = [(number, shifted - LEVELS) for number, shifted in pairs]
                rows = torch.from_numpy(indices[np.argsort(code)]).to(images.device)
                # The first counts[0] rows have the first setting, the next counts[1] the second.
                images[rows] = change(images[rows], settings, counts.tolist())

    def _move_pixels(self, images: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        sources = self._lookup_tables(self._positions, settings, counts).to(torch.int64)
        pixels = pad(images.flatten(2), (1, 0))  # position 0: any pixel outside
        return pixels.gather(2, sources[:, None].expand(-1, images.shape[1], -1)).view_as(images)

    def _map_values(self, images: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        tables = self._lookup_tables(self._values, settings, counts)
        return tables.gather(1, images.flatten(1).to(torch.int64)).view_as(images)

    def _apply_by_setting(
        self, images: Tensor, settings: list[Setting], counts: list[int]
    ) -> Tensor:
        groups = images.split(counts)  # type: ignore[no-untyped-call]
        return torch.cat([self._operate(x, s) for x, s in zip(groups, settings, strict=True)])

    def _lookup_tables(self, probe: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        """Apply the setting of each image to ``probe``, an image (1, H, W). Return (n, H·W)."""
        for setting in settings:
            if setting not in self._tables:
                result = self._operate(probe, setting).flatten()
                if result.is_floating_point():  # positions are integers, exact below 2²⁴
                    result = result.to(torch.int32)
                self._tables[setting] = result
        tables = torch.stack([self._tables[setting] for setting in settings])
        index = torch.from_numpy(np.repeat(np.arange(len(settings)), counts))
        return tables[index.to(tables.device)]

    def _operate(self, images: Tensor, setting: Setting) -> Tensor:
        operation, level = setting
        name = OPERATIONS[operation]
        magnitude = self._magnitudes[name][abs(level)] if name in self._magnitudes else 0.0
        return FUNCTIONS[name](images, -magnitude if level < 0 else magnitude)
