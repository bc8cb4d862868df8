"""The state of a network: another network that loads this state continues with the same bits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnopt.backends.numpy.update_rules import OPTIMIZERS as NUMPY_OPTIMIZERS
from nnopt.backends.protocol import Network

MakeNetwork = Callable[..., Network]

BEFORE, AFTER = 3, 4  # steps before and after the state is saved

LAYERS = ({"dense": 8}, "batch_norm", "relu", {"dropout": 0.3}, {"dense": "classes"})
IMAGE_LAYERS = ({"conv2d": 8}, "batch_norm", "relu", "global_avg_pool", {"dense": "classes"})
BOTH = tuple(NUMPY_OPTIMIZERS)
PYTORCH_ONLY = ("lion", "muon", "schedule_free_sgd", "schedule_free_adamw")
OPTIMIZERS = [
    *(("numpy", name) for name in BOTH),
    *(("torch", name) for name in (*BOTH, *PYTORCH_ONLY)),
]

MODES: dict[str, dict[str, Any]] = {
    "clipping": {"regularizer.grad_clip": 0.1},
    "max-norm": {"regularizer.max_norm": 0.5},
    "penalties": {"regularizer.l1": 0.01, "regularizer.l2": 0.1},
    "weight decay": {"optimizer": "adamw", "regularizer.weight_decay": 0.1},
    "centered RMSprop with momentum": {
        "optimizer": "rmsprop",
        "optimizer.momentum": 0.5,
        "optimizer.centered": True,
    },
    "AMSGrad": {"optimizer": "adam", "optimizer.amsgrad": True},
    "accumulation": {"batch_size": 10, "accumulation_steps": 3},
    "float32": {"backend.dtype": "float32", "optimizer": "adam"},
}


def train(network: Network, steps: range, shape: tuple[int, ...], average: bool) -> list[Any]:
    """Train on one batch for each of ``steps``, and return all predictions and training metrics."""
    found: list[Any] = []
    for step in steps:
        rng = np.random.default_rng(step)
        x, y = rng.standard_normal((10, *shape)), rng.integers(0, 4, 10)
        dtype = next(iter(network.arrays().values())).dtype
        inputs: Any = x.astype(dtype)
        if "torch" in type(network).__module__:
            import torch

            inputs, y = torch.from_numpy(inputs), torch.from_numpy(y)
        network.train_step(inputs, y, 0.05 / (step + 1), step)
        if average:
            network.average(0.3)
        if step % 2:  # an evaluation changes the mode of the layers
            found.append(network.predict(inputs))
    record = network.read_steps()
    found += [record.losses, record.correct, record.gradient_norm]
    network.recompute_statistics([inputs])
    return found


def assert_same(a: Any, b: Any) -> None:
    """Assert that two lists or dicts of arrays and numbers have the same bits."""
    pairs = a.items() if isinstance(a, dict) else enumerate(a)
    assert len(a) == len(b)
    for key, value in pairs:
        np.testing.assert_array_equal(value, b[key], strict=True, err_msg=str(key))


def assert_continues(make: Callable[[], Network], shape: tuple[int, ...], average: bool) -> None:
    """Assert that a network that loads a state computes the same as the network that saved it."""
    first, second = make(), make()
    train(first, range(BEFORE), shape, average)
    state = first.state()
    second.load({name: 0.5 * array for name, array in second.arrays().items()})
    second.load_state(state)
    assert_same(second.state(), state)
    later = range(BEFORE, BEFORE + AFTER)
    assert_same(train(second, later, shape, average), train(first, later, shape, average))
    assert_same(second.state(), first.state())
    assert_same(second.arrays(), first.arrays())
    changed = [name for name in state if not np.array_equal(state[name], first.state()[name])]
    assert any(name.startswith("weights/") for name in changed)


@pytest.mark.parametrize("average", [False, True], ids=["plain", "averaged"])
@pytest.mark.parametrize(("backend", "optimizer"), OPTIMIZERS)
def test_training_with_every_optimizer_continues_with_equal_bits(
    make_network: MakeNetwork, backend: str, optimizer: str, average: bool
) -> None:
    assert_continues(lambda: make_network(backend, LAYERS, optimizer=optimizer), (6,), average)


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_training_in_every_mode_continues_with_equal_bits(
    make_network: MakeNetwork, backend: str, options: dict[str, Any]
) -> None:
    assert_continues(lambda: make_network(backend, LAYERS, **options), (6,), average=True)


@pytest.mark.parametrize(
    ("backend", "optimizer"), [("numpy", "adam"), ("torch", "adam"), ("torch", "muon")]
)
def test_training_of_convolution_continues_with_equal_bits(
    make_network: MakeNetwork, backend: str, optimizer: str
) -> None:
    """On CPUs, the PyTorch backend keeps weights of convolutions in the channels-last layout."""
    shape, options = (3, 6, 6), {"optimizer": optimizer, "backend.dtype": "float32"}
    assert_continues(lambda: make_network(backend, IMAGE_LAYERS, shape, **options), shape, True)


def test_training_in_fp16_continues_with_equal_bits(make_network: MakeNetwork) -> None:
    """The scale of the loss is reduced in the first steps, because the gradients overflow."""
    options = {"backend.precision": "fp16", "backend.dtype": "float32"}
    network = make_network("torch", LAYERS, **options)
    assert network.state()["scaler/scale"] == 2**16
    assert_continues(lambda: make_network("torch", LAYERS, **options), (6,), average=False)


@pytest.mark.parametrize(("backend", "optimizer"), OPTIMIZERS)
def test_state_saved_before_the_first_step_can_be_loaded(
    make_network: MakeNetwork, backend: str, optimizer: str
) -> None:
    first, second = (make_network(backend, LAYERS, optimizer=optimizer) for _ in range(2))
    second.load({name: 0.5 * array for name, array in first.arrays().items()})
    second.load_state(first.state())
    assert_same(train(second, range(2), (6,), False), train(first, range(2), (6,), False))
    assert_same(second.state(), first.state())


def renamed(state: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.replace("dense1", "dense9"): array for name, array in state.items()}


DAMAGES: dict[str, tuple[Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]], str]] = {
    "missing": (
        lambda x: {k: v for k, v in x.items() if k != "weights/dense1.bias"},
        "weights/dense1.bias is missing",
    ),
    "unexpected": (lambda x: x | {"weights/other": np.zeros(1)}, "weights/other is unexpected"),
    "of another kind": (lambda x: x | {"average/dense1.bias": np.zeros(8)}, "average/"),
    "of another optimizer": (
        lambda x: x | {"optimizer/other/dense1.bias": np.zeros(8)},
        "optimizer/other/dense1.bias is unexpected",
    ),
    "of another shape": (
        lambda x: x | {"weights/dense1.bias": np.zeros(9)},
        "weights/dense1.bias is float64 (9,), expected float64 (8,)",
    ),
    "of another type": (
        lambda x: x | {"gradients/dense1.bias": np.zeros(8, np.float32)},
        "gradients/dense1.bias is float32 (8,), expected float64 (8,)",
    ),
    "a wrong number": (lambda x: x | {"weights/dense1.bias": np.array(1.0)}, "float64 ()"),
    "empty": (lambda x: {}, " more"),
    "renamed": (renamed, " more"),
}


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize(("change", "fragment"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_state_of_another_network_is_refused_and_changes_nothing(
    make_network: MakeNetwork,
    backend: str,
    optimizer: str,
    change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    fragment: str,
) -> None:
    network, other = (make_network(backend, LAYERS, optimizer=optimizer) for _ in range(2))
    train(network, range(2), (6,), False)
    train(other, range(3), (6,), False)
    before, damaged = network.state(), change(other.state())
    with pytest.raises(ValueError, match=re.escape(fragment)) as error:
        network.load_state(damaged)
    assert str(error.value).count(";") < 5
    assert_same(network.state(), before)


def test_load_state_error_contains_at_most_five_differences(make_network: MakeNetwork) -> None:
    network = make_network("numpy", LAYERS, optimizer="sgd")
    count = len(network.state())
    with pytest.raises(ValueError, match=f"^([^;]+ is missing; ){{4}}[^;]+ and {count - 5} more$"):
        network.load_state({})
