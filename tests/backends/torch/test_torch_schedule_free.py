"""Schedule-Free compared with the formula in NumPy and with the library schedulefree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import schedulefree
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional as F

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.backends.torch.network import TorchNetwork
from nnopt.backends.torch.optimizers import build_optimizer, set_learning_rate
from nnopt.backends.torch.schedule_free import ScheduleFree
from nnopt.recipe.prepare import prepare
from nnopt.schema import Config
from nnopt.training.loop import Loop, epoch_batches

MakeConfig = Callable[..., Config]
MakeNetwork = Callable[..., TorchNetwork]
Batches = list[tuple[np.ndarray, np.ndarray]]

NAMES = ["schedule_free_sgd", "schedule_free_adamw"]
MLP = [{"dense": 8}, "batch_norm", "tanh", {"dense": "classes"}]
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def as_tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(batch[0]), torch.tensor(batch[1])


def build(make_config: Callable[..., Config], name: str, p: nn.Parameter) -> ScheduleFree:
    config = make_config(optimizer=name, **{"regularizer.weight_decay": 0.1})
    optimizer = build_optimizer([p], [p], config)
    assert isinstance(optimizer, ScheduleFree)
    return optimizer


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_of_schedule_free_equal_formula(
    make_config: Callable[..., Config], name: str
) -> None:
    """The formula has the sequences x, y and z of Schedule-Free, weight decay and a warm-up."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3))
    z, s, total = x.copy(), 0 * x, 0.0
    p = nn.Parameter(torch.tensor(x))
    optimizer = build(make_config, name, p)
    for t in range(1, 21):
        lr = 0.05 * min(1, t / 5)
        y = 0.1 * z + 0.9 * x
        assert_allclose(p.detach(), y, **CLOSE)
        g = rng.standard_normal(x.shape) + y
        p.grad = torch.tensor(g)
        direction = g
        if name == "schedule_free_adamw":
            s = 0.999 * s + 0.001 * g**2
            direction = g / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
        z = z - lr * (direction + 0.1 * y)
        total += lr**2
        x = x + lr**2 / total * (z - x)
        set_learning_rate(optimizer, lr)
        optimizer.step()
        assert_array_equal(p.grad, g)
        optimizer.eval()
        assert_allclose(p.detach(), x, **CLOSE)
        optimizer.train()


@pytest.mark.parametrize("name", NAMES)
def test_schedule_free_network_equals_network_trained_with_library(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    layers = [{"dense": 8}, "tanh", {"dense": "classes"}]
    network = make_network("torch", layers, optimizer=name, **{"regularizer.weight_decay": 0.1})
    by_hand = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        for p, array in zip(by_hand.parameters(), network.arrays().values(), strict=True):
            p.copy_(torch.tensor(array))
    weights = [p for p in by_hand.parameters() if p.ndim > 1]
    biases = [p for p in by_hand.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": 0.1}, {"params": biases}]
    kind = schedulefree.SGDScheduleFree if "sgd" in name else schedulefree.AdamWScheduleFree
    library = kind(groups, lr=0.05)
    library.train()
    for step, batch in enumerate(batches):
        inputs, labels = as_tensors(batch)
        network.train_step(inputs, labels, 0.05, step)
        library.zero_grad()
        F.cross_entropy(by_hand(inputs), labels).backward()
        gradients = [p.grad.clone() for p in by_hand.parameters() if p.grad is not None]
        library.step()
        for own, gradient in zip(network.gradient_arrays().values(), gradients, strict=True):
            assert_allclose(own, gradient, **CLOSE)
    training = [p.detach().clone() for p in network.module.parameters()]
    library.eval()
    inputs = torch.tensor(batches[0][0])
    assert_allclose(network.predict(inputs), by_hand(inputs).detach(), **CLOSE)
    outputs = network.layer_outputs(inputs)["dense2"]
    assert_allclose(outputs, by_hand(inputs).detach(), **CLOSE)
    for array, p, y in zip(network.arrays().values(), by_hand.parameters(), training, strict=True):
        assert_allclose(array, p.detach(), **CLOSE)
        assert np.abs(array - y.numpy()).max() > 1e-4  # training uses the weights y, not x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["predict", "layer_outputs", "arrays"])
def test_evaluation_does_not_change_the_training(
    make_network: MakeNetwork, batches: Batches, name: str, method: str
) -> None:
    straight, evaluated = (
        make_network("torch", MLP, optimizer=name, **{"backend.dtype": "float32"}) for _ in "ab"
    )
    for step, (x, y) in enumerate(batches):
        inputs, labels = torch.tensor(x).float(), torch.tensor(y)
        straight.train_step(inputs, labels, 0.05, step)
        evaluated.train_step(inputs, labels, 0.05, step)
        for _ in range(2):
            evaluated.arrays() if method == "arrays" else getattr(evaluated, method)(inputs)
    after = evaluated.arrays()
    for key, array in straight.arrays().items():
        assert_array_equal(array, after[key])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evaluated", [False, True])
def test_loading_sets_weights_and_resets_optimizer_state(
    make_network: MakeNetwork, batches: Batches, name: str, evaluated: bool
) -> None:
    fresh, used = (make_network("torch", MLP, optimizer=name) for _ in "ab")
    start = fresh.arrays()
    for step, batch in enumerate(batches):
        used.train_step(*as_tensors(batch), 0.05, step)
    if evaluated:
        used.predict(torch.tensor(batches[0][0]))
    used.load(start)
    for key, array in used.arrays().items():
        assert_array_equal(array, start[key])
    for step, batch in enumerate(batches):
        for network in (fresh, used):
            network.train_step(*as_tensors(batch), 0.05, step)
    after = used.arrays()
    for key, array in fresh.arrays().items():
        assert_array_equal(array, after[key])


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_statistics_belong_to_the_averaged_weights(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    """``arrays`` returns the averaged weights x. Training continues from the weights y."""
    layers = [{"dense": 5}, "batch_norm", "relu", {"dense": "classes"}]
    straight, renewed = (make_network("torch", layers, optimizer=name) for _ in "ab")
    found = renewed.arrays()
    inputs = [torch.tensor(x) for x, _ in batches[:3]]
    for step, batch in enumerate(batches):
        for network in (straight, renewed):
            network.train_step(*as_tensors(batch), 0.05, step)
        renewed.recompute_statistics(inputs)
        found = renewed.arrays()
        weight, bias = found["dense1.weight"], found["dense1.bias"]
        means = [(x.numpy() @ weight.T + bias).mean(axis=0) for x in inputs]
        assert_allclose(found["batch_norm1.running_mean"], np.mean(means, axis=0), rtol=1e-9)
    for key, array in straight.arrays().items():
        if "running_" not in key:
            assert_array_equal(array, found[key])


@pytest.mark.parametrize("steps", [None, 10])
def test_epoch_ends_with_batch_statistics_of_averaged_weights(
    make_config: MakeConfig, steps: int | None
) -> None:
    """With ``max_steps=10``, the second epoch ends after 2 of 8 steps."""
    changes = {"optimizer": "schedule_free_sgd", "regularizer.norm": "batch", "epochs": 2}
    changes |= {"max_steps": steps}
    config = make_config(backend="torch", **changes, **{"backend.dtype": "float64"})
    prepared, backend = prepare(config), load_backend("torch")
    dataset = prepared.dataset
    network = backend.build_network(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed))
    loader = backend.build_loader(dataset.train, dataset.normalization, config)
    assert dataset.validation is not None
    held = backend.build_loader(dataset.validation, dataset.normalization, config)
    loop = Loop(network, dataset, (loader, held), config)
    for row, _ in loop.run():
        found = loop.training.last
        batches = epoch_batches(config, dataset, loader, row.epoch)
        means = [(x.numpy() @ found["dense1.weight"].T).mean(axis=0) for x, _ in batches]
        assert_allclose(found["batch_norm1.running_mean"], np.mean(means, axis=0), rtol=1e-9)
