"""Records of element-wise layers: activations, and the base class of these and of dropout."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from nnopt.architecture.inference import InferredLayer, Layer, Shape
from nnopt.schema.range import Range

Epsilon = Annotated[float, Range(above=0)]
Rate = Annotated[float, Range(minimum=0, below=1)]

ACTIVATION_FLOPS = 8  # approximate FLOPs per output of an activation of several operations


class Elementwise(Layer):
    """A function that is applied to each number. The shape does not change."""

    flops_per_number: ClassVar[int] = 1

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        return InferredLayer(name, self, shape, shape, self.flops_per_number * math.prod(shape))


class ReLU(Elementwise, kind="relu"):
    """The activation max(x, 0)."""


class LeakyReLU(Elementwise, kind="leaky_relu"):
    """The activation x where x > 0, else slope · x (Maas et al. 2013)."""

    slope: Rate = 0.01


class PReLU(Layer, kind="prelu"):
    """The activation x where x > 0, else a · x, with a learned slope a (He et al. 2015).

    ``init`` is the initial slope. All numbers share one slope, or each channel or feature has its
    own. L1, L2, weight decay, max-norm and pruning do not act on slopes.
    """

    init: Annotated[float, Range(minimum=-10, maximum=10)] = 0.25
    per_channel: bool = False

    def _infer(self, name: str, shape: Shape, classes: int) -> InferredLayer:
        slopes = shape[:1] if self.per_channel else (1,)
        return InferredLayer(name, self, shape, shape, math.prod(shape), {"weight": slopes})

    def initial_value(self, key: str) -> float:
        """Return the initial slope."""
        return self.init


class ELU(Elementwise, kind="elu"):
    """The activation x where x > 0, else alpha · (exp(x) - 1) (Clevert et al. 2016)."""

    flops_per_number = ACTIVATION_FLOPS
    alpha: Annotated[float, Range(above=0)] = 1.0


class SELU(Elementwise, kind="selu"):
    """ELU with alpha = 1.6733, times 1.0507 (Klambauer et al. 2017).

    With LeCun's initializer, the outputs of deep networks stay near mean 0 and variance 1.
    """

    flops_per_number = ACTIVATION_FLOPS


class GELU(Elementwise, kind="gelu"):
    """The activation x Φ(x), where Φ is the normal CDF (Hendrycks and Gimpel 2016)."""

    flops_per_number = ACTIVATION_FLOPS


class GELUTanh(Elementwise, kind="gelu_tanh"):
    """GELU with an approximation of Φ(x) by tanh (Hendrycks and Gimpel 2016, section 2)."""

    flops_per_number = ACTIVATION_FLOPS


class Tanh(Elementwise, kind="tanh"):
    """The activation tanh x."""

    flops_per_number = ACTIVATION_FLOPS


class Sigmoid(Elementwise, kind="sigmoid"):
    """The activation 1 / (1 + exp(-x))."""

    flops_per_number = ACTIVATION_FLOPS


class SiLU(Elementwise, kind="silu"):
    """The activation x · sigmoid(x), also known as swish (Elfwing et al. 2018)."""

    flops_per_number = ACTIVATION_FLOPS


class Softplus(Elementwise, kind="softplus"):
    """The activation log(1 + exp(x)) (Dugas et al. 2001)."""

    flops_per_number = ACTIVATION_FLOPS


class Mish(Elementwise, kind="mish"):
    """The activation x · tanh(softplus(x)) (Misra 2019)."""

    flops_per_number = ACTIVATION_FLOPS


class HardSwish(Elementwise, kind="hard_swish"):
    """The activation x · min(max(x + 3, 0), 6) / 6 (Howard et al. 2019)."""

    flops_per_number = ACTIVATION_FLOPS
