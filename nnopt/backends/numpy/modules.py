"""Layer records as functions on the tape, bound to their parameters and statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import TracebackType

from nnopt.architecture import layers as records
from nnopt.architecture.inference import InferredLayer
from nnopt.backends.numpy.ops import Array, Op
from nnopt.backends.numpy.ops.activations import GELU, LEAKY_RELU, RELU, SIGMOID, SILU, TANH
from nnopt.backends.numpy.ops.conv import CONV2D
from nnopt.backends.numpy.ops.dense import DENSE
from nnopt.backends.numpy.ops.dropout import DROPOUT
from nnopt.backends.numpy.ops.normalization import (
    BATCH_NORM,
    GROUP_NORM,
    LAYER_NORM,
    batch_norm_evaluate,
)
from nnopt.backends.numpy.ops.pooling import AVG_POOL2D, GLOBAL_AVG_POOL, MAX_POOL2D
from nnopt.backends.numpy.ops.shape import ADD, FLATTEN
from nnopt.backends.numpy.tape import Tape, Variable
from nnopt.backends.numpy.threads import ThreadPool
from nnopt.random import DropoutMasks
from nnopt.schema import Config, NumpyConfig

Module = Callable[[Tape, Variable, int | None], Variable]
"""A layer bound to its parameters: (tape, input, step) -> output; step None means evaluation. Its
function has the layer as its local variable ``placed``, by which ``layer_of`` finds it."""

ACTIVATIONS: dict[type, Op] = {
    records.ReLU: RELU,
    records.GELU: GELU,
    records.Tanh: TANH,
    records.Sigmoid: SIGMOID,
    records.SiLU: SILU,
}
"""Activations without options."""


class Binder:
    """Makes modules of placed layers."""

    def __init__(
        self,
        config: Config,
        parameters: Mapping[str, Variable],
        statistics: Mapping[str, Array],
        workers: ThreadPool,
    ) -> None:
        self._config = config
        self._parameters = parameters
        self._statistics = statistics
        self._workers = workers
        self.momentum: float | None = None
        """While set, stands in for the momentum of every batch norm."""

    def modules(self, layers: Sequence[InferredLayer]) -> list[Module]:
        """Layers that follow one another, to the same effect and with less traffic of memory.

        A ReLU and the max pooling after it change places: the largest of max(x, 0) is max(·, 0) of
        the largest x, and where that is not positive neither gives a gradient. A dense layer or a
        norm of images and the ReLU after it are one operation.
        """
        rest, modules = list(layers), []
        for i, pair in enumerate(pairwise(layers)):
            if _is_relu(pair[0]) and isinstance(pair[1].record, records.MaxPool2d):
                rest[i : i + 2] = reversed(pair)
        while rest:
            layer = rest.pop(0)
            relu = _takes_relu(layer) and bool(rest) and _is_relu(rest[0])
            if relu:
                rest.pop(0)
            modules.append(self.module(layer, relu))
        return modules

    def module(self, layer: InferredLayer, relu: bool = False) -> Module:
        """The layer with what it needs, and a ReLU after it if it takes one along."""
        match layer.record:
            case records.BatchNorm():
                return self._batch_norm(layer, relu)
            case records.Dropout(rate) | records.SpatialDropout(rate):
                return self._dropout(layer, rate)
            case records.Residual():
                return self._residual(layer)
        op, options = self._operation(layer)
        if relu:
            options["relu"] = True
        parameters = self._parameters_of(layer)

        def apply(
            tape: Tape, x: Variable, step: int | None, placed: InferredLayer = layer
        ) -> Variable:
            return tape.apply(op, x, *parameters, **options)

        return apply

    def _operation(self, layer: InferredLayer) -> tuple[Op, dict[str, object]]:
        """The operation and options of a layer that is one."""
        workers: dict[str, object] = {"workers": self._workers}
        match layer.record:
            case records.Dense():
                return DENSE, workers
            case records.Conv2d() as conv:
                backend = self._config.backend
                algorithm = backend.conv if isinstance(backend, NumpyConfig) else "auto"
                window: dict[str, object] = {"stride": conv.stride, "padding": conv.padding_size}
                return CONV2D, window | {"groups": conv.groups, "algorithm": algorithm} | workers
            case records.MaxPool2d() | records.AvgPool2d() as pool:
                op = MAX_POOL2D if isinstance(pool, records.MaxPool2d) else AVG_POOL2D
                window = {"size": pool.size, "stride": pool.stride_size, "padding": pool.padding}
                return op, window | workers
            case records.GlobalAvgPool():
                return GLOBAL_AVG_POOL, {}
            case records.LayerNorm(epsilon) if len(layer.input_shape) == 1:
                return LAYER_NORM, {"epsilon": epsilon}
            case records.LayerNorm(epsilon):
                return GROUP_NORM, workers | {"groups": 1, "epsilon": epsilon}
            case records.GroupNorm(groups, epsilon):
                return GROUP_NORM, workers | {"groups": groups, "epsilon": epsilon}
            case records.InstanceNorm(epsilon):
                channels = layer.input_shape[0]
                return GROUP_NORM, workers | {"groups": channels, "epsilon": epsilon}
            case records.LeakyReLU(slope):
                return LEAKY_RELU, workers | {"slope": slope}
            case records.Flatten():
                return FLATTEN, {}
        return ACTIVATIONS[type(layer.record)], workers

    def _parameters_of(self, layer: InferredLayer) -> list[Variable]:
        """In the order of its operation's inputs. A frozen weight wants no gradient."""
        trained = [self._parameters[f"{layer.name}.{key}"] for key in layer.parameters]
        if "weight" in layer.statistics:
            return [Variable(self._statistics[f"{layer.name}.weight"]), *trained]
        return trained

    def _batch_norm(self, layer: InferredLayer, relu: bool) -> Module:
        """Batch statistics in training, running ones in evaluation."""
        assert isinstance(layer.record, records.BatchNorm)
        momentum, epsilon = layer.record.momentum, layer.record.epsilon
        parameters, workers = self._parameters_of(layer), self._workers
        running_mean = self._statistics[f"{layer.name}.running_mean"]
        running_var = self._statistics[f"{layer.name}.running_var"]

        def apply(
            tape: Tape, x: Variable, step: int | None, placed: InferredLayer = layer
        ) -> Variable:
            if step is None:
                weight, bias = (parameter.value for parameter in parameters)
                statistics = running_mean, running_var, epsilon
                y_value = batch_norm_evaluate(
                    x.value, weight, bias, *statistics, relu=relu, workers=workers
                )
                return Variable(y_value)
            y = tape.apply(BATCH_NORM, x, *parameters, epsilon=epsilon, relu=relu, workers=workers)
            mean, variance = tape.entries[-1][4][-2:]
            count = x.value.size // x.value.shape[-1]
            rate = momentum if self.momentum is None else self.momentum
            running_mean[:] = (1 - rate) * running_mean + rate * mean
            unbiased = rate * count / (count - 1)
            running_var[:] = (1 - rate) * running_var + unbiased * variance
            return y

        return apply

    def _dropout(self, layer: InferredLayer, rate: float) -> Module:
        """Masks in training, nothing in evaluation. They are drawn in PyTorch's layout, (N, D),
        (N, C, H, W), or (N, C) for whole channels, for both backends to have the same."""
        if not rate:
            return lambda tape, x, step: x
        masks = DropoutMasks(self._config.seed, layer.name, rate)
        whole_channels = isinstance(layer.record, records.SpatialDropout)

        def apply(
            tape: Tape, x: Variable, step: int | None, placed: InferredLayer = layer
        ) -> Variable:
            if step is None:
                return x
            *positions, count, channels = x.value.shape
            if not positions or whole_channels:
                keep_mask = masks.draw(step, (count, channels))
            else:
                keep_mask = masks.draw(step, (count, channels, *positions)).transpose(2, 3, 0, 1)
            return tape.apply(DROPOUT, x, keep_mask=keep_mask, scale=masks.scale)

        return apply

    def _stochastic_depth(self, layer: InferredLayer) -> Module:
        """Dropout of whole samples at a residual branch's end, which then counts for nothing and
        gets no gradient (Huang et al. 2016, section 3, a draw for each sample)."""
        masks = DropoutMasks(self._config.seed, layer.name, layer.skip_probability)

        def apply(tape: Tape, x: Variable, step: int | None) -> Variable:
            if step is None:
                return x
            keep_mask = masks.draw(step, (x.value.shape[-2], 1))  # of (N, D) or (H, W, N, C)
            return tape.apply(DROPOUT, x, keep_mask=keep_mask, scale=masks.scale)

        return apply

    def _residual(self, layer: InferredLayer) -> Module:
        """What the inner layers make of the input, unless a sample skips them, plus the input or
        what the shortcut makes of it."""
        inner, shortcut = self.modules(layer.inner), self.modules(layer.shortcut)
        if layer.skip_probability:
            inner.append(self._stochastic_depth(layer))

        def apply(
            tape: Tape, x: Variable, step: int | None, placed: InferredLayer = layer
        ) -> Variable:
            branch, short = x, x
            for module in inner:
                branch = module(tape, branch, step)
            for module in shortcut:
                short = module(tape, short, step)
            return tape.apply(ADD, short, branch)

        return apply


def layer_of(traceback: TracebackType | None) -> str | None:
    """Return the name of the innermost layer in whose forward pass an exception was raised."""
    name = None
    while traceback is not None:
        placed = traceback.tb_frame.f_locals.get("placed")
        name = placed.name if isinstance(placed, InferredLayer) else name
        traceback = traceback.tb_next
    return name


def _takes_relu(layer: InferredLayer) -> bool:
    norms = records.BatchNorm, records.LayerNorm, records.GroupNorm, records.InstanceNorm
    normalizes_images = isinstance(layer.record, norms) and len(layer.input_shape) == 3
    return normalizes_images or isinstance(layer.record, records.Dense)


def _is_relu(layer: InferredLayer) -> bool:
    return isinstance(layer.record, records.ReLU)
