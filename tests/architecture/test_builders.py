"""The layers of named architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from nnopt import schema
from nnopt.architecture.builders import ACTIVATIONS, NORMS, build
from nnopt.architecture.layers import BatchNorm, Dense, Dropout, Flatten, LayerNorm, ReLU, Tanh
from nnopt.architecture.network import Architecture
from nnopt.schema import Config

MakeConfig = Callable[..., Config]


def mlp(
    make_config: MakeConfig,
    hidden: tuple[int, ...],
    shape: tuple[int, ...] = (2,),
    activation: Any = "relu",
    **regularizer: Any,
) -> Architecture:
    changes = {f"regularizer.{key}": value for key, value in regularizer.items()}
    config = make_config(**changes)
    architecture = schema.MlpConfig("mlp", hidden, activation)
    return build(architecture, config.regularizer, shape, 3)


def records(network: Architecture) -> list[Any]:
    return [layer.record for layer in network.layers]


def test_mlp_has_dense_layers_and_activations(make_config: MakeConfig) -> None:
    found = records(mlp(make_config, (8, 4)))
    assert found == [Dense(8), ReLU(), Dense(4), ReLU(), Dense("classes")]


def test_mlp_without_hidden_layers_is_logistic_regression(make_config: MakeConfig) -> None:
    assert records(mlp(make_config, ())) == [Dense("classes")]


def test_mlp_flattens_images(make_config: MakeConfig) -> None:
    network = mlp(make_config, (8,), shape=(3, 4, 4))
    assert records(network)[0] == Flatten()
    assert network.parameter_shapes()["dense1.weight"] == (8, 48)


def test_mlp_has_batch_norm_before_and_dropout_after_activation(make_config: MakeConfig) -> None:
    found = records(mlp(make_config, (8,), activation="tanh", norm="batch", dropout=0.3))
    assert found == [Dense(8, bias=False), BatchNorm(), Tanh(), Dropout(0.3), Dense("classes")]


def test_mlp_with_layer_norm_keeps_the_biases(make_config: MakeConfig) -> None:
    """Layer norm subtracts one mean over all units, so the biases of the units have an effect."""
    assert records(mlp(make_config, (8,), norm="layer"))[:2] == [Dense(8), LayerNorm()]


def test_mlp_with_every_activation_and_norm_is_built(make_config: MakeConfig) -> None:
    assert set(ACTIVATIONS) == set(get_args(schema.Activation))
    assert set(NORMS) == set(get_args(get_type_hints(schema.RegularizerConfig)["norm"]))
    for activation in ACTIVATIONS:
        for norm in NORMS:
            network = mlp(make_config, (8,), activation=activation, norm=norm)
            assert network.layers[-1].output_shape == (3,)


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)])
def test_listed_layers_are_parsed_and_flatten_of_flat_samples_is_omitted(
    make_config: MakeConfig, shape: tuple[int, ...]
) -> None:
    literal = schema.LayersConfig("layers", ("flatten", {"dense": 4}, "relu", {"dense": "classes"}))
    found = records(build(literal, make_config().regularizer, shape, 3))
    flattened = [Flatten()] if len(shape) > 1 else []
    assert found == [*flattened, Dense(4), ReLU(), Dense("classes")]
