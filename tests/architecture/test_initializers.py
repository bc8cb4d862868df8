"""Initial weights: variance, random streams, and the output layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nnopt import schema
from nnopt.architecture.initializers import INITIALIZERS, initial_arrays
from nnopt.architecture.network import infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.random import generator

SHAPE = (400, 250)  # (outputs, inputs)
VARIANCES = {
    "he_normal": 2 / 250,
    "he_uniform": 2 / 250,
    "glorot_normal": 2 / 650,
    "glorot_uniform": 2 / 650,
    "lecun_normal": 1 / 250,
    "lecun_uniform": 1 / 250,
    "normal": 1.0,
    "uniform": 1 / 12,
}


PLAIN = schema.InitializerConfig("he_normal", "lecun_normal", None, 1.0, 1.0, 0.0, 1.0)


def test_initializers_have_the_names_in_the_schema() -> None:
    assert set(INITIALIZERS) == set(get_args(schema.Initializer)) == {*VARIANCES, "zeros"}


@pytest.mark.parametrize("name", VARIANCES)
def test_initializers_have_mean_and_variance_of_the_formula(name: str) -> None:
    weights = INITIALIZERS[name](generator(0, "test"), SHAPE, PLAIN)
    variance, middle = VARIANCES[name], 0.5 if name == "uniform" else 0.0
    count = math.prod(SHAPE)
    assert abs(weights.mean() - middle) < 4 * math.sqrt(variance / count)
    # The relative standard error of the variance is √(2 / 100,000) = 0.0045.
    assert weights.var() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("name", VARIANCES)
def test_initializers_have_the_distribution_of_their_name(name: str) -> None:
    """The fourth moment is 3 σ⁴ for a normal and 1.8 σ⁴ for a uniform distribution."""
    weights = INITIALIZERS[name](generator(0, "test"), SHAPE, PLAIN)
    z = (weights - weights.mean()) / weights.std()
    if "uniform" in name:
        assert np.mean(z**4) == pytest.approx(1.8, rel=0.03)
        assert abs(z).max() <= math.sqrt(3) * 1.01
    else:
        assert np.mean(z**4) == pytest.approx(3, rel=0.03)
        assert abs(z).max() > 4


@pytest.mark.parametrize("std", [0.01, 3.0])
def test_normal_initializer_has_the_configured_standard_deviation(std: float) -> None:
    plain = INITIALIZERS["normal"](generator(0, "test"), SHAPE, PLAIN)
    weights = INITIALIZERS["normal"](generator(0, "test"), SHAPE, replace(PLAIN, std=std))
    assert weights.std() == pytest.approx(std, rel=0.02)
    assert_array_equal(weights, std * plain)


def test_uniform_initializer_has_the_configured_bounds() -> None:
    config = replace(PLAIN, low=-0.5, high=0.25)
    weights = INITIALIZERS["uniform"](generator(0, "test"), SHAPE, config)
    assert -0.5 <= weights.min() < -0.4999
    assert 0.2499 < weights.max() < 0.25
    assert weights.mean() == pytest.approx(-0.125, abs=0.003)


@pytest.mark.parametrize("name", ["he_normal", "glorot_uniform", "normal", "uniform", "zeros"])
def test_scale_multiplies_the_weights_of_all_layers_and_nothing_else(name: str) -> None:
    layers = [{"dense": 5}, "batch_norm", "layer_norm", {"dense": 5}, {"dense": "classes"}]
    plain, scaled = (arrays(layers, name, name, scale=scale) for scale in (1.0, 0.3))
    for key, array in plain.items():
        is_weight = key.startswith("dense") and key.endswith("weight")
        assert_array_equal(scaled[key], 0.3 * array if is_weight else array, err_msg=key)


def test_scale_multiplies_outputs_of_a_relu_network_by_a_power() -> None:
    """A network of three layers without biases is homogeneous of degree 3 in its weights."""
    layers = [{"dense": 7}, "relu", {"dense": 5}, "relu", {"dense": "classes"}]
    x = np.random.default_rng(0).standard_normal((9, 6))
    outputs = []
    for scale in (1.0, 3.0):
        found, y = arrays(layers, scale=scale), x
        for name in ("dense1", "dense2"):
            y = np.maximum(y @ found[f"{name}.weight"].T, 0)
        outputs.append(y @ found["dense3.weight"].T)
    np.testing.assert_allclose(outputs[1], 27 * outputs[0], rtol=1e-12)


def test_scale_multiplies_kernels_of_convolutions() -> None:
    layers = [{"conv2d": 3}, "flatten", {"dense": "classes"}]
    network = infer_shapes(parse_layers(layers), (2, 4, 4), 4)
    plain, scaled = (initial_arrays(network, replace(PLAIN, scale=x), 0) for x in (1.0, 4.0))
    assert_array_equal(scaled["conv2d1.weight"], 4 * plain["conv2d1.weight"])
    assert_array_equal(scaled["conv2d1.bias"], 0)


def test_uniform_initializer_is_between_zero_and_one() -> None:
    weights = INITIALIZERS["uniform"](generator(0, "test"), SHAPE, PLAIN)
    assert 0 <= weights.min() < weights.max() < 1


def test_fan_in_of_conv_includes_the_window() -> None:
    weights = INITIALIZERS["he_normal"](generator(0, "test"), (64, 20, 3, 5), PLAIN)
    assert weights.var() == pytest.approx(2 / (20 * 15), rel=0.05)
    weights = INITIALIZERS["glorot_uniform"](generator(0, "test"), (64, 20, 3, 5), PLAIN)
    assert weights.var() == pytest.approx(2 / (84 * 15), rel=0.05)


def arrays(
    layers: list[Any],
    hidden: Any = "he_normal",
    output: Any = "lecun_normal",
    seed: int = 0,
    **changes: float,
) -> dict[str, np.ndarray]:
    network = infer_shapes(parse_layers(layers), (6,), 4)
    config = replace(PLAIN, hidden=hidden, output=output, **changes)
    return initial_arrays(network, config, seed)


def test_initial_biases_norm_parameters_and_statistics_are_zeros_or_ones() -> None:
    found = arrays([{"dense": 5}, "batch_norm", "layer_norm", {"dense": "classes"}])
    for name, array in found.items():
        assert array.dtype == np.float64
        if name.startswith("dense") and name.endswith("weight"):
            assert array.std() > 0
        else:
            value = 1 if name.endswith(("weight", "running_var")) else 0
            assert_array_equal(array, np.full(array.shape, value))


def test_initial_slopes_of_prelu_are_those_of_the_layer() -> None:
    layers = [{"dense": 4}, "prelu", {"prelu": {"init": -0.5, "per_channel": True}}]
    found = arrays([*layers, {"dense": "classes"}])
    assert_array_equal(found["prelu1.weight"], [0.25])
    assert_array_equal(found["prelu2.weight"], np.full(4, -0.5))


def test_output_layer_uses_output_initializer() -> None:
    layers = [{"dense": 5}, "relu", {"dense": 5}, "relu", {"dense": "classes"}]
    found = arrays(layers, hidden="normal", output="zeros")
    assert_array_equal(found["dense3.weight"], 0)
    assert found["dense1.weight"].std() > 0.5
    assert found["dense2.weight"].std() > 0.5
    assert_array_equal(arrays(layers, "zeros", "normal")["dense1.weight"], 0)


def test_initial_weights_do_not_depend_on_other_layers() -> None:
    short = arrays([{"dense": 6}, "relu", {"dense": "classes"}])
    longer = arrays(
        ["layer_norm", {"dense": 6}, "tanh", {"residual": [{"dense": 6}]}, {"dense": "classes"}]
    )
    assert_array_equal(short["dense1.weight"], longer["dense1.weight"])
    assert_array_equal(short["dense2.weight"], longer["dense2.weight"])
    assert (longer["residual1.dense1.weight"] != longer["dense1.weight"]).any()


def test_initial_weights_depend_on_seed_and_layer() -> None:
    layers = [{"dense": 6}, {"dense": 6}, {"dense": "classes"}]
    found, other = arrays(layers), arrays(layers, seed=1)
    assert (found["dense1.weight"] != found["dense2.weight"]).any()
    assert (found["dense1.weight"] != other["dense1.weight"]).any()
    assert_array_equal(found["dense1.weight"], arrays(layers)["dense1.weight"])
