"""A network trained by hand: layers on the tape, loss, penalties, clipping, update."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture import layers as records
from nnopt.architecture.network import Architecture, PlacedLayer, penalized_shape
from nnopt.backends import StepRecord
from nnopt.backends.numpy_scratch.memory import zeros
from nnopt.backends.numpy_scratch.ops import Array, Op
from nnopt.backends.numpy_scratch.ops.activations import GELU, LEAKY_RELU, RELU, SIGMOID, SILU, TANH
from nnopt.backends.numpy_scratch.ops.dense import DENSE
from nnopt.backends.numpy_scratch.ops.dropout import DROPOUT
from nnopt.backends.numpy_scratch.ops.losses import CROSS_ENTROPY, HINGE
from nnopt.backends.numpy_scratch.ops.normalization import (
    BATCH_NORM,
    LAYER_NORM,
    batch_norm_evaluate,
)
from nnopt.backends.numpy_scratch.ops.shape import ADD, FLATTEN
from nnopt.backends.numpy_scratch.optimizers import Optimizer
from nnopt.backends.numpy_scratch.tape import Tape, Variable
from nnopt.random import KeepMasks
from nnopt.schema import Config, weight_decay

ELEMENTWISE: dict[type, Op] = {
    records.ReLU: RELU,
    records.GELU: GELU,
    records.Tanh: TANH,
    records.Sigmoid: SIGMOID,
    records.SiLU: SILU,
    records.Flatten: FLATTEN,
}
"""Records that are one operation of their input alone, in training and in evaluation."""

Module = Callable[[Tape, Variable, int | None], Variable]
"""A layer bound to its parameters: (tape, input, step) -> output; step None means evaluation."""


class NumpyNetwork:
    """See ``nnopt.backends.Network`` for what the methods promise.

    All parameters lie in one flat vector and their gradients in another, those that penalties act
    on first: penalties, clipping and update are then a few operations on long vectors.
    """

    def __init__(self, architecture: Architecture, config: Config) -> None:
        self.architecture = architecture
        self.dtype = np.dtype(config.backend.dtype)
        self._config = config
        shapes = architecture.parameter_shapes()
        decay_all = config.regularizer.decay_all
        decayed = [x for x, shape in shapes.items() if penalized_shape(shape, decay_all)]
        exempt = [x for x in shapes if x not in decayed]
        size = sum(math.prod(shape) for shape in shapes.values())
        self.flat = zeros((size,), self.dtype)
        self.flat_gradient = zeros((size,), self.dtype)
        self._penalized = slice(sum(math.prod(shapes[name]) for name in decayed))
        self.parameters = self._windows(shapes, [*decayed, *exempt])
        self.statistics = {
            name: np.zeros(shape, self.dtype)
            for name, shape in architecture.statistic_shapes().items()
        }
        self._modules = [self._module(layer) for layer in architecture.layers]
        self._loss_op, self._loss_options = (
            CROSS_ENTROPY,
            {"label_smoothing": config.regularizer.label_smoothing},
        )
        if config.loss == "hinge":
            self._loss_op, self._loss_options = HINGE, {}
        self._tape = Tape()
        self._evaluation_tape = Tape()
        self._optimizer = Optimizer(
            config.optimizer,
            self.flat,
            self._penalized,
            weight_decay(config),
            threads=config.backend.threads or os.cpu_count() or 1,
        )
        self._seen: list[tuple[Array, Array, Array]] = []
        self._norm_before_clipping = math.nan

    def _windows(
        self, shapes: Mapping[str, tuple[int, ...]], order: list[str]
    ) -> dict[str, Variable]:
        """Each parameter as a window on the flat vectors."""
        windows, start = {}, 0
        for name in order:
            stop = start + math.prod(shapes[name])
            value = self.flat[start:stop].reshape(shapes[name])
            target = self.flat_gradient[start:stop].reshape(shapes[name])
            windows[name] = Variable(value, wanted=True, target=target)
            start = stop
        return {name: windows[name] for name in shapes}

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        for name, parameter in self.parameters.items():
            np.copyto(parameter.value, arrays[name], casting="same_kind")
        for name, statistic in self.statistics.items():
            np.copyto(statistic, arrays[name], casting="same_kind")

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        arrays = {name: parameter.value.copy() for name, parameter in self.parameters.items()}
        return arrays | {name: statistic.copy() for name, statistic in self.statistics.items()}

    def train_step(self, x: Array, y: Array, lr: float, step: int) -> None:
        logits, loss = self.forward(Variable(x), y, step)
        self._seen.append((loss.value, logits.value.copy(), y))
        self._tape.backward(loss)
        self._add_penalty_gradients()
        if self._config.regularizer.grad_clip:
            self._clip(self._config.regularizer.grad_clip)
        self._optimizer.step(self.flat, self.flat_gradient, lr)

    def forward(self, x: Variable, y: Array, step: int) -> tuple[Variable, Variable]:
        """Logits (N, K) and the mean loss in training mode, noted on the tape."""
        tape = self._tape
        tape.restart()
        logits = x
        for module in self._modules:
            logits = module(tape, logits, step)
        return logits, tape.apply(self._loss_op, logits, labels=y, **self._loss_options)

    def gradients(self, loss: Variable) -> dict[str, Array]:
        """Gradients of the loss, penalties left out, of every parameter: windows, not copies."""
        self._tape.backward(loss)
        return {name: p.target for name, p in self.parameters.items() if p.target is not None}

    def read_steps(self) -> StepRecord:
        losses = np.array([loss for loss, _, _ in self._seen], dtype=np.float64)
        correct = sum(int(np.count_nonzero(z.argmax(axis=1) == y)) for _, z, y in self._seen)
        count = sum(len(y) for _, _, y in self._seen)
        self._seen.clear()
        norm = self._norm_before_clipping
        if not self._config.regularizer.grad_clip:
            norm = _norm(self.flat_gradient)
        return StepRecord(losses, correct, count, norm)

    def predict(self, x: Array) -> NDArray[np.floating]:
        tape = self._evaluation_tape
        tape.restart()
        logits = Variable(x)
        for module in self._modules:
            logits = module(tape, logits, None)
        return logits.value.copy()

    def _add_penalty_gradients(self) -> None:
        """d/dw (½ l2 w² + l1 |w|) = l2 w + l1 sign w."""
        w, g = self.flat[self._penalized], self.flat_gradient[self._penalized]
        if l2 := self._config.regularizer.l2:
            g += l2 * w
        if l1 := self._config.regularizer.l1:
            g += l1 * np.sign(w)

    def _clip(self, largest: float) -> None:
        """Scale the gradient to at most this norm (Pascanu et al. 2013, algorithm 1)."""
        self._norm_before_clipping = _norm(self.flat_gradient)
        scale = largest / (self._norm_before_clipping + 1e-6)  # the 1e-6 is PyTorch's
        if scale < 1:
            self.flat_gradient *= scale

    def _module(self, layer: PlacedLayer) -> Module:
        """Bind a layer's record to its operation, parameters and statistics."""
        parameters = [self.parameters[f"{layer.name}.{key}"] for key in layer.parameters]
        match layer.record:
            case records.Dense():
                return lambda tape, x, step: tape.apply(DENSE, x, *parameters)
            case records.LeakyReLU(slope):
                return lambda tape, x, step: tape.apply(LEAKY_RELU, x, slope=slope)
            case records.LayerNorm(epsilon):
                return lambda tape, x, step: tape.apply(LAYER_NORM, x, *parameters, epsilon=epsilon)
            case records.BatchNorm():
                return self._batch_norm(layer, parameters)
            case records.Dropout():
                return self._dropout(layer)
            case records.Residual():
                return self._residual(layer)
        op = ELEMENTWISE[type(layer.record)]
        return lambda tape, x, step: tape.apply(op, x)

    def _batch_norm(self, layer: PlacedLayer, parameters: list[Variable]) -> Module:
        """Batch statistics in training, running ones in evaluation."""
        assert isinstance(layer.record, records.BatchNorm)
        momentum, epsilon = layer.record.momentum, layer.record.epsilon
        running_mean = self.statistics[f"{layer.name}.running_mean"]
        running_var = self.statistics[f"{layer.name}.running_var"]

        def apply(tape: Tape, x: Variable, step: int | None) -> Variable:
            if step is None:
                weight, bias = (parameter.value for parameter in parameters)
                statistics = running_mean, running_var, epsilon
                return Variable(batch_norm_evaluate(x.value, weight, bias, *statistics))
            y = tape.apply(BATCH_NORM, x, *parameters, epsilon=epsilon)
            mean, variance = tape.last_saved()[-2:]
            count = len(x.value)
            running_mean[:] = (1 - momentum) * running_mean + momentum * mean
            unbiased = momentum * count / (count - 1)
            running_var[:] = (1 - momentum) * running_var + unbiased * variance
            return y

        return apply

    def _dropout(self, layer: PlacedLayer) -> Module:
        """Masks in training, nothing in evaluation."""
        assert isinstance(layer.record, records.Dropout)
        if not layer.record.rate:
            return lambda tape, x, step: x
        masks = KeepMasks(self._config.seed, layer.name, layer.record.rate)

        def apply(tape: Tape, x: Variable, step: int | None) -> Variable:
            if step is None:
                return x
            keep = masks.draw(step, x.value.shape)
            return tape.apply(DROPOUT, x, keep=keep, scale=masks.scale)

        return apply

    def _residual(self, layer: PlacedLayer) -> Module:
        """The input plus what the inner layers make of it."""
        modules = [self._module(inner) for inner in layer.inner]

        def apply(tape: Tape, x: Variable, step: int | None) -> Variable:
            branch = x
            for module in modules:
                branch = module(tape, branch, step)
            return tape.apply(ADD, x, branch)

        return apply


def _norm(vector: Array) -> float:
    """√(v·v)."""
    return math.sqrt(float(np.dot(vector, vector)))
