"""Layers, shapes, parameters and FLOPs of a module that nnopt did not build.

They are recorded in a forward pass on PyTorch's meta device, whose tensors have no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nnopt.architecture import layers as records
from nnopt.architecture.inference import ForeignLayer, InferredLayer, Layer, Shape


@torch.no_grad()
def inspect(
    model: nn.Module, input_shape: Shape
) -> tuple[tuple[InferredLayer, ...], dict[str, Shape], int]:
    """Inspect a model on the meta device, for samples of ``input_shape``.

    Return the layers in the order in which they are first called, the shapes of parameters outside
    of layers, and the FLOPs of the forward pass of one sample.
    """
    model.eval()
    seen: dict[str, list[Shape]] = {}  # shapes [input, output] of the last call

    def before(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.setdefault(name, [])

    def after(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            seen[name] = [tuple(x.shape[1:]) for x in (inputs[0], output)]

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(before, name)))
        hooks.append(module.register_forward_hook(partial(after, name)))
    try:
        with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
            model(torch.empty(1, *input_shape, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    whole = type(model).__name__
    flops = {
        key.removeprefix(f"{whole}."): sum(by_operation.values())
        for key, by_operation in counter.get_flop_counts().items()
    }
    order = {name: index for index, name in enumerate(seen)}
    shapes = {name: (pair[0], pair[1]) for name, pair in seen.items() if pair}
    return *_infer_layers(model, "", shapes, order, flops), flops[whole]


def _infer_layers(
    module: nn.Module,
    name: str,
    shapes: Mapping[str, tuple[Shape, Shape]],
    order: Mapping[str, int],
    flops: Mapping[str, int],
) -> tuple[tuple[InferredLayer, ...], dict[str, Shape]]:
    """Return the layers inside a module, and the shapes of parameters outside of these layers.

    A module is no layer if it is never called, if it is an ``nn.Identity``, or if its first input
    or its output is not a tensor. The parameters of such a module belong to the enclosing module.
    """
    own = {key: tuple(p.shape) for key, p in module.named_parameters(recurse=False)}
    layers: list[InferredLayer] = []
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        inner, parameters = _infer_layers(child, path, shapes, order, flops)
        if path not in shapes or isinstance(child, nn.Identity):
            layers += inner
            own |= {f"{key}.{name}": shape for name, shape in parameters.items()}
            continue
        statistics = {k: tuple(b.shape) for k, b in child.named_buffers(recurse=False)}
        statistics = {k: shape for k, shape in statistics.items() if k.startswith("running_")}
        record, count = _record(child), flops.get(path, 0)
        layers.append(
            InferredLayer(path, record, *shapes[path], count, parameters, statistics, inner)
        )
    return tuple(sorted(layers, key=lambda layer: order[layer.name])), own


RECORDS: dict[type[nn.Module], Layer] = {
    nn.ReLU: records.ReLU(),
    nn.GELU: records.GELU(),
    nn.SiLU: records.SiLU(),
    nn.Sigmoid: records.Sigmoid(),
    nn.Hardswish: records.HardSwish(),
    nn.Flatten: records.Flatten(),
}


def _record(module: nn.Module) -> Layer | ForeignLayer:
    """Return nnopt's record of a layer, or the layer's class if nnopt has no such layer."""
    match module:
        case nn.Conv2d(kernel_size=(k, kw), stride=(s, sw), padding=(p, pw)) if (k, s, p) == (
            kw,
            sw,
            pw,
        ):
            bias = module.bias is not None
            return records.Conv2d(module.out_channels, k, s, p, module.groups, bias)
        case nn.Linear():
            return records.Dense(module.out_features, module.bias is not None)
        case nn.BatchNorm2d(momentum=float(momentum), eps=epsilon):
            return records.BatchNorm(momentum, epsilon)
        case nn.MaxPool2d(kernel_size=int(size), stride=int(stride), padding=int(padding)):
            return records.MaxPool2d(size, stride, padding)
        case nn.AvgPool2d(kernel_size=int(size), stride=int(stride), padding=int(padding)):
            return records.AvgPool2d(size, stride, padding)
        case nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)):
            return records.GlobalAvgPool()
        case nn.Dropout(p=rate):
            return records.Dropout(rate)
    return RECORDS.get(type(module)) or ForeignLayer(type(module).__name__)


def _formulas() -> dict[Any, Callable[..., int]]:
    """Return, for each operation, a function from the arguments to the number of FLOPs.

    Tensor arguments are given as shapes. FLOPs are counted as in ``nnopt.architecture.inference``.
    PyTorch itself counts matrix products. Operations that only move data have no FLOPs.
    """
    aten = torch.ops.aten

    def output_elements(*_: Any, out_shape: Shape, **__: Any) -> int:
        return math.prod(out_shape)

    def convolution(x: Shape, weight: Shape, bias: Shape | None, *_: Any, out_shape: Shape) -> int:
        return math.prod(out_shape) * (2 * math.prod(weight[1:]) + (bias is not None))

    def dense(bias: Shape, x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
        return x[0] * weight[1] * (2 * x[1] + 1)

    def pool(x: Shape, window: list[int], *_: Any, out_shape: Any, **__: Any) -> int:
        # Max pooling returns a pair: the outputs and the indices of the maxima.
        output: Shape = out_shape if isinstance(out_shape[0], int) else out_shape[0]
        return math.prod(output) * math.prod(window if len(window) == 2 else 2 * window)

    def per_input_element(factor: int) -> Callable[..., int]:
        return lambda x, *_, **__: factor * math.prod(x)

    simple = "add add_ mul mul_ sub div div_ relu relu_ hardtanh hardtanh_"
    norms = "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm"
    costly = (
        "gelu silu silu_ sigmoid tanh _softmax hardswish hardswish_ hardsigmoid hardsigmoid_ "
        "native_layer_norm"
    )
    formulas: dict[str, Callable[..., int]] = {
        simple: output_elements,
        norms: per_input_element(4),
        costly: per_input_element(8),
        "mean _adaptive_avg_pool2d": per_input_element(1),
        "max_pool2d_with_indices avg_pool2d": pool,
        "convolution": convolution,
        "addmm": dense,
    }
    return {
        getattr(aten, name): count for names, count in formulas.items() for name in names.split()
    }
