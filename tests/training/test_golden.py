"""Three short trainings, whose losses and gradient norms are compared with recorded numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.config.compose import compose_config
from nnopt.recipe.prepare import prepare
from nnopt.results.metrics_file import EpochRow
from nnopt.training.loop import Loop


def train(*overrides: str) -> list[EpochRow]:
    config = compose_config([*overrides, "backend.dtype=float64", "regularizer.grad_clip=0"])
    prepared = prepare(config)
    backend = load_backend(config.backend.name)
    network = backend.build_network(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed))
    dataset = prepared.dataset
    assert dataset.validation is not None
    loaders = (
        backend.build_loader(dataset.train, dataset.normalization, config),
        backend.build_loader(dataset.validation, dataset.normalization, config),
    )
    return [row for row, _ in Loop(network, dataset, loaders, config).run()]


GOLDEN = {
    "spiral, momentum": (
        ["dataset=spiral", "optimizer=momentum", "optimizer.lr=0.1", "epochs=10", "seed=1"],
        (0.0669452, 0.1005594, 0.2650917),
    ),
    "moons, batch norm, dropout, adam": (
        [
            "dataset=moons",
            "regularizer.norm=batch",
            "regularizer.dropout=0.2",
            "architecture.hidden=[32,16]",
            "optimizer=adam",
            "optimizer.lr=0.01",
            "epochs=5",
            "seed=2",
        ],
        (0.2064225, 0.08012745, 0.2346394),
    ),
    "circles, layer norm, l2, cosine": (
        [
            "dataset=circles",
            "regularizer.norm=layer",
            "regularizer.l2=0.001",
            "architecture.activation=gelu",
            "optimizer=nesterov",
            "optimizer.lr=0.02",
            "schedule=cosine",
            "epochs=8",
            "seed=3",
        ],
        (0.4522872, 0.4752249, 0.418601),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_final_losses_and_gradient_norm_equal_recorded_values(name: str) -> None:
    overrides, expected = GOLDEN[name]
    last = train(*overrides)[-1]
    actual = (last.train_loss, last.validation_loss, last.gradient_norm)
    assert actual == pytest.approx(expected, rel=1e-4)


def test_equal_seeds_give_equal_bits_and_different_seeds_do_not() -> None:
    overrides = [*GOLDEN["moons, batch norm, dropout, adam"][0], "epochs=2", "backend=numpy"]

    def losses(*more: str) -> np.ndarray:
        return np.array([row.train_loss for row in train(*overrides, *more)])

    assert (losses() == losses()).all()
    assert (losses() != losses("seed=4")).all()
