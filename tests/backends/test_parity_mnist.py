"""Five epochs of MNIST in float32, in both backends, on the whole path from files to accuracy."""

from __future__ import annotations

import os

import pytest

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.compose import compose_config
from nnopt.prepare import prepare
from nnopt.training.evaluation import evaluate
from nnopt.training.loop import Loop


def accuracy_of(backend: str) -> float:
    """Of the test set, in percent."""
    overrides = ["dataset=mnist", f"backend={backend}", "architecture.hidden=[64]", "epochs=5"]
    config = compose_config([*overrides, "batch_size=128", "optimizer.lr=0.05"])
    prepared = prepare(config)
    dataset, architecture = prepared.dataset, prepared.architecture
    built = load_backend(backend)
    network = built.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, config.seed))
    train, test = (
        built.build_loader(part, dataset.normalization, config)
        for part in (dataset.train, dataset.test)
    )
    for _ in Loop(network, dataset, (train, None), config).run():
        pass
    labels = dataset.test.labels[dataset.test.rows]
    return 100 * evaluate(network, test, labels, config.loss).accuracy


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("NNOPT_DATA_DIR" not in os.environ, reason="NNOPT_DATA_DIR is not set")
def test_both_backends_end_within_a_fifth_of_a_point() -> None:
    accuracy, torch_accuracy = accuracy_of("numpy"), accuracy_of("torch")
    assert accuracy > 96.5
    assert abs(accuracy - torch_accuracy) <= 0.2
