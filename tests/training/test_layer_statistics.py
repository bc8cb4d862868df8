"""Layer statistics accumulated over batches equal statistics computed from all samples at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnopt.architecture.network import infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.schema import Config
from nnopt.training.layer_statistics import (
    MAX_PROBE_SAMPLES,
    RunningMoments,
    layer_rows,
    select_probe,
    update_ratios,
)

MakeConfig = Callable[..., Config]
SHAPE = (2, 5, 4)
LAYERS: list[Any] = [{"conv2d": 4}, "relu", "batch_norm", "flatten", {"dense": "classes"}]
DEAD = 1
"""Index of a channel whose outputs are all negative, because of its bias."""


def part_of(count: int) -> Part:
    rng = np.random.default_rng(count)
    inputs = rng.integers(0, 256, (2 * count, *SHAPE), dtype=np.uint8)
    return Part(inputs, rng.integers(0, 3, 2 * count), np.arange(1, 2 * count, 2))


def dataset_of(train: Part, validation: Part | None) -> Dataset:
    scaling = Normalization(np.full(2, 1 / 255), np.zeros(2))
    return Dataset("made", ("a", "b", "c"), train, validation, train, scaling, {})


@pytest.mark.parametrize("shape", [(70, 3), (70, 3, 4, 5)])
def test_running_moments_of_batches_equal_moments_of_all_samples(shape: tuple[int, ...]) -> None:
    """The mean is so large that E[y²] - E[y]² would lose every digit."""
    y = 1e8 + np.random.default_rng(0).standard_normal(shape)
    moments = RunningMoments()
    for batch in np.array_split(y, [1, 30, 55]):
        moments.add(batch)
    assert moments.mean == pytest.approx(y.mean(), rel=1e-15)
    assert moments.std == pytest.approx(y.std(), rel=1e-6)


def test_unit_that_is_always_zero_is_counted_as_dead() -> None:
    moments = RunningMoments()
    moments.add(np.array([[0.0, 0.0, 1.0, 0.0]]))
    moments.add(np.array([[0.0, 2.0, 0.0, 0.0]]))
    assert moments.dead_fraction == 0.5
    images = RunningMoments()
    image = np.zeros((2, 4, 3, 3))
    image[1, 2, 0, 2] = 1e-30
    images.add(image)
    assert images.dead_fraction == 0.75


def test_probe_is_a_fixed_subset_of_the_validation_data() -> None:
    train, validation = part_of(10), part_of(1000)
    probe = select_probe(dataset_of(train, validation))
    assert len(probe) == MAX_PROBE_SAMPLES
    assert len(set(probe.rows)) == MAX_PROBE_SAMPLES
    assert set(probe.rows) <= set(validation.rows)
    assert (probe.rows[0], probe.rows[-1]) == (validation.rows[0], validation.rows[-1])
    assert (select_probe(dataset_of(train, validation)).rows == probe.rows).all()
    assert (select_probe(dataset_of(train, None)).rows == train.rows).all()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_layer_rows_equal_statistics_of_outputs_and_gradients(
    make_config: MakeConfig, backend: str
) -> None:
    config = make_config(backend=backend, **{"backend.dtype": "float64"})
    architecture = infer_shapes(parse_layers(LAYERS), SHAPE, 3)
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        name: rng.standard_normal(shape) for name, shape in architecture.parameter_shapes().items()
    }
    arrays |= {name: np.ones(shape) for name, shape in architecture.statistic_shapes().items()}
    arrays["conv2d1.bias"][DEAD] = -1e3
    network = load_backend(backend).build_network(architecture, config)
    network.load(arrays)
    dataset = dataset_of(part_of(50), None)

    loader = load_backend(backend).build_loader(dataset.train, dataset.normalization, config)
    rows = layer_rows(network, architecture, loader, 7, {})
    assert {row.gradient_std for row in rows} == {0.0, None}, (
        "a gradient is not 0 before the first step"
    )
    (x,) = loader.evaluation_batches()
    y = x.astype(np.int64)[:, 0, 0, 0] % 3 if backend == "numpy" else (x[:, 0, 0, 0] % 3).long()
    network.train_step(x, y, 0.01, 0)
    after = network.arrays()
    rows = layer_rows(network, architecture, loader, 7, update_ratios(arrays, after))

    names = ["conv2d1", "relu1", "batch_norm1", "flatten1", "dense1"]
    assert [(row.epoch, row.layer) for row in rows] == [(7, name) for name in names]
    outputs, gradients = network.layer_outputs(x), network.gradient_arrays()
    for row in rows:
        assert row.activation_mean == pytest.approx(outputs[row.layer].mean(), rel=1e-10)
        assert row.activation_std == pytest.approx(outputs[row.layer].std(), rel=1e-10)
        assert row.dead_fraction == (0.25 if row.layer == "relu1" else None)
        gradient = gradients.get(f"{row.layer}.weight")
        if gradient is None:
            assert row.gradient_mean is row.gradient_std is None
            assert row.weight_norm is row.update_ratio is None
        else:
            assert row.gradient_mean == pytest.approx(gradient.mean(), rel=1e-10)
            assert row.gradient_std == pytest.approx(gradient.std(), rel=1e-10)
            assert row.gradient_std
            old, new = (x[f"{row.layer}.weight"].ravel().tolist() for x in (arrays, after))
            assert row.weight_norm == pytest.approx(math.hypot(*new), rel=1e-12)
            change = math.hypot(*(w - v for v, w in zip(old, new, strict=True)))
            assert row.update_ratio == pytest.approx(change / math.hypot(*old), rel=1e-10)
            assert row.update_ratio


def test_update_ratio_of_zero_weights_is_missing() -> None:
    before = {"a.weight": np.zeros(3), "b.weight": np.array([3.0, 4.0]), "b.bias": np.ones(1)}
    after = {"a.weight": np.ones(3), "b.weight": np.array([3.0, 4.5]), "b.bias": np.zeros(1)}
    assert update_ratios(before, after) == {"a.weight": None, "b.weight": pytest.approx(0.1)}


def test_update_ratio_of_float32_weights_is_computed_in_float64() -> None:
    """The squares of these weights overflow in float32, and the squares of the change vanish."""
    before = {"a.weight": np.array([1e25, 0.0], np.float32)}
    after = {"a.weight": np.array([1e25, 1e-25], np.float32)}
    assert update_ratios(before, after) == {"a.weight": pytest.approx(1e-50)}
