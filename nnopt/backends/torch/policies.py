"""Policies of augmentation in PyTorch: torchvision's operations, each image with its own.

Torchvision's classes draw once for all images they are given, which for a batch means to call them
image by image. Here a batch takes few calls: where an operation only moves pixels, or maps each
pixel's value to another, torchvision is asked once what goes where, and all images are looked up
together; the others are computed by torchvision for all images at once that share operation and
strength. What comes out is torchvision's, to the bit.

This file imports torchvision, and is imported only once a configuration asks for a policy.
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

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""Every pixel of the result is one of the image, or black where it comes from outside."""

TONES = ("Brightness", "Posterize", "Solarize")
"""Every pixel's value is a function of that pixel's value alone."""

_MOVES, _TONES, _IDENTITY = (
    np.array([OPERATIONS.index(name) for name in names]) for names in (MOVES, TONES, ("Identity",))
)

Setting = tuple[int, int]
"""An operation, as index into ``OPERATIONS``, and a level, -30..30."""

Change = Callable[[Tensor, list[Setting], list[int]], Tensor]
"""Of images (n, C, H, W), the first ``counts[0]`` of which have the first setting, and so on."""


def magnitudes(policy: str, height: int, width: int) -> dict[str, list[float]]:
    """Operation -> its magnitudes (31,) for images of so many pixels, weakest first.

    Shear: tangent of the angle; translate: pixels; rotate: degrees; brightness, color, contrast,
    sharpness: what the factor differs from 1 by; posterize: bits that are kept; solarize: the share
    of 255 from which on values are inverted.
    """
    wide = policy == "trivial_augment"
    # In float32, as torchvision computes them: a whole number is hit or missed by a rounding.
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


def operate(images: Tensor, name: str, magnitude: float) -> Tensor:
    """One operation on images (..., C, H, W) with C 1 or 3, by torchvision; all but moves need
    uint8. Where an image is moved away it is black, 0."""
    changed: Tensor
    match name:
        case "ShearX" | "ShearY":
            angle = math.degrees(math.atan(magnitude))
            shear = [angle, 0.0] if name == "ShearX" else [0.0, angle]
            changed = F.affine(images, 0.0, [0, 0], 1.0, shear, center=[0, 0])
        case "TranslateX" | "TranslateY":
            pixels = int(magnitude)
            move = [pixels, 0] if name == "TranslateX" else [0, pixels]
            changed = F.affine(images, 0.0, move, 1.0, [0.0, 0.0])
        case "Rotate":
            changed = F.rotate(images, magnitude)
        case "Brightness":
            changed = F.adjust_brightness(images, 1 + magnitude)
        case "Color":
            changed = F.adjust_saturation(images, 1 + magnitude)
        case "Contrast":
            changed = F.adjust_contrast(images, 1 + magnitude)
        case "Sharpness":
            changed = F.adjust_sharpness(images, 1 + magnitude)
        case "Posterize":
            changed = F.posterize(images, int(magnitude))
        case "Solarize":
            changed = F.solarize(images, 255 * magnitude)
        case "AutoContrast":
            changed = F.autocontrast(images)
        case "Equalize":
            changed = F.equalize(images)
        case _:
            raise ValueError(f"no operation {name!r}")
    return changed


class PolicyOperations:
    """The operations of one policy on images of one size."""

    def __init__(self, policy: str, height: int, width: int, device: torch.device) -> None:
        self._magnitudes = magnitudes(policy, height, width)
        positions = torch.arange(1, height * width + 1, dtype=torch.float32, device=device)
        self._positions = positions.view(1, height, width)
        self._values = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 256)
        self._known: dict[Setting, Tensor] = {}

    def apply(self, images: Tensor, policy: Policy, window: slice) -> None:
        """Change images (n, C, H, W) uint8 in place; window: their columns of ``policy``."""
        for operation, level in zip(policy.operation, policy.level, strict=True):
            self._apply(images, operation[window], level[window])

    def _apply(
        self, images: Tensor, operation: NDArray[np.int64], level: NDArray[np.int64]
    ) -> None:
        """One operation on each image: operation, level (n,)."""
        is_move, is_tone = np.isin(operation, _MOVES), np.isin(operation, _TONES)
        is_other = ~(is_move | is_tone | (operation == _IDENTITY))
        kinds: tuple[tuple[NDArray[np.bool_], Change], ...] = (
            (is_move, self._moved),
            (is_tone, self._toned),
            (is_other, self._computed),
        )
        for chosen, change in kinds:
            if chosen.any():
                indices = np.flatnonzero(chosen)
                code = operation[indices] * 2 * LEVELS + level[indices] + LEVELS
                codes, counts = np.unique(code, return_counts=True)
                settings = [
                    (number, shifted - LEVELS)
                    for number, shifted in (divmod(x, 2 * LEVELS) for x in codes.tolist())
                ]
                rows = torch.from_numpy(indices[np.argsort(code)]).to(images.device)
                images[rows] = change(images[rows], settings, counts.tolist())

    def _moved(self, images: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        """Each pixel fetched from where torchvision fetches it from."""
        sources = self._looked_up(self._positions, settings, counts).to(torch.int64)
        pixels = pad(images.flatten(2), (1, 0))  # position 0 is outside
        return pixels.gather(2, sources[:, None].expand(-1, images.shape[1], -1)).view_as(images)

    def _toned(self, images: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        """Each pixel's value replaced by what torchvision makes of that value."""
        tables = self._looked_up(self._values, settings, counts)
        return tables.gather(1, images.flatten(1).to(torch.int64)).view_as(images)

    def _computed(self, images: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        groups = images.split(counts)  # type: ignore[no-untyped-call]
        return torch.cat([self._operate(x, s) for x, s in zip(groups, settings, strict=True)])

    def _looked_up(self, probe: Tensor, settings: list[Setting], counts: list[int]) -> Tensor:
        """What each image's setting makes of a probe (1, H, W), which shows what goes where:
        (n, H·W). Asked of torchvision once for each setting."""
        for setting in settings:
            if setting not in self._known:
                result = self._operate(probe, setting).flatten()
                if result.is_floating_point():  # positions: whole numbers, exact below 2²⁴
                    result = result.to(torch.int32)
                self._known[setting] = result
        known = torch.stack([self._known[setting] for setting in settings])
        which = torch.from_numpy(np.repeat(np.arange(len(settings)), counts))
        return known[which.to(known.device)]

    def _operate(self, images: Tensor, setting: Setting) -> Tensor:
        operation, level = setting
        name = OPERATIONS[operation]
        magnitude = self._magnitudes[name][abs(level)] if name in self._magnitudes else 0.0
        return operate(images, name, -magnitude if level < 0 else magnitude)
