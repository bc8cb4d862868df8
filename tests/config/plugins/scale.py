"""A plug-in for tests: a layer for flat samples and images, a dataset of images, and a loss."""

from typing import Any

import numpy as np

from nnopt import DatasetConfig, Layer, Registry, Samples, Shape, generator


class Scale(Layer):
    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": (shape[0],)}

    def initial_value(self, key: str) -> float:
        return 0.5


class ScaleModule(Scale):
    pass


def forward(x: Any, scale: Any) -> Any:
    factors = scale.reshape(1, -1, *[1] * (x.ndim - 2))
    return x * factors, (x, factors)


def backward(g: Any, saved: Any) -> Any:
    x, factors = saved
    return g * factors, (g * x).sum(axis=(0, *range(2, g.ndim)))


def function(x: Any, scale: Any) -> Any:
    return x * scale.view(1, -1, *[1] * (x.dim() - 2))


def module(shape: Shape) -> Any:
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(shape[0]))

        def forward(self, x: Any) -> Any:
            return function(x, self.scale)

    return Module()


def load(config: Any, root: Any) -> Samples:
    pixels = generator(0, "pictures").integers(0, 256, (40, 2, 6, 6), dtype=np.uint8)
    labels = np.arange(40) % 3
    return Samples("abc", (pixels[:30], labels[:30]), (pixels[30:], labels[30:]))


class PicturesConfig(DatasetConfig):
    pass


def brier_forward(logits: Any, targets: Any) -> Any:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return np.sum((p - targets) ** 2) / len(p), (p, targets)


def brier_backward(g: Any, saved: Any) -> Any:
    p, targets = saved
    d_p = 2 * g * (p - targets) / len(p)
    return p * (d_p - np.sum(d_p * p, axis=1, keepdims=True))


def brier(logits: Any, targets: Any) -> Any:
    return ((logits.softmax(dim=1) - targets) ** 2).sum() / len(logits)


def register(registry: Registry) -> None:
    registry.loss("brier", numpy=(brier_forward, brier_backward), torch=brier, takes_targets=True)
    registry.loss("brier_torch", torch=brier, takes_targets=True)
    registry.layer("scale", Scale, numpy=(forward, backward), torch=function)
    registry.layer("scale_module", ScaleModule, numpy=(forward, backward), module=module)
    registry.dataset("pictures", PicturesConfig, load)
