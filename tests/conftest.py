"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nnopt import schema
from nnopt.schema import Config

OPTIMIZER_DEFAULTS: dict[str, schema.OptimizerVariant] = {
    "sgd": schema.SgdConfig("sgd", lr=0.1),
    "momentum": schema.MomentumConfig("momentum", lr=0.1, momentum=0.9),
    "nesterov": schema.MomentumConfig("nesterov", lr=0.1, momentum=0.9),
    "rmsprop": schema.RmspropConfig("rmsprop", lr=1e-3, rho=0.99, epsilon=1e-8),
    "adagrad": schema.AdagradConfig("adagrad", lr=1e-2, epsilon=1e-10),
    "adam": schema.AdamConfig("adam", lr=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8),
    "adamw": schema.AdamConfig("adamw", lr=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8),
}


def plain_config() -> Config:
    """The configuration of ``nnopt run`` with no arguments, written out without Hydra."""
    return Config(
        name="test",
        seed=0,
        epochs=60,
        steps=None,
        batch_size=32,
        last_batch="keep",
        loss="cross_entropy",
        test_weights="best",
        plots=True,
        dataset=schema.SpiralConfig(
            name="spiral",
            subset=None,
            normalization="none",
            validation=schema.Validation("train", 0.2),
            classes=3,
            points=100,
            noise=0.2,
            seed=0,
        ),
        data=schema.DataConfig(root="data", cache="data/cache", download=False),
        backend=schema.NumpyConfig("numpy", "float32", "cpu", None, False),
        architecture=schema.MlpConfig("mlp", hidden=(64,), activation="relu"),
        regularizer=schema.RegularizerConfig(
            l1=0.0,
            l2=0.0,
            weight_decay=None,
            dropout=0.0,
            norm="none",
            label_smoothing=0.0,
            grad_clip=0.0,
            decay_all=False,
            augmentation=schema.AugmentationConfig(crop=0, flip=False),
        ),
        optimizer=OPTIMIZER_DEFAULTS["momentum"],
        schedule=schema.ConstantConfig("constant", warmup=0),
        initializer=schema.InitializerConfig("he_normal", "lecun_normal"),
        early_stopping=schema.EarlyStoppingConfig(None, "epochs", None, 0.0, "accuracy"),
    )


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """The configuration with some values changed, by dotted key.

    ``optimizer`` may be a name, for that optimizer with its defaults, and so may ``backend``.
    """
    for key, value in overrides.items():
        group, _, inner = key.partition(".")
        if key == "optimizer" and isinstance(value, str):
            value = OPTIMIZER_DEFAULTS[value]
        elif key == "backend" and isinstance(value, str):
            kind = schema.TorchConfig if value == "torch" else schema.NumpyConfig
            value = kind(value, "float32", "cpu", None, False)  # type: ignore[arg-type]
        elif inner:
            value = replace(getattr(config, group), **{inner: value})
        config = replace(config, **{group: value})
    return config


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """``make_config(optimizer="adam", **{"backend.dtype": "float64"})``: the defaults with changes,
    applied in the order given."""
    return lambda **overrides: with_overrides(plain_config(), overrides)
