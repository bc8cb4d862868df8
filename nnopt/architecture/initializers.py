"""Initial weights, which are drawn once in NumPy and loaded by both backends."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.inference import Layer
from nnopt.architecture.network import Architecture, is_weight
from nnopt.architecture.whitening import whitening_arrays
from nnopt.data.dataset import Dataset
from nnopt.random import generator
from nnopt.schema import InitializerConfig

Draw = Callable[[np.random.Generator, tuple[int, ...], InitializerConfig], NDArray[np.float64]]
"""Random generator, shape of a weight, settings -> the weight."""


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight (out, in) or (out, in, kh, kw)."""
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _normal(variance: Callable[[int, int], float]) -> Draw:
    return lambda rng, shape, _: rng.standard_normal(shape) * math.sqrt(variance(*_fans(shape)))


def _uniform(variance: Callable[[int, int], float]) -> Draw:
    """Return a function that draws from U(-bound, bound), where bound²/3 is the variance."""

    def draw(
        rng: np.random.Generator, shape: tuple[int, ...], _: InitializerConfig
    ) -> NDArray[np.float64]:
        bound = math.sqrt(3 * variance(*_fans(shape)))
        return rng.uniform(-bound, bound, shape)

    return draw


VARIANCES: dict[str, Callable[[int, int], float]] = {
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}

INITIALIZERS: dict[str, Draw] = {
    **{f"{name}_normal": _normal(variance) for name, variance in VARIANCES.items()},
    **{f"{name}_uniform": _uniform(variance) for name, variance in VARIANCES.items()},
    "normal": lambda rng, shape, config: rng.standard_normal(shape) * config.std,
    "uniform": lambda rng, shape, config: rng.uniform(config.low, config.high, shape),
    "zeros": lambda rng, shape, _: np.zeros(shape),
}
"""Name of an initializer -> function that draws weights. Sources: He et al. 2015
(arXiv:1502.01852), eq. 10; Glorot and Bengio 2010, eq. 12 and 16; LeCun et al. 1998, "Efficient
BackProp", section 4.6."""


def initial_arrays(
    architecture: Architecture, config: InitializerConfig, seed: int, dataset: Dataset | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the initial parameters and running statistics: full name -> array in float64.

    Biases and running means are 0. Norm weights and running variances are 1. The slopes of PReLU
    are the ``init`` of the layer. Each layer draws from a random stream that is named after the
    layer. Therefore, a layer that keeps its name and shape keeps its weights if other layers
    change. ``config.scale`` multiplies the drawn weights, but not those of whitening. ``dataset``
    is needed only for whitening.
    """
    output = architecture.output_layer.name
    arrays: dict[str, NDArray[np.float64]] = {}
    for layer in architecture.walk():
        draw = INITIALIZERS[config.output if layer.name == output else config.hidden]
        drawn = 0  # number of arrays of this layer; only layers of plug-ins have several
        for key, shape in (layer.parameters | layer.statistics).items():
            if is_weight(key, shape):
                random = generator(seed, f"initial/{layer.name}", drawn)
                array = draw(random, shape, config)
                array *= config.scale
                drawn += 1
            else:
                assert isinstance(layer.record, Layer)  # for mypy
                array = np.full(shape, layer.record.initial_value(key))
            arrays[f"{layer.name}.{key}"] = array
    if config.input == "whitening":
        if dataset is None:
            raise TypeError("whitening needs a dataset")
        first = architecture.layers[0]
        whitening = whitening_arrays(first, dataset)
        arrays |= {f"{first.name}.{key}": array for key, array in whitening.items()}
    return arrays
