"""Layers as ``torch.nn`` modules, for samples (N, D) or images (N, C, H, W).

The name of a child module is the end of its layer's name, so the keys of the ``state_dict`` of a
network are names in the architecture, such as "residual1.shortcut.conv2d1.weight".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn

from nnopt.architecture import layers as records
from nnopt.architecture.inference import InferredLayer
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.backends.torch.activations import SOFTPLUS_THRESHOLD, PReLU, Sigmoid, Tanh
from nnopt.backends.torch.dropout import build_dropout
from nnopt.backends.torch.normalization import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from nnopt.schema import Config
from nnopt.schema.tables import filled


class Residual(nn.Sequential):
    """branch(x) + shortcut(x).

    The child named "shortcut" computes the shortcut. Without such a child, the shortcut is x. The
    other children are the branch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the outputs of branch and shortcut."""
        branch, shortcut = x, x
        for name, child in self.named_children():
            if name == "shortcut":
                shortcut = child(x)
            else:
                branch = child(branch)
        return branch + shortcut


class GlobalAvgPool(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (N, C) of images (N, C, H, W)."""
        return x.mean((2, 3))


WITHOUT_OPTIONS: dict[type, Callable[[], nn.Module]] = {
    records.ReLU: nn.ReLU,
    records.GELU: nn.GELU,
    records.Tanh: Tanh,
    records.Sigmoid: Sigmoid,
    records.SiLU: nn.SiLU,
    records.SELU: nn.SELU,
    records.GELUTanh: partial(nn.GELU, "tanh"),
    records.Softplus: partial(nn.Softplus, threshold=SOFTPLUS_THRESHOLD),
    records.Mish: nn.Mish,
    records.HardSwish: nn.Hardswish,
    records.Flatten: nn.Flatten,
    records.GlobalAvgPool: GlobalAvgPool,
}


def _without_options(make: Callable[[], nn.Module], layer: InferredLayer) -> nn.Module:
    return make()


MODULES: dict[type, Callable[[InferredLayer], nn.Module]] = filled(
    "layer/torch",
    {record: partial(_without_options, make) for record, make in WITHOUT_OPTIONS.items()},
)
"""Class of a layer without options, or of a layer of a plug-in -> function that makes a module."""


def build_module(architecture: Architecture, config: Config) -> nn.Module:
    """Return the whole network on its device. ``TorchNetwork.load`` sets the weights."""
    if isinstance(architecture, ModuleArchitecture):
        from nnopt.backends.torch.vision import build_model  # imports torchvision

        return build_model(architecture, config)
    return build_sequential(architecture.layers, config).to_empty(device=config.backend.device)


def build_sequential(layers: Iterable[InferredLayer], config: Config) -> nn.Sequential:
    """Return a module that applies the layers in order. Its parameters are on the meta device."""
    return nn.Sequential(_children(layers, config))


def _children(layers: Iterable[InferredLayer], config: Config) -> OrderedDict[str, nn.Module]:
    return OrderedDict((x.name.rpartition(".")[2], _module(x, config)) for x in layers)


def _module(layer: InferredLayer, config: Config) -> nn.Module:
    size = layer.input_shape[0]
    match layer.record:
        case records.Dense(_, bias):
            return nn.Linear(size, layer.output_shape[0], bias, device="meta")
        case records.Conv2d():
            return _conv2d(layer, layer.record)
        case records.MaxPool2d() as pool:
            return nn.MaxPool2d(pool.size, pool.stride_size, pool.padding)
        case records.AvgPool2d() as pool:
            return nn.AvgPool2d(pool.size, pool.stride_size, pool.padding)
        case records.BatchNorm(momentum, epsilon):
            kind = BatchNorm2d if len(layer.input_shape) == 3 else BatchNorm1d
            batch_norm = kind(size, epsilon, momentum, device="meta")
            batch_norm.num_batches_tracked = None  # the number of steps is not used
            return batch_norm
        case records.LayerNorm(epsilon) if len(layer.input_shape) == 1:
            return LayerNorm(size, epsilon, device="meta")
        case records.LayerNorm() | records.GroupNorm() | records.InstanceNorm() as norm:
            # GroupNorm scales each channel, PyTorch's LayerNorm each element, InstanceNorm nothing.
            groups = norm.count_groups(layer.name, layer.input_shape)
            return GroupNorm(groups, size, norm.epsilon, device="meta")
        case records.LeakyReLU(slope):
            return nn.LeakyReLU(slope)
        case records.ELU(alpha):
            return nn.ELU(alpha)
        case records.PReLU():
            (slopes,) = layer.parameters["weight"]
            return PReLU(slopes, device="meta")
        case records.Dropout(rate):
            return build_dropout(layer.name, rate, config)
        case records.SpatialDropout(rate):
            return build_dropout(layer.name, rate, config, axes=2)
        case records.Residual():
            children = _children(layer.inner, config)
            if layer.skip_probability:  # set the branch to 0 for random samples
                dropout = build_dropout(layer.name, layer.skip_probability, config, axes=1)
                children["stochastic_depth"] = dropout
            if layer.shortcut:
                children["shortcut"] = build_sequential(layer.shortcut, config)
            return Residual(children)
    return MODULES[type(layer.record)](layer)


def _conv2d(layer: InferredLayer, record: records.Conv2d) -> nn.Module:
    """Return a convolution. A frozen weight is a buffer, without a gradient and penalties."""
    channels = layer.input_shape[0], layer.output_shape[0]
    window = record.kernel, record.stride, record.padding_size
    conv = nn.Conv2d(*channels, *window, groups=record.groups, bias=record.bias, device="meta")
    if record.frozen:
        weight = conv.weight.detach()
        del conv.weight
        conv.register_buffer("weight", weight)
    return conv
