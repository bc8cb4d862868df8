"""The NumPy network: gradients, penalties, clipping and reuse of memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from nnopt.backends.numpy import threads, tuning
from nnopt.backends.numpy.modules import LayerBuilder
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.backends.numpy.tape import Variable
from nnopt.backends.numpy.update_rules import OPTIMIZERS
from nnopt.random import DropoutMasks

Array = np.ndarray
MakeNetwork = Callable[..., NumpyNetwork]
Batches = list[tuple[Array, Array]]

MLP: list[Any] = [{"dense": 8}, "tanh", {"dense": "classes"}]
NORMED: list[Any] = [{"dense": 8}, "batch_norm", "silu", "layer_norm", {"dense": "classes"}]

NETWORKS: dict[str, list[Any]] = {
    "smooth": [{"dense": 5}, "tanh", {"dense": 5}, "gelu", {"dense": 5}, "silu"],
    "kinked": [{"dense": 9}, "relu", {"dense": 5}, {"leaky_relu": 0.3}, "sigmoid"],
    "batch norm": [{"dense": {"units": 5, "bias": False}}, "batch_norm", "tanh"],
    "layer norm": ["layer_norm", {"dense": 5}, "layer_norm", "tanh"],
    "dropout": [{"dropout": 0.2}, {"dense": 9}, "tanh", {"dropout": 0.5}],
    "residual": [{"residual": [{"dense": 6}, "tanh"]}, {"residual": ["relu"]}],
    "nested residual": [
        {"residual": [{"dense": 6}, {"residual": ["batch_norm", {"residual": ["tanh"]}]}, "gelu"]}
    ],
    "everything": [
        "flatten",
        {"residual": [{"dense": 6}, "batch_norm", {"dropout": 0.3}, "silu"]},
        "layer_norm",
        {"dense": 7},
        "sigmoid",
    ],
}
LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {},
    "smoothed": {"regularizer.label_smoothing": 0.2},
    "hinge": {"loss": "hinge"},
}


def differences(array: Array, loss: Callable[[], float]) -> Array:
    slope = np.empty_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + 1e-6
        above = loss()
        array[index] = before - 1e-6
        slope[index] = (above - loss()) / 2e-6
        array[index] = before
    return slope


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_gradients_equal_central_differences(
    make_network: MakeNetwork, batches: Batches, name: str, loss: str
) -> None:
    layers = [*NETWORKS[name], {"dense": "classes"}]
    network = make_network("numpy", layers, **LOSSES[loss])
    values, y = batches[0]
    x = Variable(values.copy(), requires_grad=True)
    ours = network.gradients(network.forward(x, y, 3)[1])
    ours = {key: gradient.copy() for key, gradient in ours.items()}
    ours["input"] = np.array(x.gradient)
    arrays = {key: p.value for key, p in network.parameters.items()} | {"input": x.value}
    for key, array in arrays.items():
        numeric = differences(array, lambda: float(network.forward(x, y, 3)[1].value))
        assert_allclose(ours[key], numeric, rtol=1e-6, atol=1e-8, err_msg=key)


def step_of(network: NumpyNetwork, batch: tuple[Array, Array]) -> dict[str, Array]:
    """Return the array that one step of SGD with lr 1 subtracts from each parameter."""
    before = network.arrays()
    network.train_step(batch[0], batch[1], 1.0, 0)
    after = network.arrays()
    return {name: before[name] - after[name] for name in network.parameters}


def is_weight(name: str) -> bool:
    return name.endswith("weight") and "norm" not in name


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
@pytest.mark.parametrize(
    ("key", "extra"),
    [
        ("l1", lambda w: 0.1 * np.sign(w)),
        ("l2", lambda w: 0.1 * w),
        ("weight_decay", lambda w: 0.1 * w),
    ],
)
def test_penalties_act_on_norm_layers_and_biases_only_if_configured(
    make_network: MakeNetwork,
    batches: Batches,
    key: str,
    extra: Callable[[Array], Array],
    decay_norm_and_bias: bool,
) -> None:
    bare = make_network("numpy", NORMED, optimizer="sgd")
    options = {f"regularizer.{key}": 0.1, "regularizer.decay_norm_and_bias": decay_norm_and_bias}
    penalized = make_network("numpy", NORMED, optimizer="sgd", **options)
    weights = bare.arrays()
    plain, more = step_of(bare, batches[0]), step_of(penalized, batches[0])
    touched = []
    for name in plain:
        difference = more[name] - plain[name]
        if decay_norm_and_bias or is_weight(name):
            assert_allclose(difference, extra(weights[name]), rtol=1e-9, atol=1e-12)
            touched.append(name)
        else:
            assert_array_equal(difference, 0)
    assert len(touched) == (8 if decay_norm_and_bias else 2)


def test_penalty_gradients_equal_central_differences(
    make_network: MakeNetwork, batches: Batches
) -> None:
    options = {"regularizer.l1": 0.03, "regularizer.l2": 0.2}
    network = make_network("numpy", MLP, optimizer="sgd", **options)
    x, y = batches[0]

    def objective() -> float:
        loss = float(network.forward(Variable(x), y, 0)[1].value)
        weights = [p.value for name, p in network.parameters.items() if is_weight(name)]
        terms = [0.03 * np.abs(w).sum() + 0.1 * np.square(w).sum() for w in weights]
        return loss + float(sum(terms))

    numeric = {
        name: differences(parameter.value, objective)
        for name, parameter in network.parameters.items()
    }
    for name, ours in step_of(network, batches[0]).items():
        assert_allclose(ours, numeric[name], rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("largest", [0.05, 0.5, 50.0])
def test_clipping_equals_clipping_of_torch(
    make_network: MakeNetwork, batches: Batches, largest: float
) -> None:
    gradients = step_of(make_network("numpy", MLP, optimizer="sgd"), batches[0])
    parameters = []
    for gradient in gradients.values():
        parameters.append(torch.nn.Parameter(torch.zeros(gradient.shape, dtype=torch.float64)))
        parameters[-1].grad = torch.tensor(gradient)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, largest))
    network = make_network("numpy", MLP, optimizer="sgd", **{"regularizer.grad_clip": largest})
    clipped = step_of(network, batches[0])
    for ours, parameter in zip(clipped.values(), parameters, strict=True):
        assert parameter.grad is not None
        assert_allclose(ours, parameter.grad.numpy(), rtol=1e-9, atol=1e-14)
    assert network.read_steps().gradient_norm == pytest.approx(norm, rel=1e-12)  # before clipping


def test_gradient_norm_includes_penalties(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network("numpy", MLP, optimizer="sgd", **{"regularizer.l2": 0.3})
    step = step_of(network, batches[0])
    norm = np.sqrt(sum(np.square(g).sum() for g in step.values()))
    assert network.read_steps().gradient_norm == pytest.approx(norm, rel=1e-10)


@pytest.mark.parametrize(
    ("small", "accumulation_steps", "expected"),
    [
        (range(10**9), 1, [1]),
        (range(0), 1, [2]),
        (range(6 * 80), 1, [2]),  # 6 samples need at least 480 FLOPs
        (range(6 * 80), 2, [1, 1]),  # 3 samples need fewer than 480 FLOPs
    ],
)
def test_matrix_products_of_a_small_batch_use_one_thread(
    make_network: MakeNetwork,
    monkeypatch: pytest.MonkeyPatch,
    small: range,
    accumulation_steps: int,
    expected: list[int],
) -> None:
    library, *_ = threads._blas_libraries()  # SciPy may have loaded a second library
    seen: list[int] = []
    monkeypatch.setattr(tuning, "SINGLE_BLAS_THREAD_FLOPS", small)
    sizes = {"batch_size": 6, "accumulation_steps": accumulation_steps}
    network = make_network("numpy", [{"dense": 5}, {"dense": "classes"}], (8,), **sizes)
    assert network._largest_flops in range(80, 160)
    backward = network._tape.backward

    def counted(loss: Variable) -> None:
        seen.append(library.get_num_threads())
        backward(loss)

    monkeypatch.setattr(network._tape, "backward", counted)
    with threadpool_limits(2, user_api="blas"):
        network.train_step(np.ones((6, 8)), np.zeros(6, np.int64), 0.1, 0)
        monkeypatch.setattr(network._tape, "backward", lambda loss: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            network.train_step(np.ones((6, 8)), np.zeros(6, np.int64), 0.1, 1)
        assert library.get_num_threads() == 2
    assert seen == expected


def test_read_steps_returns_every_step_once(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network("numpy", MLP)
    losses, correct = [], 0
    for step, (x, y) in enumerate(batches):
        logits, loss = network.forward(Variable(x), y, step)
        losses.append(float(loss.value))
        correct += int((logits.value.argmax(axis=1) == y).sum())
        network.train_step(x, y, 0.1, step)
    record = network.read_steps()
    assert_array_equal(record.losses, losses)
    assert (record.correct, record.count) == (correct, 63)
    assert len(network.read_steps().losses) == 0


@pytest.mark.parametrize("broken", ["dense1", "residual1.dense1", "dense2"])
def test_first_layer_with_nan_outputs_is_reported(
    make_network: MakeNetwork, batches: Batches, broken: str
) -> None:
    layers = [{"dense": 8}, {"residual": [{"dense": 8}, "batch_norm"]}, {"dense": "classes"}]
    network = make_network("numpy", layers, optimizer="sgd")
    x, y = batches[0]
    network.train_step(x, y, 0.1, 0)
    assert network.read_steps().not_finite is None
    network.parameters[f"{broken}.weight"].value[0, 0] = np.nan
    with np.errstate(all="ignore"):
        network.train_step(x, y, 0.1, 1)
        network.train_step(x, y, 0.1, 2)  # before this step, all weights are NaN
    assert network.read_steps().not_finite == broken


@pytest.mark.parametrize("name", ["batch norm", "everything"])
def test_smaller_last_batch_does_not_affect_later_batches(
    make_network: MakeNetwork, batches: Batches, name: str
) -> None:
    """Buffers of one batch size must not affect the results for another batch size."""
    layers = [*NETWORKS[name], {"dense": "classes"}]
    used = make_network("numpy", layers)
    order = [0, 6, 1, 6, 2, 0]
    for step, number in enumerate(order):
        state = used.arrays()
        fresh = make_network("numpy", layers)
        fresh.load(state)
        x, y = batches[number]
        expected = fresh.gradients(fresh.forward(Variable(x), y, step)[1])
        ours = used.gradients(used.forward(Variable(x), y, step)[1])
        for key in expected:
            assert_array_equal(ours[key], expected[key])
        used.train_step(x, y, 0.1, step)


def test_memory_does_not_grow_after_the_first_epoch(make_network: MakeNetwork) -> None:
    layers = [*NETWORKS["everything"], {"dense": "classes"}]
    network = make_network("numpy", layers, optimizer="adam", **{"regularizer.l2": 0.1})
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((n, 6)), rng.integers(0, 4, n)) for n in (500, 500, 77)]

    def epoch() -> None:
        for step, (x, y) in enumerate(batches):
            network.train_step(x, y, 0.01, step)
        network.predict(batches[0][0])
        network.read_steps()

    def kept() -> set[int]:
        buffers = network._tape._buffers
        return {id(array) for one in buffers for array in one._arrays.values()}

    epoch()
    before = kept()
    tracemalloc.start()
    epoch()
    gc.collect()
    start, _ = tracemalloc.get_traced_memory()
    for _ in range(10):
        epoch()
    gc.collect()
    end, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept() == before
    assert end - start < 20_000  # bytes; one array of a batch takes 24 kB


def test_arrays_are_copies_and_can_be_restored(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network("numpy", NORMED)
    before = network.arrays()
    kept = {name: array.copy() for name, array in before.items()}
    logits = network.predict(batches[0][0])
    for step, (x, y) in enumerate(batches):
        network.train_step(x, y, 0.1, step)
    for name in before:
        assert_array_equal(before[name], kept[name])
        if name != "dense1.bias":  # batch norm cancels this bias
            assert (network.arrays()[name] != kept[name]).any(), name
    network.load(before)
    assert_array_equal(network.predict(batches[0][0]), logits)


def test_training_step_changes_no_inputs_or_labels(
    make_network: MakeNetwork, batches: Batches
) -> None:
    network = make_network("numpy", [*NETWORKS["everything"], {"dense": "classes"}])
    x, y = batches[0]
    kept = x.copy(), y.copy()
    x.setflags(write=False)
    y.setflags(write=False)
    network.train_step(x, y, 0.1, 0)
    network.predict(x)
    assert_array_equal(x, kept[0])
    assert_array_equal(y, kept[1])


def test_running_statistics_are_averages_over_batches(
    make_network: MakeNetwork, batches: Batches
) -> None:
    network = make_network("numpy", [{"batch_norm": {"momentum": 0.3}}, {"dense": "classes"}])
    expected = network.arrays()
    mean, var = expected["batch_norm1.running_mean"], expected["batch_norm1.running_var"]
    for step, (x, y) in enumerate(batches):
        network.train_step(x, y, 0.0, step)
        mean = 0.7 * mean + 0.3 * x.mean(axis=0)
        var = 0.7 * var + 0.3 * x.var(axis=0, ddof=1)  # the unbiased variance, as in PyTorch
    assert_allclose(network.arrays()["batch_norm1.running_mean"], mean, rtol=1e-12)
    assert_allclose(network.arrays()["batch_norm1.running_var"], var, rtol=1e-12)


def test_dropout_masks_depend_on_the_step_and_vanish_in_evaluation(
    make_network: MakeNetwork, batches: Batches
) -> None:
    x, y = batches[0]
    dropped = make_network("numpy", [{"dropout": 0.5}, {"dense": "classes"}], seed=7)
    plain = make_network("numpy", [{"dense": "classes"}])
    assert_array_equal(dropped.predict(x), plain.predict(x))
    masks = DropoutMasks(7, "dropout1", 0.5)
    seen = []
    for step in (0, 5, 0):
        logits = dropped.forward(Variable(x), y, step)[0].value.copy()
        masked = x * masks.draw(step, x.shape) * masks.scale
        assert_allclose(logits, plain.predict(masked), rtol=1e-12)
        seen.append(logits)
    assert_array_equal(seen[0], seen[2])
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_rate_zero_changes_no_bit(
    make_network: MakeNetwork, batches: Batches, optimizer: str
) -> None:
    network = make_network("numpy", MLP, optimizer=optimizer, **{"regularizer.weight_decay": 0.1})
    before = network.arrays()
    for step, (x, y) in enumerate(batches):
        network.train_step(x, y, 0.0, step)
    for name, array in network.arrays().items():
        assert_array_equal(array, before[name])


@pytest.mark.parametrize("optimizer", ["rmsprop", "adagrad", "adadelta", "adam", "adamw", "nadam"])
def test_network_of_dead_units_stays_finite(
    make_network: MakeNetwork, batches: Batches, optimizer: str
) -> None:
    """All gradients of the first layer are zero, so the update is 0 / (√0 + ε)."""
    layers = [{"dense": 8}, "relu", {"dense": "classes"}]
    network = make_network("numpy", layers, optimizer=optimizer, **{"regularizer.weight_decay": 0})
    arrays = network.arrays()
    arrays["dense1.bias"][:] = -100
    network.load(arrays)
    for step, (x, y) in enumerate(batches):
        network.train_step(x, y, 0.1, step)
    after: Mapping[str, Array] = network.arrays()
    assert all(np.isfinite(array).all() for array in after.values())
    assert_array_equal(after["dense1.weight"], arrays["dense1.weight"])


IMAGES: list[Any] = [
    {"conv2d": 4},
    "batch_norm",
    "relu",
    {"conv2d": 4},
    "batch_norm",
    "relu",
    "max_pool2d",
    {"residual": [{"conv2d": 4}, {"group_norm": 2}, "relu", {"conv2d": 4}]},
    "relu",
    "max_pool2d",
    "flatten",
    {"dense": 5},
    "batch_norm",
    "relu",
    {"dense": 6},
    "relu",
    {"residual": [{"dense": 6}, "relu"]},
    {"dense": "classes"},
]


def test_fused_layers_give_the_same_bits_as_single_layers(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(3).standard_normal((6, 3, 8, 8))
    y = np.array([0, 1, 2, 0, 1, 2])

    def step() -> tuple[list[Array], int]:
        network = make_network("numpy", IMAGES, (3, 8, 8))
        logits, loss = network.forward(Variable(x), y, 0)
        operations = len(network._tape.entries)
        outputs = [logits.value.copy(), *(g.copy() for g in network.gradients(loss).values())]
        for count in (4, 6):  # the number of samples in a batch
            network.train_step(x[:count], y[:count], 0.1, 1)
        return [*outputs, network.predict(x), *network.arrays().values()], operations

    together, fewer = step()
    monkeypatch.setattr(
        LayerBuilder, "build_all", lambda self, layers: [self.build(x) for x in layers]
    )
    one_by_one, operations = step()
    # A ReLU is fused with the dense layer before it. It is also fused with the norm layer of
    # images before it, unless a pooling layer follows.
    assert fewer == operations - 4
    for a, b in zip(together, one_by_one, strict=True):
        assert_array_equal(a, b)
