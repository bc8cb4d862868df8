"""Averaged weights in both backends, compared with recurrences over the weights of all steps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from nnopt.architecture.initializers import initial_arrays
from nnopt.backends import load_backend
from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.average import Average
from nnopt.backends.numpy.threads import ThreadPool
from nnopt.backends.protocol import Network
from nnopt.config.compose import compose_config
from nnopt.data.batches import epoch_order
from nnopt.data.dataset import Dataset
from nnopt.recipe.prepare import prepare
from nnopt.schema import Config
from nnopt.training import averaging
from nnopt.training.evaluation import evaluate
from nnopt.training.loop import Loop
from nnopt.training.state import TrainingState

Arrays = dict[str, np.ndarray]

BACKENDS = ("numpy", "torch")
BASE = (
    "dataset=moons",
    "dataset.samples_per_class=40",
    "backend.dtype=float64",
    "architecture.hidden=[7,5]",
    "regularizer.norm=batch",
    "optimizer.lr=0.1",
    "batch_size=16",
    "epochs=6",
)
STEPS_PER_EPOCH = 4  # 64 training samples in batches of 16


@dataclass
class Recorded:
    """A training with the arrays of its steps.

    ``weights`` contains the weights and statistics at the start and after each step, before
    averaging. ``gradients`` contains the gradients of each step.
    """

    training: TrainingState
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
        # The validation loss in the last row must be the loss of the final weights.
        network.load(loop.training.last)
        assert loaders[1] is not None
        batches, labels = loaders[1].evaluation_batches(), held.labels[held.rows]
        result = evaluate(network, batches, labels, config)
        assert rows[-1].validation_loss == pytest.approx(result.loss, rel=1e-12)
    return Recorded(loop.training, weights, gradients)


def exponential(weights: list[Arrays], decay: float) -> list[Arrays]:
    """Return the averages a₀ = w₀, aₜ = dₜ aₜ₋₁ + (1 - dₜ) wₜ at the start and after each step.

    wₜ are the weights after step t, and dₜ = min(decay, (1 + t) / (10 + t)).
    """
    averages = [weights[0]]
    for t, w in enumerate(weights[1:], start=1):
        d = min(decay, (1 + t) / (10 + t))
        averages.append({name: d * averages[-1][name] + (1 - d) * w[name] for name in w})
    return averages


def gap(first: Arrays, second: Arrays) -> float:
    """Return the largest absolute difference of two sets of arrays."""
    assert set(first) == set(second)
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_ema_equals_recurrence_over_all_steps(backend: str, decay: float) -> None:
    run = train(f"backend={backend}", f"regularizer.ema_decay={decay}")
    averages = exponential(run.weights, decay)
    assert len(averages) == 6 * STEPS_PER_EPOCH + 1
    assert gap(run.training.last, averages[-1]) < 1e-12
    best = averages[run.training.best_epoch * STEPS_PER_EPOCH]
    assert gap(run.training.best, best) < 1e-12
    assert gap(run.training.last, run.weights[-1]) > 1e-3  # the last weights are not the average


@pytest.mark.parametrize("backend", BACKENDS)
def test_comparison_fails_if_ema_has_another_decay(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decay_of = averaging.ema_decay
    monkeypatch.setattr(averaging, "ema_decay", lambda decay, t: decay_of(decay, t + 1))
    run = train.__wrapped__(f"backend={backend}", "regularizer.ema_decay=0.9")
    assert gap(run.training.last, exponential(run.weights, 0.9)[-1]) > 1e-4


@pytest.mark.parametrize("key", ["ema_decay=0.9", "swa_start=0.5"])
def test_averages_agree_between_backends(key: str) -> None:
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
@pytest.mark.parametrize("key", ["ema_decay=0.9", "swa_start=0.5"])
def test_averaging_does_not_change_training(backend: str, key: str) -> None:
    """Weights and gradients have the same bits, even with validations within the epochs."""
    validation = "early_stopping.validate_every=2"
    plain = train(f"backend={backend}")
    averaged = train(f"backend={backend}", f"regularizer.{key}", validation)
    assert len(plain.weights) == len(averaged.weights)
    for first, second in zip(plain.weights, averaged.weights, strict=True):
        assert gap(first, second) == 0
    for first, second in zip(plain.gradients, averaged.gradients, strict=True):
        assert gap(first, second) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_best_weights_found_within_an_epoch_are_an_average(backend: str) -> None:
    run = train(
        f"backend={backend}",
        "regularizer.ema_decay=0.9",
        "early_stopping.validate_every=3",
        "early_stopping.monitor=loss",
        "optimizer.lr=0.3",  # so high that an early validation has the best loss
        "regularizer.grad_clip=0",
        "seed=2",
    )
    gaps = [gap(run.training.best, a) for a in exponential(run.weights, 0.9)]
    assert int(np.argmin(gaps)) % STEPS_PER_EPOCH != 0
    assert min(gaps) < 1e-12


def batch_statistics(weights: Arrays, config: Config, dataset: Dataset, epoch: int) -> Arrays:
    """Return the batch norm statistics of a network with two hidden layers.

    The means and unbiased variances are averaged over the micro-batches of an epoch.
    """
    order = epoch_order(config.seed, epoch, len(dataset.train))
    x = dataset.train.inputs[dataset.train.rows[order]]
    x = x * dataset.normalization.scale + dataset.normalization.shift
    seen: dict[str, list[np.ndarray]] = {}
    size = config.batch_size // config.accumulation_steps
    for start in range(0, len(x), size):
        h = x[start : start + size]
        for i in (1, 2):
            z = h @ weights[f"dense{i}.weight"].T
            seen.setdefault(f"batch_norm{i}.running_mean", []).append(z.mean(axis=0))
            seen.setdefault(f"batch_norm{i}.running_var", []).append(z.var(axis=0, ddof=1))
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
            z = z * weights[f"batch_norm{i}.weight"] + weights[f"batch_norm{i}.bias"]
            h = np.maximum(z, 0)
    return {name: np.mean(values, axis=0) for name, values in seen.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("fraction", "first"), [(0.5, 3), (0.67, 5), (0.01, 1)])
def test_swa_equals_mean_of_weights_after_each_epoch(
    backend: str, fraction: float, first: int
) -> None:
    overrides = (f"backend={backend}", f"regularizer.swa_start={fraction}", "test_weights=last")
    run = train(*overrides, "batch_size=15")  # batches of 15, 15, 15, 15 and 4 samples
    ends = run.weights[5::5][first - 1 :]
    assert len(ends) == 7 - first
    mean = {name: np.mean([w[name] for w in ends], axis=0) for name in ends[0]}
    config = compose_config([*BASE, *overrides, "batch_size=15"])
    statistics = batch_statistics(mean, config, prepare(config).dataset, epoch=6)
    assert gap(run.training.last, mean | statistics) < 1e-12
    assert gap(mean, mean | statistics) > 1e-3  # averages of the running statistics differ
    if run.training.best_epoch < first:
        assert gap(run.training.best, run.weights[run.training.best_epoch * 5]) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_recomputed_statistics_use_the_micro_batches_of_training(backend: str) -> None:
    overrides = (
        f"backend={backend}",
        "regularizer.swa_start=0.5",
        "test_weights=last",
        "accumulation_steps=2",
    )
    run = train(*overrides)
    mean = {name: np.mean([w[name] for w in run.weights[12::4]], axis=0) for name in run.weights[0]}
    config = compose_config([*BASE, *overrides])
    dataset = prepare(config).dataset
    statistics = batch_statistics(mean, config, dataset, epoch=6)
    assert gap(run.training.last, mean | statistics) < 1e-12
    whole = batch_statistics(mean, replace(config, accumulation_steps=1), dataset, epoch=6)
    assert gap(mean | whole, mean | statistics) > 1e-3


def test_recomputed_statistics_need_the_memory_of_one_micro_batch(
    make_network: Callable[..., Network],
) -> None:
    """The test uses the NumPy backend, because tracemalloc tracks NumPy's arrays."""
    x = np.random.default_rng(0).standard_normal((1024, 6))
    layers = [{"dense": 64}, "batch_norm", "tanh", {"dense": "classes"}]
    peaks = []
    for accumulation_steps in (1, 8):
        network = make_network(
            "numpy", layers, batch_size=1024, accumulation_steps=accumulation_steps
        )
        tracemalloc.start()
        network.recompute_statistics([x])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] / 4


def test_recomputed_batch_norm_statistics_of_images_equal_pytorch(
    make_network: Callable[..., Network],
) -> None:
    import torch
    from torch import nn

    layers = [{"conv2d": 4}, "batch_norm", "relu", "flatten", {"dense": 3}, "batch_norm"]
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal((n, 2, 5, 6)) for n in (6, 6, 4)]
    computed = {}
    for backend in BACKENDS:
        network = make_network(backend, layers, (2, 5, 6), 3)
        convert = torch.tensor if backend == "torch" else np.copy
        network.recompute_statistics(convert(x) for x in batches)
        computed[backend] = network.arrays()
    reference = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(120, 3),
        nn.BatchNorm1d(3),
    ).double()
    state = reference.state_dict()
    names = [name for name in state if "num_batches" not in name]
    ours = ("conv2d1", "batch_norm1", "dense1", "batch_norm2")
    keys = dict(zip(("0", "1", "4", "5"), ours, strict=True))
    translated = {name: f"{keys[name[0]]}{name[1:]}" for name in names}
    first = make_network("numpy", layers, (2, 5, 6), 3).arrays()
    with torch.no_grad():
        for name, key in translated.items():
            state[name].copy_(torch.tensor(first.get(key, np.zeros(state[name].shape))))
    torch.optim.swa_utils.update_bn([torch.tensor(x) for x in batches], reference)
    for name, key in translated.items():
        for backend in BACKENDS:
            if key in computed[backend]:
                assert_allclose(computed[backend][key], state[name].numpy(), rtol=1e-10, atol=1e-12)


def test_recomputation_without_batch_norm_requests_no_batch(
    make_network: Callable[..., Network],
) -> None:
    def batches() -> Iterator[Any]:
        raise AssertionError("a batch was requested")
        yield

    for backend in BACKENDS:
        make_network(backend, [{"dense": "classes"}]).recompute_statistics(batches())
        frozen = [{"conv2d": {"channels": 2, "frozen": True}}, "flatten", {"dense": "classes"}]
        make_network(backend, frozen, (3, 4, 4)).recompute_statistics(batches())


@pytest.mark.parametrize(
    ("fraction", "epochs", "first"),
    [(0.75, 20, 15), (0.55, 100, 55), (0.07, 100, 7), (0.5, 5, 3), (0.99, 10, 10), (0.01, 10, 1)],
)
def test_swa_starts_with_the_epoch_that_completes_the_fraction(
    fraction: float, epochs: int, first: int
) -> None:
    assert averaging.first_swa_epoch(fraction, epochs) == first


@pytest.mark.parametrize(("decay", "updates"), [(0.999, 1), (0.999, 90), (0.5, 8), (0.9, 10_000)])
def test_ema_decay_is_smaller_in_first_steps(decay: float, updates: int) -> None:
    expected = {(0.999, 1): 2 / 11, (0.999, 90): 0.91, (0.5, 8): 0.5, (0.9, 10_000): 0.9}
    assert averaging.ema_decay(decay, updates) == pytest.approx(expected[decay, updates])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "UPDATE_CHUNK_ELEMENTS", 4)
    monkeypatch.setattr(tuning, "UPDATE_THREADING_MIN_ELEMENTS", 8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_and_threads_do_not_change_an_average(workers: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((9,), (2, 3), (1,))]
    first = [array.copy() for array in arrays]
    averages = Average(arrays, ThreadPool(workers))
    averages.move(1.0)
    for array in arrays:
        array += 1
    averages.move(0.25)
    averages.swap()
    for array, start in zip(arrays, first, strict=True):
        assert_allclose(array, start + 0.25, rtol=1e-14)
    averages.swap()
    assert all((x == y + 1).all() for x, y in zip(arrays, first, strict=True))


def test_averaging_allocates_almost_no_memory() -> None:
    arrays = [np.ones(200_000)]
    averages = Average(arrays)
    averages.move(1.0)
    tracemalloc.start()
    for _ in range(3):
        averages.move(0.1)
        averages.swap()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000  # bytes, about 1 % of the memory of the array


def test_torch_average_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number or copying to the host would wait for the device."""
    import torch

    from nnopt.backends.torch.average import Average as TorchAverage

    tensors = [torch.ones(3, 2), torch.ones(4)]
    average_of_tensors = TorchAverage(tensors)

    def refuse(*_: Any, **__: Any) -> Callable[..., Any]:
        raise AssertionError("waits for the device")

    for name in ("item", "cpu", "numpy", "tolist", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    average_of_tensors.move(0.1)
    average_of_tensors.swap()
