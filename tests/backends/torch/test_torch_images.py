"""Image layers as PyTorch modules: inferred shapes, names, FLOPs and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nnopt import schema
from nnopt.architecture.builders import build
from nnopt.architecture.initializers import initial_arrays
from nnopt.architecture.layers import LAYERS, Conv2d, Dense, Residual
from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.backends.torch.dropout import DeviceMasks, Dropout
from nnopt.backends.torch.modules import build_sequential
from nnopt.backends.torch.network import TorchNetwork
from nnopt.random import DropoutMasks
from nnopt.schema import Activation, Config

MakeConfig = Callable[..., Config]
MakeNetwork = Callable[..., TorchNetwork]

IMAGE, CLASSES = (6, 8, 9), 4
ON_IMAGES: dict[str, list[Any]] = {
    "conv2d": [
        {"conv2d": 5},
        {"conv2d": {"channels": 4, "kernel": 4, "stride": 3, "padding": 2, "groups": 2}},
        {"conv2d": {"channels": "classes", "kernel": 1, "padding": 3, "bias": False}},
        {"conv2d": {"channels": 6, "groups": 6}},
    ],
    "max_pool2d": ["max_pool2d", {"max_pool2d": {"size": 3, "stride": 2, "padding": 1}}],
    "avg_pool2d": [{"avg_pool2d": 3}, {"avg_pool2d": {"size": 3, "stride": 1, "padding": 1}}],
    "global_avg_pool": ["global_avg_pool"],
    "batch_norm": ["batch_norm"],
    "layer_norm": ["layer_norm"],
    "group_norm": [{"group_norm": 3}],
    "instance_norm": ["instance_norm"],
    "dropout": [{"dropout": 0.3}],
    "spatial_dropout": [{"spatial_dropout": 0.3}, {"spatial_dropout": 0}],
    "flatten": ["flatten"],
    "residual": [
        {"residual": ["relu"]},
        {
            "residual": {
                "layers": [{"conv2d": {"channels": 4, "stride": 2}}, "batch_norm"],
                "shortcut": [{"conv2d": {"channels": 4, "kernel": 1, "stride": 2}}, "layer_norm"],
            }
        },
    ],
}
"""Layers of every kind that accepts images, except element-wise functions."""

HEAD = ["flatten", {"dense": "classes"}]


def head_of(layer: Any) -> list[Any]:
    flat = layer in ("global_avg_pool", "flatten")
    return HEAD[1:] if flat else HEAD


CASES = [layer for layers in ON_IMAGES.values() for layer in layers]


def images(seed: int = 0, count: int = 5, shape: tuple[int, ...] = IMAGE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator)


def assert_shapes(module: nn.Module, architecture: Architecture) -> None:
    """Check that outputs, state and parameters of every module have the inferred shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, child in module.named_modules():
        child.register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    module(images(shape=architecture.input_shape).to(torch.float32))
    for layer in architecture.walk():
        assert shapes[layer.name] == layer.output_shape, layer.name
    state = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert state == architecture.parameter_shapes() | architecture.statistic_shapes()


def test_image_cases_contain_all_layers_except_elementwise_and_dense() -> None:
    assert set(ON_IMAGES) | set(get_args(Activation)) | {"dense"} == set(LAYERS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", [*CASES, *get_args(Activation)], ids=str)
def test_layer_output_has_the_inferred_shape(
    make_config: MakeConfig, layer: Any, training: bool
) -> None:
    architecture = infer_shapes(parse_layers([layer, *head_of(layer)]), IMAGE, CLASSES)
    module = build_sequential(architecture.layers, make_config(backend="torch")).to_empty(
        device="cpu"
    )
    assert_shapes(module.train(training), architecture)


NETWORKS: dict[str, schema.ArchitectureVariant] = {
    "three_layer_conv": schema.ThreeLayerConvConfig("three_layer_conv", 8, 5, 16, "gelu"),
    "vgg": schema.VggConfig("vgg", (8, 16, 24), 2, 16, "relu"),
    "resnet 9": schema.ResnetConfig("resnet", 9, 8),
    "resnet 18": schema.ResnetConfig("resnet", 18, 8),
    "resnet 20": schema.ResnetConfig("resnet", 20, 8),
}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_outputs_have_the_inferred_shapes(
    make_config: MakeConfig, name: str, norm: str, shape: tuple[int, ...]
) -> None:
    changes = {"regularizer.norm": norm, "regularizer.dropout": 0.1}
    config = make_config(backend="torch", **changes)
    architecture = build(NETWORKS[name], config.regularizer, shape, 10)
    module = build_sequential(architecture.layers, config).to_empty(device="cpu")
    assert_shapes(module, architecture)


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        (schema.VggConfig("vgg", (32, 64, 128), 2, 256, "relu"), 814_826),
        (schema.ResnetConfig("resnet", 9, None), 6_573_130),
        (schema.ResnetConfig("resnet", 18, None), 11_173_962),
        (schema.ResnetConfig("resnet", 20, None), 272_474),
    ],
    ids=str,
)
def test_parameters_and_flops_equal_counts_of_pytorch(
    make_config: MakeConfig, variant: schema.ArchitectureVariant, parameters: int
) -> None:
    """PyTorch counts only the multiplications and additions of convolutions and matrix products."""
    config = make_config(backend="torch", **{"regularizer.norm": "batch"})
    architecture = build(variant, config.regularizer, (3, 32, 32), 10)
    module = build_sequential(architecture.layers, config)
    assert architecture.parameter_count == parameters
    assert sum(p.numel() for p in module.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.empty(1, 3, 32, 32, device="meta"))
    products = [x for x in architecture.walk() if isinstance(x.record, Conv2d | Dense)]
    biases = sum(math.prod(x.output_shape) for x in products if "bias" in x.parameters)
    assert sum(layer.flops for layer in products) == counter.get_total_flops() + biases
    rest = sum(
        layer.flops
        for layer in architecture.walk()
        if not isinstance(layer.record, Conv2d | Dense | Residual)
    )
    additions = sum(
        math.prod(x.output_shape) for x in architecture.walk() if isinstance(x.record, Residual)
    )
    total = counter.get_total_flops() + biases + rest + additions
    assert architecture.flops_per_sample == total


def forward(make_network: MakeNetwork, layer: Any, training: bool = True) -> tuple[Any, Any, Any]:
    """Return a layer's module, the arrays of its network, and the layer's input and output."""
    network = make_network("torch", [layer, *head_of(layer)], input_shape=IMAGE)
    x = images()
    arrays = {k: torch.tensor(v) for k, v in network.arrays().items()}
    module = network.module[0].train(training)
    return module, arrays, (x, module(x))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_of_images_equals_formula(make_network: MakeNetwork, training: bool) -> None:
    module, arrays, (x, y) = forward(make_network, "batch_norm", training)
    w, b = (arrays[f"batch_norm1.{key}"].view(-1, 1, 1) for key in ("weight", "bias"))
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    if not training:
        mean, variance = (arrays[f"batch_norm1.running_{key}"] for key in ("mean", "var"))
    expected = (x - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt() * w + b
    assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-12)
    moved = 0.9 * arrays["batch_norm1.running_var"] + 0.1 * x.var((0, 2, 3))
    after = moved if training else arrays["batch_norm1.running_var"]
    assert_allclose(module.running_var, after, rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "groups"), [("layer_norm", 1), ({"group_norm": 3}, 3), ("instance_norm", 6)], ids=str
)
def test_norm_layers_of_single_images_equal_formula(
    make_network: MakeNetwork, layer: Any, groups: int
) -> None:
    """The mean and variance are over the channels of a group and all positions."""
    _, arrays, (x, y) = forward(make_network, layer)
    weight, bias = (v.view(-1, 1, 1) for k, v in arrays.items() if "_norm1." in k)
    rows = x.view(5, groups, -1)
    mean, variance = rows.mean(2, keepdim=True), rows.var(2, unbiased=False, keepdim=True)
    expected = ((rows - mean) / (variance + 1e-5).sqrt()).view_as(x) * weight + bias
    assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-12)


def test_pooling_equals_formula(make_network: MakeNetwork) -> None:
    options = {"size": 3, "stride": 2, "padding": 1}
    _, _, (x, y) = forward(make_network, {"max_pool2d": options})
    windows = F.pad(x, (1,) * 4, value=-torch.inf).unfold(2, 3, 2).unfold(3, 3, 2)
    assert torch.equal(y, windows.amax((4, 5)))
    _, _, (x, y) = forward(make_network, {"avg_pool2d": options})
    windows = F.pad(x, (1,) * 4).unfold(2, 3, 2).unfold(3, 3, 2)
    assert_allclose(y, windows.mean((4, 5)), rtol=1e-12, atol=1e-14)
    _, _, (x, y) = forward(make_network, "global_avg_pool")
    assert_allclose(y, x.sum((2, 3)) / 72, rtol=1e-12, atol=1e-14)


def test_convolution_with_every_option_equals_formula(make_network: MakeNetwork) -> None:
    """The formula multiplies each window by the part of the weight for the same group."""
    options = {"channels": 4, "kernel": 4, "stride": 3, "padding": 2, "groups": 2}
    _, arrays, (x, y) = forward(make_network, {"conv2d": options})
    windows = F.pad(x, (2,) * 4).unfold(2, 4, 3).unfold(3, 4, 3)  # (N, C, H, W, 4, 4)
    grouped = windows.reshape(5, 2, 3, *windows.shape[2:])
    weight = arrays["conv2d1.weight"].reshape(2, 2, 3, 4, 4)
    expected = torch.einsum("ngchwij,gocij->ngohw", grouped, weight).flatten(1, 2)
    expected += arrays["conv2d1.bias"].view(-1, 1, 1)
    assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-12)


def test_residual_layer_adds_the_shortcut(make_network: MakeNetwork) -> None:
    layers = {"layers": ["tanh", {"conv2d": 6}], "shortcut": [{"conv2d": 6}, "relu"]}
    _, arrays, (x, y) = forward(make_network, {"residual": layers})

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"], padding=1)

    expected = conv("residual1.conv2d1", x.tanh())
    expected += conv("residual1.shortcut.conv2d1", x).relu()
    assert_allclose(y.detach(), expected, rtol=1e-12, atol=1e-12)


def test_spatial_dropout_drops_whole_channels(make_network: MakeNetwork) -> None:
    """The masks (N, C) apply to all positions. Shared masks equal the masks of NumPy."""
    rate, x = 0.4, images(count=50)
    changes = {"backend.shared_masks": True, "seed": 3}
    layers = [{"spatial_dropout": rate}, *HEAD]
    network = make_network("torch", layers, input_shape=IMAGE, **changes)
    module = network.module[0]
    assert isinstance(module, Dropout)
    masks = DropoutMasks(3, "spatial_dropout1", rate)
    for step in (0, 7):
        module.set_step(step)
        expected = x.numpy() * masks.draw(step, (50, 6))[..., None, None] * masks.scale
        assert_array_equal(module(x), expected)
    assert torch.equal(module.eval()(x), x)
    y = Dropout(DeviceMasks(0, "spatial_dropout1", rate, torch.device("cpu")), axes=2)(x)
    kept = (y != 0).flatten(2)
    assert torch.equal(kept.any(2), kept.all(2))
    assert 0.5 < kept.any(2).double().mean() < 0.7


def test_dropout_of_images_drops_single_elements() -> None:
    y = Dropout(DeviceMasks(0, "dropout1", 0.5, torch.device("cpu")))(images())
    assert (y == 0).any((2, 3)).all()
    assert (y != 0).any((2, 3)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_training_lowers_the_loss(make_config: MakeConfig, name: str) -> None:
    """Twenty steps on eight images halve the loss. Loading restores the weights by name."""
    config = make_config(backend="torch", optimizer="adam", **{"regularizer.norm": "batch"})
    config = replace(config, seed=1)
    architecture = build(NETWORKS[name], config.regularizer, (1, 14, 14), CLASSES)
    network = TorchNetwork(architecture, config)
    network.load(initial_arrays(architecture, config.initializer, 1))
    x, y = images(count=8, shape=(1, 14, 14)).float(), torch.arange(8) % CLASSES
    for step in range(20):
        network.train_step(x, y, 3e-3, step)
    losses = network.read_steps().losses
    assert losses[-1] < losses[0] / 2
    other = TorchNetwork(architecture, config)
    other.load(network.arrays())
    assert_array_equal(other.predict(x), network.predict(x))
    assert np.isfinite(network.predict(x)).all()
