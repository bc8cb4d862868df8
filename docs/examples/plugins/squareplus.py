"""An activation: squareplus, a smooth ReLU without exponentials (Barron 2021, arXiv:2112.11687)."""

from typing import Annotated

import numpy as np

from nnopt import Activation, Range, Registry


class Squareplus(Activation):
    """The activation (x + sqrt(x² + b)) / 2."""

    b: Annotated[float, Range(above=0, maximum=100)] = 4.0


def forward(x, b):
    root = np.sqrt(x * x + b)
    return (x + root) / 2, (x, root)


def backward(g, saved):
    x, root = saved
    return g * (1 + x / root) / 2


def torch_function(x, b):
    return (x + (x * x + b).sqrt()) / 2


def register(registry: Registry) -> None:
    registry.activation(
        "squareplus", record=Squareplus, numpy=(forward, backward), torch=torch_function
    )
