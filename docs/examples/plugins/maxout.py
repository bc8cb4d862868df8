"""A layer: maxout, the largest of several dense outputs (Goodfellow et al. 2013)."""

from typing import Annotated

import numpy as np

from nnopt import Layer, Range, Registry


class Maxout(Layer):
    """y[n, u] = maxₚ (x Wᵀ + b)[n, u, p], with ``pieces`` dense outputs p for each unit u."""

    units: Annotated[int, Range(minimum=1)]
    pieces: Annotated[int, Range(minimum=2, maximum=100)] = 2

    def output_shape(self, shape):
        if len(shape) != 1:
            raise ValueError("maxout needs flat samples; put 'flatten' before it")
        return (self.units,)

    def parameters(self, shape):
        outputs = self.units * self.pieces
        return {"weight": (outputs, *shape), "bias": (outputs,)}


def forward(x, weight, bias, units, pieces):
    z = (x @ weight.T + bias).reshape(len(x), units, pieces)
    largest = z.argmax(axis=2)[:, :, None]
    return np.take_along_axis(z, largest, axis=2)[:, :, 0], (x, weight, z, largest)


def backward(g, saved):
    x, weight, z, largest = saved
    d_z = np.zeros_like(z)
    np.put_along_axis(d_z, largest, g[:, :, None], axis=2)
    d_z = d_z.reshape(len(x), -1)
    return d_z @ weight, d_z.T @ x, d_z.sum(axis=0)


def torch_function(x, weight, bias, units, pieces):
    z = (x @ weight.T + bias).view(len(x), units, pieces)
    return z.max(dim=2).values


def register(registry: Registry) -> None:
    registry.layer("maxout", Maxout, numpy=(forward, backward), torch=torch_function)
