"""Generated points in the plane: spiral arms, two half moons, two circles.

Training and test part have the same shape and different random streams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnopt.data.source import Decoded
from nnopt.random import generator
from nnopt.schema import SpiralConfig, TwoClassConfig

TWIST = 4.0  # turn of an arm from the centre to its end, in radians
INNER_RADIUS = 0.5  # of the smaller circle

Points = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Coordinates (M, 2) and class numbers (M,), class after class."""


def generate(config: SpiralConfig | TwoClassConfig) -> Decoded:
    """Generate the training and the test part."""
    if isinstance(config, SpiralConfig):
        names = tuple(f"arm {k + 1}" for k in range(config.classes))
        parts = {part: _spiral(config, part) for part in ("train", "test")}
    elif config.name == "moons":
        names = ("upper", "lower")
        parts = {part: _moons(config, part) for part in ("train", "test")}
    else:
        names = ("outer", "inner")
        parts = {part: _circles(config, part) for part in ("train", "test")}
    return Decoded(classes=names, parts=parts, sources={})


def _random(config: SpiralConfig | TwoClassConfig, part: str) -> np.random.Generator:
    return generator(config.seed, f"{config.name}/{part}")


def _spiral(config: SpiralConfig, part: str) -> Points:
    """Generate K arms: at radius r in (0, 1], arm k has the angle 2 pi k / K + 4 r + noise.

    Source: CS231n (Karpathy, "Minimal neural network case study").
    """
    radius = np.arange(1, config.samples_per_class + 1) / config.samples_per_class
    start = 2 * np.pi * np.arange(config.classes)[:, None] / config.classes
    noise = (
        _random(config, part).normal(0, 1, (config.classes, config.samples_per_class))
        * config.noise
    )
    angle = start + TWIST * radius + noise
    return _points([radius * np.sin(angle), radius * np.cos(angle)])


def _moons(config: TwoClassConfig, part: str) -> Points:
    """Generate the upper half of a unit circle, and a shifted lower half."""
    angle = np.linspace(0, np.pi, config.samples_per_class)
    x = np.stack([np.cos(angle), 1 - np.cos(angle)])
    y = np.stack([np.sin(angle), 0.5 - np.sin(angle)])
    return _points(_noisy(x, y, config, part))


def _circles(config: TwoClassConfig, part: str) -> Points:
    """Generate a unit circle and a concentric one with half the radius."""
    angle = 2 * np.pi * np.arange(config.samples_per_class) / config.samples_per_class
    radius = np.array([[1.0], [INNER_RADIUS]])
    return _points(_noisy(radius * np.cos(angle), radius * np.sin(angle), config, part))


def _noisy(
    x: NDArray[np.float64], y: NDArray[np.float64], config: TwoClassConfig, part: str
) -> NDArray[np.float64]:
    return np.stack([x, y]) + config.noise * _random(config, part).normal(0, 1, (2, *x.shape))


def _points(coordinates: list[NDArray[np.float64]] | NDArray[np.float64]) -> Points:
    """Convert coordinates (2, K, points) to points (M, 2) and their classes (M,)."""
    grid = np.asarray(coordinates)
    _, classes, points = grid.shape
    labels = np.repeat(np.arange(classes), points)
    return grid.reshape(2, -1).T.astype(np.float32, order="C"), labels
