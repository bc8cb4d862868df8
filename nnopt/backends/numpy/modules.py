"""Layers as functions on the tape, with parameters and running statistics. Losses by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from traceback import walk_tb
from types import TracebackType

from nnopt.architecture import layers as records
from nnopt.architecture.inference import InferredLayer
from nnopt.backends.numpy.ops import Array, Buffer, Op
from nnopt.backends.numpy.ops.activations import (
    GELU,
    LEAKY_RELU,
    RELU,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
)
from nnopt.backends.numpy.ops.conv import CONV2D
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.gated import GELU_TANH, HARD_SWISH, MISH
from nnopt.backends.numpy.ops.linear_units import ELU, PRELU, SELU
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, FOCAL, HINGE, MSE
from nnopt.backends.numpy.ops.normalization import (
    BATCH_NORM,
    GROUP_NORM,
    LAYER_NORM,
    batch_norm_evaluate,
)
from nnopt.backends.numpy.ops.pooling import AVG_POOL2D, GLOBAL_AVG_POOL, MAX_POOL2D
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN
from nnopt.backends.numpy.tape import Tape, Variable
from nnopt.random import DropoutMasks
from nnopt.schema import Config, NumpyConfig
from nnopt.schema.tables import filled

Step = int | None
"""The index of a training step, which determines the dropout masks, or None in evaluation mode."""

Module = Callable[[Tape, Variable, Step], Variable]
"""The function that computes a layer: (tape, input, step) -> output. Its local variable ``layer``
is the layer, which ``layer_of`` reads."""

ACTIVATIONS: dict[type, Op] = filled(
    "layer/numpy",
    {
        records.ReLU: RELU,
        records.GELU: GELU,
        records.Tanh: TANH,
        records.Sigmoid: SIGMOID,
        records.SiLU: SILU,
        records.SELU: SELU,
        records.GELUTanh: GELU_TANH,
        records.Softplus: SOFTPLUS,
        records.Mish: MISH,
        records.HardSwish: HARD_SWISH,
    },
)
"""Class of an activation without options, or of a layer of a plug-in -> operation of the layer.

The fields of the record are the options of the operation.
"""

LOSSES: dict[str, Op] = filled(
    "loss/numpy",
    {
        "cross_entropy": CROSS_ENTROPY,
        "hinge": HINGE,
        "mse": MSE,
        "focal": FOCAL,
    },
)
"""Value of the key ``loss`` -> operation that computes the loss."""


def loss_operation(config: Config) -> tuple[Op, dict[str, float]]:
    """Return the operation that computes the configured loss, and the options of the operation."""
    options: dict[str, float] = {}
    if config.loss != "hinge":
        options["label_smoothing"] = config.regularizer.label_smoothing
    if config.loss == "focal":
        options["gamma"] = config.focal_gamma
    return LOSSES[config.loss], options


class LayerBuilder:
    """Builds the modules of layers. ``parameters`` and ``statistics`` map full names to values.

    If ``outputs`` is given, layers are not fused, and each layer stores a copy of its output,
    (N, D) or (N, C, H, W), in ``outputs`` under the name of the layer.
    """

    def __init__(
        self,
        config: Config,
        parameters: Mapping[str, Variable],
        statistics: Mapping[str, Array],
        outputs: dict[str, Array] | None = None,
    ) -> None:
        self._config = config
        self._parameters = parameters
        self._statistics = statistics
        self._outputs = outputs
        self.momentum: float | None = None  # if set, replaces the momentum of every batch norm

    def build_all(self, layers: Sequence[InferredLayer]) -> list[Module]:
        """Return the modules of consecutive layers, fused where this saves memory traffic.

        A dense layer or a normalization of images is fused with a following ReLU. A ReLU before max
        pooling is computed after the pooling instead. Outputs and gradients stay the same, because
        max(x, 0) is monotonic and the gradient is 0 where an output is not positive.
        """
        if self._outputs is not None:
            return [self.build(layer) for layer in layers]
        ordered, modules, i = list(layers), [], 0
        for first, (layer, following) in enumerate(pairwise(layers)):
            if _is_relu(layer) and isinstance(following.record, records.MaxPool2d):
                ordered[first : first + 2] = [following, layer]
        while i < len(ordered):
            fuse_relu = _can_fuse_relu(ordered[i]) and any(map(_is_relu, ordered[i + 1 : i + 2]))
            modules.append(self.build(ordered[i], fuse_relu))
            i += 1 + fuse_relu
        return modules

    def build(self, layer: InferredLayer, fuse_relu: bool = False) -> Module:
        """Return the module of a layer; with ``fuse_relu``, of the layer and the ReLU after it."""
        module, outputs = self._build(layer, fuse_relu), self._outputs
        if outputs is None:
            return module

        def record(tape: Tape, x: Variable, step: Step) -> Variable:
            y = module(tape, x, step)
            is_image = y.value.ndim == 4  # (H, W, N, C)
            value = y.value.transpose(2, 3, 0, 1) if is_image else y.value
            outputs[layer.name] = value.copy()  # because some layers return a view of the input
            return y

        return record

    def _build(self, layer: InferredLayer, fuse_relu: bool) -> Module:
        match layer.record:
            case records.BatchNorm():
                return self._batch_norm(layer, fuse_relu)
            case records.Dropout(rate):
                return self._dropout(layer, rate)
            case records.SpatialDropout(rate):
                return self._dropout(layer, rate, axes=2)
            case records.Residual():
                return self._residual(layer)
        op, options = self._operation(layer)
        options |= {"relu": True} if fuse_relu else {}
        parameters = self._parameters_of(layer)

        def apply(tape: Tape, x: Variable, step: Step, layer: InferredLayer = layer) -> Variable:
            return tape.apply(op, x, *parameters, **options)

        return apply

    def _operation(self, layer: InferredLayer) -> tuple[Op, dict[str, object]]:
        """Return the operation that computes a layer, and the options of the operation."""
        match layer.record:
            case records.Dense():
                return DENSE, {}
            case records.Conv2d() as conv:
                backend = self._config.backend
                algorithm = backend.conv_algorithm if isinstance(backend, NumpyConfig) else "auto"
                window: dict[str, object] = {"stride": conv.stride, "padding": conv.padding_size}
                return CONV2D, window | {"groups": conv.groups, "algorithm": algorithm}
            case records.MaxPool2d() | records.AvgPool2d() as pool:
                op = MAX_POOL2D if isinstance(pool, records.MaxPool2d) else AVG_POOL2D
                return op, {"size": pool.size, "stride": pool.stride_size, "padding": pool.padding}
            case records.GlobalAvgPool():
                return GLOBAL_AVG_POOL, {}
            case records.LayerNorm(epsilon) if len(layer.input_shape) == 1:
                return LAYER_NORM, {"epsilon": epsilon}
            case records.LayerNorm() | records.GroupNorm() | records.InstanceNorm() as norm:
                groups = norm.count_groups(layer.name, layer.input_shape)
                return GROUP_NORM, {"groups": groups, "epsilon": norm.epsilon}
            case records.LeakyReLU(slope):
                return LEAKY_RELU, {"slope": slope}
            case records.ELU(alpha):
                return ELU, {"alpha": alpha}
            case records.PReLU():
                return PRELU, {}
            case records.Flatten():
                return FLATTEN, {}
        return ACTIVATIONS[type(layer.record)], dict(vars(layer.record))

    def _parameters_of(self, layer: InferredLayer) -> list[Variable]:
        """Return all inputs of a layer's operation except x. A frozen weight has no gradient."""
        trained = [self._parameters[f"{layer.name}.{key}"] for key in layer.parameters]
        if "weight" in layer.statistics:
            return [Variable(self._statistics[f"{layer.name}.weight"]), *trained]
        return trained

    def _batch_norm(self, layer: InferredLayer, relu: bool) -> Module:
        """Return batch norm, which normalizes with running statistics only in evaluation mode."""
        assert isinstance(layer.record, records.BatchNorm)
        momentum, epsilon = layer.record.momentum, layer.record.epsilon
        parameters = self._parameters_of(layer)
        running_mean = self._statistics[f"{layer.name}.running_mean"]
        running_var = self._statistics[f"{layer.name}.running_var"]

        def apply(tape: Tape, x: Variable, step: Step, layer: InferredLayer = layer) -> Variable:
            if step is None:
                weight, bias = (parameter.value for parameter in parameters)
                moments, buffer = (running_mean, running_var), Buffer(tape.workers)
                value = batch_norm_evaluate(x.value, weight, bias, *moments, epsilon, relu, buffer)
                return Variable(value)
            y = tape.apply(BATCH_NORM, x, *parameters, epsilon=epsilon, relu=relu)
            *_, saved, _ = tape.entries[-1]
            mean, variance = saved[-2:]
            count = x.value.size // x.value.shape[-1]
            rate = momentum if self.momentum is None else self.momentum
            running_mean[:] = (1 - rate) * running_mean + rate * mean
            unbiased = rate * count / (count - 1)
            running_var[:] = (1 - rate) * running_var + unbiased * variance
            return y

        return apply

    def _dropout(self, layer: InferredLayer, rate: float, axes: int | None = None) -> Module:
        """Return dropout, which is the identity in evaluation mode.

        The mask has the axes (N, D) or (N, C, H, W), or only the first ``axes`` of these if given.
        """
        if not rate:
            return lambda tape, x, step: x
        masks = DropoutMasks(self._config.seed, layer.name, rate)

        def apply(tape: Tape, x: Variable, step: Step, layer: InferredLayer = layer) -> Variable:
            if step is None:
                return x
            *positions, count, channels = x.value.shape  # (N, D) or (H, W, N, C)
            keep_mask = masks.draw(step, (count, channels, *positions)[:axes])
            if axes == 1:
                keep_mask = keep_mask[:, None]
            elif keep_mask.ndim == 4:
                keep_mask = keep_mask.transpose(2, 3, 0, 1)
            return tape.apply(DROPOUT, x, keep_mask=keep_mask, scale=masks.scale)

        return apply

    def _residual(self, layer: InferredLayer) -> Module:
        """Return a module that adds the outputs of the branch and the shortcut.

        Stochastic depth sets the branch to 0 for random samples (Huang et al. 2016, section 3).
        """
        inner, shortcut = self.build_all(layer.inner), self.build_all(layer.shortcut)
        if layer.skip_probability:
            inner.append(self._dropout(layer, layer.skip_probability, axes=1))

        def apply(tape: Tape, x: Variable, step: Step, layer: InferredLayer = layer) -> Variable:
            branch_output, shortcut_output = x, x
            for module in inner:
                branch_output = module(tape, branch_output, step)
            for module in shortcut:
                shortcut_output = module(tape, shortcut_output, step)
            return tape.apply(ADD, shortcut_output, branch_output)

        return apply


def layer_of(traceback: TracebackType | None) -> str | None:
    """Return the name of the innermost layer in whose forward pass an exception was raised."""
    layers = (frame.f_locals.get("layer") for frame, _ in walk_tb(traceback))
    names = [layer.name for layer in layers if isinstance(layer, InferredLayer)]
    return names[-1] if names else None


def _can_fuse_relu(layer: InferredLayer) -> bool:
    norms = records.BatchNorm, records.LayerNorm, records.GroupNorm, records.InstanceNorm
    normalizes_images = isinstance(layer.record, norms) and len(layer.input_shape) == 3
    return normalizes_images or isinstance(layer.record, records.Dense)


def _is_relu(layer: InferredLayer) -> bool:
    return isinstance(layer.record, records.ReLU)
