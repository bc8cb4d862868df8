"""Pruning in both backends: equal masks, equal weights, and weights that stay exactly zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pruning_cases import WEIGHT_PRUNING

from nnopt.architecture.network import infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends import load_backend
from nnopt.backends.models import initial_arrays
from nnopt.backends.numpy.update_rules import OPTIMIZERS as NUMPY_OPTIMIZERS
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.pruning.masks import Masks
from nnopt.recipe.pruning import build_pruner
from nnopt.schema import Config
from nnopt.training.length import Length
from nnopt.training.loop import Loop

MakeConfig = Callable[..., Config]

DENSE: tuple[Any, ...] = ({"dense": 9}, "batch_norm", "prelu", {"dense": 7}, "tanh")
CONV: tuple[Any, ...] = (
    {"conv2d": 4},
    "batch_norm",
    "relu",
    {"residual": [{"conv2d": 4}, {"group_norm": 2}, "silu"]},
    {"max_pool2d": 2},
    "flatten",
    {"dense": 6},
    "relu",
)

PRUNING = replace(WEIGHT_PRUNING, sparsity=0.7)

CASES: dict[str, dict[str, Any]] = {
    "one-shot, global": {"start": 3},
    "one-shot, layer": {"start": 3, "scope": "layer"},
    "random": {"name": "random", "start": 2},
    "SNIP": {"name": "gradient", "start": 0, "gradient_batches": 3},
    "Taylor": {"name": "gradient", "start": 4, "gradient_batches": 2, "scope": "layer"},
    "iterative": {"schedule": "iterative", "start": 2, "interval": 2.5, "rounds": 3},
    "gradual": {"schedule": "gradual", "start": 1, "end": 8, "interval": 0.5},
    "rewound to the start": {"schedule": "iterative", "start": 3, "rewind": "initial"},
    "rewound to an epoch": {"schedule": "iterative", "start": 3, "rewind": 1},
    "random mask": {"start": 3, "control": "random_mask"},
    "new weights": {"start": 3, "control": "new_weights"},
    "without outer layers": {"start": 3, "first_layer": False, "last_layer": False},
}


def shape_of(layers: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of a sample."""
    return (2, 6, 6) if "conv2d" in layers[0] else (5,)


def make_loop(config: Config, layers: tuple[Any, ...]) -> Loop:
    shape = shape_of(layers)

    def part(count: int) -> Part:
        rng = np.random.default_rng(count)
        inputs = rng.standard_normal((count, *shape)).astype(np.float32)
        return Part(inputs, rng.integers(0, 3, count), np.arange(count))

    scaling = Normalization(np.ones(shape[0]), np.zeros(shape[0]))
    dataset = Dataset("test", ("a", "b", "c"), part(80), part(20), part(3), scaling, {})
    backend = load_backend(config.backend.name)
    architecture = infer_shapes(parse_layers((*layers, {"dense": "classes"})), shape, 3)
    network = backend.build_network(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, 0, dataset))
    train, held = (
        backend.build_loader(part, dataset.normalization, config)
        for part in (dataset.train, dataset.validation)
        if part is not None
    )
    length = Length.of(config, len(dataset.train))
    pruner = build_pruner(config, architecture, dataset, network, length)
    return Loop(network, dataset, (train, held), config, pruner)


def trained(config: Config, layers: tuple[Any, ...]) -> tuple[Loop, list[Masks]]:
    """Train for 100 steps. Return the loop, and the masks after each pruning."""
    loop, history = make_loop(config, layers), []
    pruner = loop.training.pruner
    assert pruner is not None
    prune = pruner.prune

    def recording(*arguments: Any) -> None:
        prune(*arguments)
        history.append(pruner.masks)

    pruner.prune = recording  # type: ignore[method-assign]
    for _ in loop.run():
        pass
    assert loop.training.step == 100
    return loop, history


def configured(make_config: MakeConfig, backend: str, changes: dict[str, Any]) -> Config:
    pruning = {key: value for key, value in changes.items() if hasattr(PRUNING, key)}
    overrides = {key: value for key, value in changes.items() if not hasattr(PRUNING, key)}
    values = {"epochs": 10, "batch_size": 8, "backend.dtype": "float64"} | overrides
    pruned = replace(PRUNING, **pruning)
    return make_config(backend=backend, pruning=pruned, **values)


@pytest.mark.parametrize("layers", [DENSE, CONV], ids=["dense", "conv"])
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_masks_and_weights_agree_between_backends(
    make_config: MakeConfig, changes: dict[str, Any], layers: tuple[Any, ...]
) -> None:
    one, other = (
        trained(configured(make_config, backend, changes), layers) for backend in ("numpy", "torch")
    )
    assert len(one[1]) == len(other[1]) > 0
    for masks, others in zip(one[1], other[1], strict=True):
        for name, mask in masks.items():
            assert_array_equal(mask, others[name], name)
    arrays = other[0].training.last
    for name, array in one[0].training.last.items():
        assert_allclose(array, arrays[name], rtol=0, atol=1e-9, err_msg=name)


SHARED = tuple(NUMPY_OPTIMIZERS)
OPTIMIZERS = {
    "numpy": SHARED,
    "torch": (*SHARED, "lion", "muon", "schedule_free_sgd", "schedule_free_adamw"),
}


OPTIONS: dict[str, dict[str, Any]] = {
    "rmsprop": {"optimizer.momentum": 0.5, "optimizer.centered": True},
    "adam": {"optimizer.amsgrad": True},
}
"""Optimizer -> settings with which the optimizer has the most state."""


@pytest.mark.parametrize(
    ("backend", "optimizer"), [(b, o) for b, names in OPTIMIZERS.items() for o in names]
)
@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_pruned_weights_are_zero_after_every_step(
    make_config: MakeConfig, backend: str, optimizer: str, average: str
) -> None:
    """The optimizers have state from the steps before the pruning."""
    averages = {"ema": {"regularizer.ema_decay": 0.9}, "swa": {"regularizer.swa_start": 0.1}}
    changes = {
        "start": 1.5,
        "optimizer": optimizer,
        **OPTIONS.get(optimizer, {}),
        "epochs": 4,
        "regularizer.weight_decay": 0.1,
        "regularizer.l2": 0.01,
        "regularizer.l1": 0.001,
        **averages.get(average, {}),
    }
    if optimizer.startswith("schedule_free") and average != "none":
        pytest.skip("Schedule-Free computes its own average")
    loop = make_loop(configured(make_config, backend, changes), DENSE)
    pruner, checked = loop.training.pruner, []
    assert pruner is not None

    def check(step: int) -> None:
        if step > 15:
            state = loop.training.network.state()
            for name, mask in pruner.masks.items():
                assert np.all(state[f"weights/{name}"][~mask] == 0), (step, name)
                assert np.any(state[f"weights/{name}"][mask] != 0), (step, name)
            checked.append(step)

    loop.report_step = check
    for _ in loop.run():
        for name, mask in pruner.masks.items():
            assert np.all(loop.training.last[name][~mask] == 0), name
    assert checked == list(range(16, 41))


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_gradient_norm_counts_trained_weights_only(make_config: MakeConfig, backend: str) -> None:
    """The norm is that of the gradients at the weights that are kept, with penalties."""
    changes = {"start": 1, "regularizer.l2": 0.1, "epochs": 2}
    loop = make_loop(configured(make_config, backend, changes), DENSE)
    rows = [row for row, _ in loop.run()]
    gradients = loop.training.network.gradient_arrays()
    masks = loop.training.pruner.masks  # type: ignore[union-attr]
    for name, mask in masks.items():
        assert np.all(gradients[name][~mask] == 0), name
    total = sum(float(np.sum(gradient**2)) for gradient in gradients.values())
    assert rows[-1].gradient_norm == pytest.approx(total**0.5, rel=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_mean_gradients_equal_the_gradient_of_one_large_batch(
    make_config: MakeConfig, backend: str
) -> None:
    loop = make_loop(configured(make_config, backend, {"start": 1}), (CONV[0], *CONV[2:]))
    network, before = loop.training.network, loop.training.network.state()
    parts = list(loop._batches(1))[:3]
    x, y = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in (0, 1))
    whole = (x, y) if backend == "numpy" else _tensors(x, y)
    found, expected = network.mean_gradients(parts, 0), network.mean_gradients([whole], 0)
    for name, gradient in found.items():
        assert_allclose(gradient, expected[name], rtol=0, atol=1e-14, err_msg=name)
        assert np.any(gradient), name
    for name, array in network.state().items():
        assert_array_equal(array, before[name], name)


def _tensors(*arrays: np.ndarray) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(array) for array in arrays)


def test_best_weights_are_those_of_an_epoch_at_the_final_sparsity(make_config: MakeConfig) -> None:
    changes = {"schedule": "gradual", "start": 1, "end": 6, "interval": 0.5}
    loop = make_loop(configured(make_config, "numpy", changes), DENSE)
    best = [(row.epoch, is_best) for row, is_best in loop.run()]
    assert not any(is_best for epoch, is_best in best if epoch < 6)
    pruner = loop.training.pruner
    assert pruner is not None
    assert loop.training.best_epoch > 6
    for name, mask in pruner.masks.items():
        assert np.all(loop.training.best[name][~mask] == 0), name
    sparsity = [row.sparsity for row in loop.training.history]
    assert sparsity == sorted(sparsity)
    assert sparsity[-1] == pytest.approx(0.7, abs=0.005)
    assert len({round(value, 3) for value in sparsity}) > 4
