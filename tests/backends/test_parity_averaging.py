"""Averages of the weights in both backends, in float64, against plain recurrences over the weights
recorded step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.backends.numpy_scratch import average
from nnopt.backends.numpy_scratch.average import Average
from nnopt.backends.numpy_scratch.threads import Workers
from nnopt.compose import compose_config
from nnopt.prepare import prepare
from nnopt.training import averaging
from nnopt.training.evaluation import evaluate
from nnopt.training.loop import Loop, Training

Arrays = dict[str, np.ndarray]

BACKENDS = ("numpy", "torch")
BASE = (
    "dataset=moons",
    "dataset.points=40",
    "backend.dtype=float64",
    "architecture.hidden=[7,5]",
    "regularizer.norm=batch",
    "optimizer.lr=0.1",
    "batch_size=16",
    "epochs=6",
)
STEPS_PER_EPOCH = 4  # 64 training samples


@dataclass
class Recorded:
    """A training, and the raw weights and statistics before it and after each of its steps."""

    training: Training
    weights: list[Arrays]
    gradients: list[Arrays]


@cache
def train(*overrides: str) -> Recorded:
    config = compose_config([*BASE, *overrides])
    prepared = prepare(config)
    dataset = prepared.dataset
    backend = load_backend(config.backend.name)
    network = backend.build_network(prepared.architecture, config)
    network.load(initial_arrays(prepared.architecture, config.initializer, config.seed))
    weights, gradients = [network.arrays()], []
    step_of_network = network.train_step

    def train_step(x: Any, y: Any, lr: float, step: int) -> None:
        step_of_network(x, y, lr, step)
        weights.append(network.arrays())
        gradients.append(network.gradient_arrays())

    network.train_step = train_step  # type: ignore[method-assign]
    held = dataset.validation
    loaders = (
        backend.build_loader(dataset.train, dataset.normalization, config),
        None if held is None else backend.build_loader(held, dataset.normalization, config),
    )
    loop = Loop(network, dataset, loaders, config)
    rows = [row for row, _ in loop.run()]
    if held is not None:
        # what the last row says has to be what the kept weights give
        network.load(loop.training.last)
        assert loaders[1] is not None
        result = evaluate(network, loaders[1], held.labels[held.rows], config.loss)
        assert rows[-1].validation_loss == pytest.approx(result.loss, rel=1e-12)
    return Recorded(loop.training, weights, gradients)


def exponential(weights: list[Arrays], decay: float) -> list[Arrays]:
    """a₀ = w₀, aₜ = dₜ aₜ₋₁ + (1 - dₜ) wₜ."""
    averages = [weights[0]]
    for t, w in enumerate(weights[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        averages.append({name: d * averages[-1][name] + (1 - d) * w[name] for name in w})
    return averages


def gap(first: Arrays, second: Arrays) -> float:
    assert set(first) == set(second)
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_ema_is_the_recurrence_over_every_step(backend: str, decay: float) -> None:
    run = train(f"backend={backend}", f"regularizer.ema={decay}")
    averages = exponential(run.weights, decay)
    assert len(averages) == 6 * STEPS_PER_EPOCH + 1
    assert gap(run.training.last, averages[-1]) < 1e-12
    best = averages[run.training.best_epoch * STEPS_PER_EPOCH]
    assert gap(run.training.best, best) < 1e-12
    assert gap(run.training.last, run.weights[-1]) > 1e-3  # an average, not the weights


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_decay_is_noticed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decay_of = averaging.ema_decay
    monkeypatch.setattr(averaging, "ema_decay", lambda decay, t: decay_of(decay, t + 1))
    run = train.__wrapped__(f"backend={backend}", "regularizer.ema=0.9")
    assert gap(run.training.last, exponential(run.weights, 0.9)[-1]) > 1e-4


@pytest.mark.parametrize("key", ["ema=0.9"])
def test_both_backends_give_the_same_averages(key: str) -> None:
    numpy, torch = (
        train(
            f"backend={backend}",
            f"regularizer.{key}",
            "regularizer.dropout=0.2",
            "backend.shared_masks=true",
        )
        for backend in BACKENDS
    )
    for name, array in numpy.training.last.items():
        assert_allclose(torch.training.last[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", ["ema=0.9"])
def test_training_goes_on_as_if_nothing_were_averaged(backend: str, key: str) -> None:
    """To the bit, though the average is evaluated every other step."""
    looks = "early_stopping.check_every=2"
    plain = train(f"backend={backend}")
    averaged = train(f"backend={backend}", f"regularizer.{key}", looks)
    assert len(plain.weights) == len(averaged.weights)
    for first, second in zip(plain.weights, averaged.weights, strict=True):
        assert gap(first, second) == 0
    for first, second in zip(plain.gradients, averaged.gradients, strict=True):
        assert gap(first, second) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_look_between_epochs_keeps_the_average(backend: str) -> None:
    run = train(
        f"backend={backend}",
        "regularizer.ema=0.9",
        "early_stopping.check_every=3",
        "early_stopping.monitor=loss",
        "optimizer.lr=0.3",  # so high that the best weights come early, with this seed
        "seed=2",
    )
    gaps = [gap(run.training.best, a) for a in exponential(run.weights, 0.9)]
    assert int(np.argmin(gaps)) % STEPS_PER_EPOCH != 0
    assert min(gaps) < 1e-12


@pytest.mark.parametrize(("decay", "updates"), [(0.999, 1), (0.999, 90), (0.5, 8), (0.9, 10_000)])
def test_a_young_average_forgets_faster(decay: float, updates: int) -> None:
    expected = {(0.999, 1): 2 / 11, (0.999, 90): 0.91, (0.5, 8): 0.5, (0.9, 10_000): 0.9}
    assert averaging.ema_decay(decay, updates) == pytest.approx(expected[decay, updates])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(average, "PIECE", 4)
    monkeypatch.setattr(average, "SHARED_FROM", 8)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_and_threads_do_not_change_an_average(workers: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((9,), (2, 3), (1,))]
    first = [array.copy() for array in arrays]
    averages = Average(arrays, Workers(workers))
    averages.move(1.0)
    for array in arrays:
        array += 1
    averages.move(0.25)
    averages.swap()
    for array, start in zip(arrays, first, strict=True):
        assert_allclose(array, start + 0.25, rtol=1e-14)
    averages.swap()
    assert all((x == y + 1).all() for x, y in zip(arrays, first, strict=True))


def test_averaging_allocates_nothing_once_it_runs() -> None:
    import tracemalloc

    arrays = [np.ones(200_000)]
    averages = Average(arrays)
    averages.move(1.0)
    tracemalloc.start()
    for _ in range(3):
        averages.move(0.1)
        averages.swap()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000  # a thousandth of the arrays


def test_the_torch_average_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number or copying to the host is what would wait."""
    import torch

    from nnopt.backends.pytorch.average import Average as TorchAverage

    tensors = [torch.ones(3, 2), torch.ones(4)]
    average_of_tensors = TorchAverage(tensors)

    def refuse(*_: Any, **__: Any) -> Callable[..., Any]:
        raise AssertionError("waits for the device")

    for name in ("item", "cpu", "numpy", "tolist", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    average_of_tensors.move(0.1)
    average_of_tensors.swap()
