"""The learning-rate curves of both backends in float64 with shared dropout masks."""

from __future__ import annotations

import numpy as np
import pytest

from nnopt.config.compose import compose_config
from nnopt.recipe.prepare import prepare
from nnopt.recipe.start_weights import initial_weights
from nnopt.training.lr_finder import LrRangeTest, LrSuggestion, suggest_learning_rate

OVERRIDES = [
    "dataset.samples_per_class=60",
    "architecture.hidden=[16]",
    "architecture.activation=tanh",
    "backend.dtype=float64",
    "backend.shared_masks=true",
    "regularizer.dropout=0.2",
    "regularizer.norm=batch",
    "regularizer.l2=1e-3",
]


def suggestion_of(backend: str, *overrides: str) -> LrSuggestion:
    config = compose_config([f"backend={backend}", *OVERRIDES, *overrides])
    prepared = prepare(config)
    sweep = LrRangeTest(1e-4, 1.0, 120)
    initial = initial_weights(config, prepared.architecture, prepared.dataset)
    return suggest_learning_rate(config, prepared.dataset, prepared.architecture, sweep, initial)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_lr_finder_curves_agree_between_backends(optimizer: str) -> None:
    by_numpy = suggestion_of("numpy", f"optimizer={optimizer}")
    by_torch = suggestion_of("torch", f"optimizer={optimizer}")
    np.testing.assert_array_equal(by_torch.curve.rates, by_numpy.curve.rates)
    np.testing.assert_allclose(by_torch.curve.losses, by_numpy.curve.losses, rtol=1e-9)
    np.testing.assert_allclose(by_torch.curve.smoothed, by_numpy.curve.smoothed, rtol=1e-9)
    assert by_numpy.lr is not None
    assert by_torch.lr == by_numpy.lr
