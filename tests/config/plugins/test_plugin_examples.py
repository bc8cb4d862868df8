"""The plug-ins of the guide: gradients, equality of the backends, and the text of the guide."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from nnopt.backends import load_backend
from nnopt.cli.gradcheck import check_gradients
from nnopt.config.compose import compose_config
from nnopt.config.plugins.load import deactivate
from nnopt.data.batches import PLAIN
from nnopt.recipe.evaluation import classify
from nnopt.recipe.prepare import prepare
from nnopt.results.metrics import confusion_matrix, loss_of
from nnopt.schema import Config
from nnopt.training.schedules import build_schedule

DOCS = Path(__file__).resolve().parents[3] / "docs"
EXAMPLES = DOCS / "examples" / "plugins"

OF_BACKENDS = {
    "squareplus": ["architecture.activation=squareplus"],
    "squareplus, with an option": [
        "architecture=layers",
        "architecture.layers=[{dense: 5}, {squareplus: 0.5}, {dense: classes}]",
    ],
    "maxout": [
        "architecture=layers",
        "architecture.layers=[{maxout: {units: 4, pieces: 3}}, {dense: classes}]",
    ],
    "signum": ["optimizer=signum", "optimizer.momentum=0.8"],
    "generalized_cross_entropy": ["loss=generalized_cross_entropy"],
}
"""Plug-in -> overrides that use it."""

OF_BACKENDS["scale, a loss of targets"] = ["loss=brier", "regularizer.label_smoothing=0.2"]

for _layer in ("scale", "scale_module"):
    _layers = f"{{conv2d: 3}}, {_layer}, relu, {{residual: [{{conv2d: 3}}, {_layer}]}}, max_pool2d"
    OF_BACKENDS[f"scale, {_layer} on images"] = [
        "dataset=pictures",
        "architecture=layers",
        f"architecture.layers=[{_layers}, flatten, {_layer}, {{dense: classes}}]",
    ]


@pytest.fixture(autouse=True)
def without_plugins() -> Iterator[None]:
    yield
    deactivate()


def config_of(name: str, *overrides: str) -> Config:
    """Return a small configuration that uses a plug-in of the guide."""
    texts = list(overrides)
    if "architecture=layers" not in texts:
        texts.append("architecture.hidden=[6]")
    if not any(text.startswith("dataset=") for text in texts):
        texts.append("dataset.samples_per_class=20")
    folder = Path(__file__).parent if name == "scale" else EXAMPLES
    return compose_config([f"plugins=[{folder / name}.py]", *texts])


@pytest.mark.parametrize("case", OF_BACKENDS)
def test_gradients_of_examples_agree_with_central_differences(case: str) -> None:
    config = config_of(case.partition(",")[0], *OF_BACKENDS[case])
    checks = list(check_gradients(config, prepare(config), entries=20))
    assert [check.name for check in checks if not check.passed] == []
    assert all(check.reached for check in checks)


@pytest.mark.parametrize("case", OF_BACKENDS)
def test_examples_train_equally_in_both_backends(case: str) -> None:
    trained: list[dict[str, NDArray[np.floating]]] = []
    for backend in ("numpy", "torch"):
        keys = [f"backend={backend}", "backend.dtype=float64", "regularizer.l2=0.01"]
        config = config_of(case.partition(",")[0], *OF_BACKENDS[case], *keys)
        prepared = prepare(config)
        network = load_backend(backend).build_network(prepared.architecture, config)
        random = np.random.default_rng(0)
        shapes = prepared.architecture.parameter_shapes()
        network.load({name: random.standard_normal(shape) for name, shape in shapes.items()})
        dataset = prepared.dataset
        loader = load_backend(backend).build_loader(dataset.train, dataset.normalization, config)
        batches = loader.train_batches(np.arange(24), 8, PLAIN)
        for step, (x, y) in enumerate(batches):
            network.train_step(x, y, 0.05, step)
        trained.append(network.arrays() | {"losses": network.read_steps().losses})
    assert trained[0].keys() == trained[1].keys()
    for name, array in trained[0].items():
        assert_allclose(trained[1][name], array, rtol=1e-10, atol=1e-12, err_msg=name)


def test_loss_without_numpy_part_is_evaluated_by_its_torch_part() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((9, 3)).astype(np.float32), np.arange(9) % 3
    values = []
    for loss in ("brier", "brier_torch"):
        config = config_of("scale", f"loss={loss}", "backend=torch")
        values.append(loss_of(config, logits, labels))
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    expected = np.mean(np.sum((p - np.eye(3)[labels]) ** 2, axis=1))
    assert values == pytest.approx([expected, expected], rel=1e-12)


def test_example_dataset_has_the_colours_of_a_checkerboard() -> None:
    config = config_of("checkerboard", "dataset=checkerboard", "dataset.fields=3")
    dataset = prepare(config).dataset
    assert dataset.classes == ("black", "white")
    assert (len(dataset.train), len(dataset.test)) == (480, 600)
    row, column = np.floor(dataset.test.inputs * 3).T
    assert np.array_equal(dataset.test.labels, (row + column) % 2)
    other = config_of("checkerboard", "dataset=checkerboard", "dataset.fields=3", "dataset.seed=1")
    assert not np.array_equal(prepare(other).dataset.test.inputs, dataset.test.inputs)


def test_example_schedule_follows_its_formula_after_the_warmup() -> None:
    overrides = [
        "schedule=inverse_square_root",
        "schedule.decay_rate=2",
        "schedule.warmup_epochs=1",
    ]
    config = config_of("inverse_square_root", *overrides)
    rate = build_schedule(config.schedule, 0.5, steps_per_epoch=10, total_steps=100)
    assert [rate(step) for step in (0, 9)] == pytest.approx([0.05, 0.5])
    assert rate(10 + 25) == pytest.approx(0.5 / math.sqrt(1 + 2 * 2.5))


def test_example_metric_is_the_mean_of_the_recalls() -> None:
    config = config_of("balanced_accuracy", "evaluation.metrics=[balanced_accuracy]")
    random = np.random.default_rng(1)
    logits, labels = random.standard_normal((50, 3)), random.choice(3, 50, p=[0.7, 0.2, 0.1])
    found = classify(logits, labels, config)
    assert found is not None
    counts = confusion_matrix(labels, logits.argmax(axis=1), 3)
    recalls = counts.diagonal() / counts.sum(axis=1)
    assert found.metrics["balanced_accuracy"] == pytest.approx(recalls.mean())


def test_guide_contains_every_example_unchanged() -> None:
    text = (DOCS / "plugins.md").read_text("utf-8")
    blocks = re.findall(
        r"^\[(\w+\.py)\]\(examples/plugins/\1\)\n\n```python\n(.*?)```$", text, re.M | re.S
    )
    assert dict(blocks) == {path.name: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
