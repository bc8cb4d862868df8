"""Layer records as ``torch.nn`` modules, for samples (N, D) or images (N, C, H, W).

A child is called what its record is called in the architecture, so that a module's ``state_dict``
has the architecture's names: "dense1.weight", "residual1.batch_norm1.running_mean",
"residual1.shortcut.conv2d1.weight".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from nnopt.architecture import layers as records
from nnopt.architecture.inference import InferredLayer
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.backends.torch.activations import Sigmoid, Tanh
from nnopt.backends.torch.dropout import dropout
from nnopt.backends.torch.normalization import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from nnopt.schema import Config


class Residual(nn.Sequential):
    """branch(x) + shortcut(x): the branch is the children one after another, but for the one named
    "shortcut", without which the shortcut is x itself."""

    def forward(self, x: Tensor) -> Tensor:
        branch, beside = x, x
        for name, child in self.named_children():
            if name == "shortcut":
                beside = child(x)
            else:
                branch = child(branch)
        return branch + beside


class GlobalAvgPool(nn.Module):
    """(N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


WITHOUT_OPTIONS: dict[type, type[nn.Module]] = {
    records.ReLU: nn.ReLU,
    records.GELU: nn.GELU,
    records.Tanh: Tanh,
    records.Sigmoid: Sigmoid,
    records.SiLU: nn.SiLU,
    records.Flatten: nn.Flatten,
    records.GlobalAvgPool: GlobalAvgPool,
}


def build_module(architecture: Architecture, config: Config) -> nn.Module:
    """The whole network on its device, without weights yet."""
    if isinstance(architecture, ModuleArchitecture):
        from nnopt.backends.torch.vision import build_model  # imports torchvision

        return build_model(architecture, config)
    return sequence(architecture.layers, config).to_empty(device=config.backend.device)


def sequence(layers: Iterable[InferredLayer], config: Config) -> nn.Sequential:
    """The layers one after another. Their parameters hold arbitrary numbers until they are loaded;
    PyTorch's own initialization, and its global generator, are not touched."""
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
        case (
            records.BatchNorm() | records.LayerNorm() | records.GroupNorm() | records.InstanceNorm()
        ):
            return _norm(layer)
        case records.LeakyReLU(slope):
            return nn.LeakyReLU(slope)
        case records.Dropout(rate):
            return dropout(layer.name, rate, config)
        case records.SpatialDropout(rate):
            return dropout(layer.name, rate, config, axes=2)
        case records.Residual():
            children = _children(layer.inner, config)
            if layer.skip_probability:  # whole samples, at the branch's end
                children["stochastic_depth"] = dropout(
                    layer.name, layer.skip_probability, config, axes=1
                )
            if layer.shortcut:
                children["shortcut"] = sequence(layer.shortcut, config)
            return Residual(children)
    return WITHOUT_OPTIONS[type(layer.record)]()


def _conv2d(layer: InferredLayer, record: records.Conv2d) -> nn.Module:
    """A frozen weight is a buffer: no optimizer, penalty or norm of the gradient sees it."""
    conv = nn.Conv2d(
        layer.input_shape[0],
        layer.output_shape[0],
        record.kernel,
        record.stride,
        record.padding_size,
        groups=record.groups,
        bias=record.bias,
        device="meta",
    )
    if record.frozen:
        weight = conv.weight.detach()
        del conv.weight
        conv.register_buffer("weight", weight)
    return conv


def _norm(layer: InferredLayer) -> nn.Module:
    """PyTorch's own layer norm has a scale for each number of an image, its own instance norm none
    at all unless told: both are here group norm, with one group or a group for each channel."""
    is_image, size = len(layer.input_shape) == 3, layer.input_shape[0]
    match layer.record:
        case records.BatchNorm(momentum, epsilon):
            kind = BatchNorm2d if is_image else BatchNorm1d
            norm = kind(size, epsilon, momentum, device="meta")
            norm.num_batches_tracked = None  # counts steps, which nothing here reads
            return norm
        case records.LayerNorm(epsilon) if not is_image:
            return LayerNorm(size, epsilon, device="meta")
        case records.GroupNorm(groups, epsilon):
            return GroupNorm(groups, size, epsilon, device="meta")
        case records.LayerNorm(epsilon):
            return GroupNorm(1, size, epsilon, device="meta")
        case records.InstanceNorm(epsilon):
            return GroupNorm(size, size, epsilon, device="meta")
    raise TypeError(f"{layer.name} is no normalization")
