"""Generated points in the plane: spiral arms, two half moons, two circles.

The training and test points lie on the same curves, with noise from different random streams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnopt.data.source import Decoded
from nnopt.random import generator
from nnopt.schema import SpiralConfig, TwoClassConfig

TWIST = 4.0  # turn of an arm from the centre to its end, in radians
INNER_RADIUS = 0.5  # of the smaller circle

Points = NDArray[np.float64]  # coordinates (2, K, n) of n points of each class


def generate(config: SpiralConfig | TwoClassConfig) -> Decoded:
    """Generate the training and the test part."""
    parts, names = {}, class_names(config)
    for part in ("train", "test"):
        random = generator(config.seed, f"{config.name}/{part}")
        if isinstance(config, SpiralConfig):
            points = _spiral(config, random)
        else:
            is_moons, count = config.name == "moons", config.samples_per_class
            points = _moons(count) if is_moons else _circles(count)
            points += config.noise * random.normal(0, 1, points.shape)
        coordinates = points.reshape(2, -1).T.astype(np.float32, order="C")
        parts[part] = coordinates, np.repeat(np.arange(len(names)), config.samples_per_class)
    return Decoded(classes=names, parts=parts, sources={})


def class_names(config: SpiralConfig | TwoClassConfig) -> tuple[str, ...]:
    """Return the names of the classes."""
    if isinstance(config, SpiralConfig):
        return tuple(f"arm {k + 1}" for k in range(config.classes))
    return ("upper", "lower") if config.name == "moons" else ("outer", "inner")


def part_sizes(config: SpiralConfig | TwoClassConfig) -> dict[str, int]:
    """Return the number of generated points of each part."""
    return dict.fromkeys(("train", "test"), len(class_names(config)) * config.samples_per_class)


def _spiral(config: SpiralConfig, random: np.random.Generator) -> Points:
    """Generate K arms: at radius r in (0, 1], arm k has the angle 2 pi k / K + 4 r + noise.

    Source: CS231n (Karpathy, "Minimal neural network case study").
    """
    radius = np.arange(1, config.samples_per_class + 1) / config.samples_per_class
    start = 2 * np.pi * np.arange(config.classes)[:, None] / config.classes
    noise = random.normal(0, 1, (config.classes, config.samples_per_class)) * config.noise
    angle = start + TWIST * radius + noise
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)])


def _moons(count: int) -> Points:
    """Generate the upper half of a unit circle, and a shifted lower half."""
    angle = np.linspace(0, np.pi, count)
    x, y = np.cos(angle), np.sin(angle)
    return np.array([[x, 1 - x], [y, 0.5 - y]])


def _circles(count: int) -> Points:
    """Generate a unit circle and a concentric one with half the radius."""
    angle = 2 * np.pi * np.arange(count) / count
    radius = np.array([[1.0], [INNER_RADIUS]])
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)])
