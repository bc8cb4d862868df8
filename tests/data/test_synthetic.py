"""Generated two-dimensional datasets."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import spiral_config

from nnopt.data.synthetic import generate
from nnopt.schema import TwoClassConfig, Validation


def two_class(name: str, noise: float = 0.0, seed: int = 0) -> TwoClassConfig:
    rule = Validation("none", 0.1)
    return TwoClassConfig(name, None, "none", rule, samples_per_class=100, noise=noise, seed=seed)  # type: ignore[arg-type]


def test_spiral_arms_are_rotations() -> None:
    points, labels = generate(spiral_config(noise=0.0, classes=4)).parts["train"]
    assert points.shape == (200, 2)
    assert points.dtype == np.float32
    assert np.bincount(labels).tolist() == [50] * 4
    radius = np.hypot(*points.T).reshape(4, 50)
    assert np.allclose(radius, np.arange(1, 51) / 50, atol=1e-6)
    # Arm k is arm 0 turned by k quarters of a circle (the angle is measured from the y axis).
    x, y = points.reshape(4, 50, 2)[0].T
    assert np.allclose(points[50:100], np.stack([y, -x], axis=1), atol=1e-6)


def test_moons_and_circles_satisfy_their_equations() -> None:
    points, labels = generate(two_class("moons")).parts["train"]
    upper, lower = points[labels == 0], points[labels == 1]
    assert np.allclose(np.hypot(*upper.T), 1, atol=1e-6)
    assert np.allclose(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), 1, atol=1e-6)
    assert upper[:, 1].min() >= -1e-6
    assert lower[:, 1].max() <= 0.5 + 1e-6
    points, labels = generate(two_class("circles")).parts["test"]
    assert np.allclose(np.hypot(*points.T), np.where(labels == 0, 1, 0.5), atol=1e-6)


@pytest.mark.parametrize("name", ["moons", "circles"])
def test_noise_has_the_configured_deviation(name: str) -> None:
    noise = (
        generate(two_class(name, noise=0.1)).parts["train"][0]
        - generate(two_class(name)).parts["train"][0]
    )
    assert 0.08 < noise.std() < 0.12


def test_generated_points_depend_on_seed_and_part() -> None:
    one, again, other = (generate(spiral_config(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(one.parts["train"][0], again.parts["train"][0])
    assert not np.array_equal(one.parts["train"][0], one.parts["test"][0])
    assert not np.array_equal(one.parts["train"][0], other.parts["train"][0])
