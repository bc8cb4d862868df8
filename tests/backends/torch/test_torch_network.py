"""The PyTorch network, compared with plain PyTorch and with formulas in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional as F

from nnopt.backends.numpy.update_rules import OPTIMIZERS as EVERYWHERE
from nnopt.backends.protocol import Network
from nnopt.backends.torch import step_sums
from nnopt.backends.torch.network import TorchNetwork
from nnopt.schema import Activation

MakeNetwork = Callable[..., TorchNetwork]
Batches = list[tuple[np.ndarray, np.ndarray]]

MLP = [{"dense": 8}, "relu", {"dense": "classes"}]
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def as_tensors(batch: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(batch[0]), torch.tensor(batch[1])


def gradients(network: Network, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the gradient of every parameter, which one step of SGD with lr 1 subtracts."""
    before = network.arrays()
    network.train_step(*as_tensors(batch), 1.0, 0)
    after = network.arrays()
    return {name: before[name] - after[name] for name in before if "running" not in name}


LAYERS = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "gelu": nn.GELU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "softplus": nn.Softplus(threshold=1000),
    "mish": nn.Mish(),
    "hard_swish": nn.Hardswish(),
}


def test_every_activation_without_parameters_is_compared() -> None:
    assert set(LAYERS) == set(get_args(Activation)) - {"prelu"}


@pytest.mark.parametrize("name", LAYERS)
def test_activation_equals_torch(make_network: MakeNetwork, batches: Batches, name: str) -> None:
    network = make_network("torch", [{"dense": 8}, name, {"dense": "classes"}])
    w = {key: torch.tensor(value) for key, value in network.arrays().items()}
    x = torch.tensor(batches[0][0])
    hidden = LAYERS[name](x @ w["dense1.weight"].T + w["dense1.bias"])
    expected = hidden @ w["dense2.weight"].T + w["dense2.bias"]
    assert_allclose(network.predict(x), expected, **EXACT)


def test_residual_layer_adds_the_branch_and_prefixes_array_names(
    make_network: MakeNetwork, batches: Batches
) -> None:
    layers = [{"residual": [{"dense": 6}, "batch_norm", "tanh"]}, {"dense": "classes"}]
    network = make_network("torch", layers)
    w = network.arrays()
    assert list(w) == [
        "residual1.dense1.weight",
        "residual1.dense1.bias",
        "residual1.batch_norm1.weight",
        "residual1.batch_norm1.bias",
        "residual1.batch_norm1.running_mean",
        "residual1.batch_norm1.running_var",
        "dense1.weight",
        "dense1.bias",
    ]
    x = batches[0][0]
    z = x @ w["residual1.dense1.weight"].T + w["residual1.dense1.bias"]
    norm = {key.rpartition(".")[2]: v for key, v in w.items() if "norm" in key}
    z = (z - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
    hidden = x + np.tanh(z * norm["weight"] + norm["bias"])
    expected = hidden @ w["dense1.weight"].T + w["dense1.bias"]
    assert_allclose(network.predict(torch.tensor(x)), expected, **EXACT)


def test_flatten_of_images_equals_reshape(make_network: MakeNetwork) -> None:
    network = make_network("torch", ["flatten", {"dense": "classes"}], input_shape=(2, 3, 3))
    x = np.random.default_rng(0).standard_normal((5, 2, 3, 3))
    w = network.arrays()
    expected = x.reshape(5, 18) @ w["dense1.weight"].T + w["dense1.bias"]
    assert_allclose(network.predict(torch.tensor(x)), expected, **EXACT)


def test_running_statistics_use_the_unbiased_variance(
    make_network: MakeNetwork, batches: Batches
) -> None:
    layers = [{"batch_norm": {"momentum": 0.3, "epsilon": 1e-2}}, {"dense": "classes"}]
    network = make_network("torch", layers)
    before, x = network.arrays(), batches[0][0]
    network.train_step(*as_tensors(batches[0]), 0.0, 0)
    after = network.arrays()
    for key, seen in (("mean", x.mean(axis=0)), ("var", x.var(axis=0, ddof=1))):
        name = f"batch_norm1.running_{key}"
        assert_allclose(after[name], 0.7 * before[name] + 0.3 * seen, **EXACT)


def test_prediction_changes_no_array(make_network: MakeNetwork, batches: Batches) -> None:
    layers = [{"dense": 8}, "batch_norm", "relu", {"dropout": 0.5}, {"dense": "classes"}]
    network = make_network("torch", layers)
    before, x = network.arrays(), torch.tensor(batches[0][0])
    assert_array_equal(network.predict(x), network.predict(x))
    for name, array in network.arrays().items():
        assert_array_equal(array, before[name])


def test_prediction_does_not_affect_training(make_network: MakeNetwork, batches: Batches) -> None:
    layers = [{"dense": 8}, "batch_norm", {"dropout": 0.4}, {"dense": "classes"}]
    alone, watched = make_network("torch", layers), make_network("torch", layers)
    for step, (x, y) in enumerate(map(as_tensors, batches)):
        watched.predict(x)
        for network in (alone, watched):
            network.train_step(x, y, 0.1, step)
    for name, array in watched.arrays().items():
        assert_array_equal(array, alone.arrays()[name])


def test_arrays_are_copies(make_network: MakeNetwork, batches: Batches) -> None:
    network = make_network("torch", MLP)
    before = network.arrays()
    kept = {name: array.copy() for name, array in before.items()}
    network.train_step(*as_tensors(batches[0]), 0.1, 0)
    for name, array in before.items():
        assert_array_equal(array, kept[name])
        array[:] = 0
    assert all(array.any() for array in network.arrays().values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_have_the_configured_type(
    make_network: MakeNetwork, batches: Batches, dtype: str
) -> None:
    layers = [{"dense": 8}, "batch_norm", {"dense": "classes"}]
    network = make_network("torch", layers, **{"backend.dtype": dtype})
    x = torch.tensor(batches[0][0]).to(getattr(torch, dtype))
    network.train_step(x, torch.tensor(batches[0][1]), 0.1, 0)
    assert {array.dtype for array in network.arrays().values()} == {np.dtype(dtype)}
    assert network.predict(x).dtype == dtype
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_formula(
    make_network: MakeNetwork, batches: Batches, smoothing: float
) -> None:
    changes = {"regularizer.label_smoothing": smoothing}
    network = make_network("torch", [{"dense": "classes"}], optimizer="sgd", **changes)
    x, y = batches[0]
    w = network.arrays()
    z = x @ w["dense1.weight"].T + w["dense1.bias"]
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * np.eye(4)[y] + smoothing / 4
    d_z = (np.exp(log_p) - target) / len(x)
    found = gradients(network, batches[0])
    assert_allclose(network.read_steps().losses, [-(target * log_p).sum() / len(x)], **EXACT)
    assert_allclose(found["dense1.weight"], d_z.T @ x, **EXACT)
    assert_allclose(found["dense1.bias"], d_z.sum(axis=0), **EXACT)


def test_hinge_sums_over_wrong_classes_and_averages_over_the_batch(
    make_network: MakeNetwork, batches: Batches
) -> None:
    network = make_network("torch", [{"dense": "classes"}], optimizer="sgd", loss="hinge")
    x, y = batches[0]
    w = network.arrays()
    z = x @ w["dense1.weight"].T + w["dense1.bias"]
    d_z, loss = np.zeros_like(z), 0.0
    for n in range(len(x)):
        for k in set(range(4)) - {y[n]}:
            margin = z[n, k] - z[n, y[n]] + 1
            if margin > 0:
                loss += margin / len(x)
                d_z[n, k] += 1 / len(x)
                d_z[n, y[n]] -= 1 / len(x)
    found = gradients(network, batches[0])
    assert_allclose(network.read_steps().losses, [loss], **EXACT)
    assert_allclose(found["dense1.weight"], d_z.T @ x, **EXACT)


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_penalties_act_on_norm_layers_and_biases_only_if_configured(
    make_network: MakeNetwork, batches: Batches, decay_norm_and_bias: bool
) -> None:
    layers = [{"dense": 8}, "layer_norm", "tanh", {"dense": "classes"}]
    bare = gradients(make_network("torch", layers, optimizer="sgd"), batches[0])
    changes = {
        "regularizer.l1": 0.03,
        "regularizer.l2": 0.2,
        "regularizer.decay_norm_and_bias": decay_norm_and_bias,
    }
    network = make_network("torch", layers, optimizer="sgd", **changes)
    w = network.arrays()
    for name, gradient in gradients(network, batches[0]).items():
        acts = decay_norm_and_bias or name in ("dense1.weight", "dense2.weight")
        penalty = 0.2 * w[name] + 0.03 * np.sign(w[name]) if acts else 0
        assert_allclose(gradient, bare[name] + penalty, **EXACT, err_msg=name)


@pytest.mark.parametrize(
    "optimizer", ["sgd", "momentum", "rmsprop", "adagrad", "adadelta", "adam", "nadam"]
)
def test_weight_decay_is_decoupled(
    make_network: MakeNetwork, batches: Batches, optimizer: str
) -> None:
    """Weight decay λ additionally subtracts lr·λ·w from each weight, but nothing from biases."""
    lr, decay = 0.05, 0.3
    plain, decayed = (
        make_network("torch", MLP, optimizer=optimizer, **{"regularizer.weight_decay": x})
        for x in (0.0, decay)
    )
    w = plain.arrays()
    for network in (plain, decayed):
        network.train_step(*as_tensors(batches[0]), lr, 0)
    after = decayed.arrays()
    for name, value in plain.arrays().items():
        expected = value - lr * decay * w[name] if name.endswith("weight") else value
        assert_allclose(after[name], expected, **EXACT, err_msg=name)


def test_adamw_decays_weights_by_default_and_adam_does_not(
    make_network: MakeNetwork, batches: Batches
) -> None:
    changes = {"adam": {}, "adamw": {}, "adam with decay": {"regularizer.weight_decay": 0.01}}
    ends = {}
    for name, change in changes.items():
        network = make_network("torch", MLP, optimizer=name.split()[0], **change)
        network.train_step(*as_tensors(batches[0]), 0.1, 0)
        ends[name] = network.arrays()["dense1.weight"]
    assert_array_equal(ends["adamw"], ends["adam with decay"])
    assert np.abs(ends["adamw"] - ends["adam"]).max() > 1e-5


def test_clipping_scales_the_whole_gradient(make_network: MakeNetwork, batches: Batches) -> None:
    penalty = {"regularizer.l2": 0.5}
    free = gradients(make_network("torch", MLP, optimizer="sgd", **penalty), batches[0])
    norm = np.sqrt(sum((g**2).sum() for g in free.values()))
    for largest in (norm / 3, norm * 3):
        changes = penalty | {"regularizer.grad_clip": float(largest)}
        network = make_network("torch", MLP, optimizer="sgd", **changes)
        scale = min(1.0, largest / (norm + 1e-6))
        for name, gradient in gradients(network, batches[0]).items():
            assert_allclose(gradient, scale * free[name], **EXACT)
        assert network.read_steps().gradient_norm == pytest.approx(norm, rel=1e-12)


def test_read_steps_returns_every_step_once(
    make_network: MakeNetwork, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is plain PyTorch. The network sums up its metrics after every three steps."""
    monkeypatch.setattr(step_sums, "MAX_PENDING_STEPS", 3)
    network = make_network("torch", MLP, optimizer="sgd", **{"regularizer.l2": 0.1})
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    module.load_state_dict(
        {
            new: torch.tensor(network.arrays()[old])
            for new, old in zip(
                module.state_dict(),
                ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"],
                strict=True,
            )
        }
    )
    losses, correct = [], 0
    for step, (x, y) in enumerate(map(as_tensors, batches)):
        network.train_step(x, y, 0.1, step)
        module.zero_grad()
        logits = module(x)
        loss = F.cross_entropy(logits, y)
        losses.append(loss.item())
        correct += int((logits.argmax(1) == y).sum())
        penalty = sum(0.05 * layer.weight.square().sum() for layer in (module[0], module[2]))
        (loss + penalty).backward()
        norm = torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
    record = network.read_steps()
    assert_allclose(record.losses, losses, **EXACT)
    assert record.losses.dtype == np.float64
    assert (record.correct, record.count) == (correct, 63)
    assert record.gradient_norm == pytest.approx(norm, rel=1e-12)
    network.train_step(*as_tensors(batches[0]), 0.1, 7)
    again = network.read_steps()
    assert (len(again.losses), again.count) == (1, 10)
    assert network.read_steps().count == 0


@pytest.mark.parametrize("optimizer", EVERYWHERE)
def test_learning_rate_zero_changes_no_bit(
    make_network: MakeNetwork, batches: Batches, optimizer: str
) -> None:
    network = make_network("torch", MLP, optimizer=optimizer)
    before = network.arrays()
    network.train_step(*as_tensors(batches[0]), 0.0, 0)
    for name, array in network.arrays().items():
        assert_array_equal(array, before[name])


def test_networks_share_no_state(make_network: MakeNetwork, batches: Batches) -> None:
    """Training another network and seeding PyTorch's generator between steps changes no bit."""
    layers = [{"dense": 8}, "batch_norm", "relu", {"dropout": 0.4}, {"dense": "classes"}]

    def steps(between: Callable[[int], object]) -> dict[str, np.ndarray]:
        network = make_network("torch", layers, **{"backend.dtype": "float32"})
        for step, (x, y) in enumerate(map(as_tensors, batches)):
            network.train_step(x.float(), y, 0.1, step)
            between(step)
        return network.arrays()

    other = make_network("torch", layers, optimizer="adam", seed=5)

    def disturb(step: int) -> None:
        torch.manual_seed(step)
        other.train_step(*as_tensors(batches[0]), 0.1, step)

    alone = steps(lambda step: None)
    generator_state = torch.get_rng_state()
    again = steps(lambda step: None)
    assert torch.equal(torch.get_rng_state(), generator_state)
    disturbed = steps(disturb)
    for name, array in alone.items():
        assert_array_equal(again[name], array)
        assert_array_equal(disturbed[name], array)


def test_threads_are_set_for_each_network(make_network: MakeNetwork) -> None:
    make_network("torch", MLP, **{"backend.threads": 2})
    assert torch.get_num_threads() == 2
    make_network("torch", MLP)  # one thread, because the network is small
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="PyTorch sees no accelerator here")
def test_training_on_accelerator_equals_training_on_cpu(
    make_network: MakeNetwork, batches: Batches
) -> None:
    device = str(torch.accelerator.current_accelerator())
    layers = [{"dense": 8}, "batch_norm", "relu", {"dropout": 0.4}, {"dense": "classes"}]
    changes = {"backend.shared_masks": True, "backend.dtype": "float32", "regularizer.l2": 0.01}
    ends = []
    for place in ("cpu", device):
        network = make_network("torch", layers, **changes | {"backend.device": place})
        for step, (x, y) in enumerate(map(as_tensors, batches)):
            network.train_step(x.float().to(place), y.to(place), 0.1, step)
        ends.append(network.arrays())
    for name, array in ends[0].items():
        assert_allclose(ends[1][name], array, rtol=1e-4, atol=1e-5)
