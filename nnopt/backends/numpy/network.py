"""A network trained by hand: layers on the tape, loss, penalties, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture, is_penalized
from nnopt.backends.clipping import clipping_factors
from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.average import Average
from nnopt.backends.numpy.memory import zeros
from nnopt.backends.numpy.modules import Binder, Module
from nnopt.backends.numpy.observer import Observer
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.ops.dense import weight_in
from nnopt.backends.numpy.ops.losses import CROSS_ENTROPY, HINGE
from nnopt.backends.numpy.ops.shape import CHANNELS_LAST
from nnopt.backends.numpy.optimizers import Optimizer
from nnopt.backends.numpy.tape import Tape, Variable
from nnopt.backends.numpy.threads import ThreadPool, default_threads, single_blas_thread
from nnopt.backends.protocol import StepRecord
from nnopt.backends.thread_choice import threads_for
from nnopt.data.batches import batch_parts, parts_of
from nnopt.schema import Config, weight_decay


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
        decayed = [x for x, shape in shapes.items() if is_penalized(shape, decay_all)]
        exempt = [x for x in shapes if x not in decayed]
        size = sum(math.prod(shape) for shape in shapes.values())
        self.flat = zeros((size,), self.dtype)
        self.flat_gradient = zeros((size,), self.dtype)
        self._accumulated = zeros((size if config.accumulation > 1 else 0,), self.dtype)
        self._penalized = slice(sum(math.prod(shapes[name]) for name in decayed))
        self.parameters = self._windows(shapes, [*decayed, *exempt])
        self._weights = [  # (units, inputs)
            x.value.reshape(len(x.value), -1)
            for x in self.parameters.values()
            if is_penalized(x.value.shape, False)
        ]
        self.statistics = {
            name: np.zeros(shape, self.dtype)
            for name, shape in architecture.statistic_shapes().items()
        }
        self._workers = ThreadPool(threads_for(architecture, config, default_threads()).count)
        self._binder = Binder(config, self.parameters, self.statistics, self._workers)
        self._modules_from: dict[int, list[Module]] = {}
        largest = max(math.prod(layer.output_shape) for layer in architecture.walk())
        self._largest_flops = max(layer.flops for layer in architecture.walk())
        self._evaluation_rows = max(tuning.EVALUATION_CHUNK_ELEMENTS // largest, 1)
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
            self.flat_gradient,
            self._penalized,
            weight_decay(config),
            self._workers,
        )
        self._seen: list[tuple[float, Array, Array]] = []
        self._norm_before_clipping = math.nan
        self._not_finite: str | None = None

    def _windows(
        self, shapes: Mapping[str, tuple[int, ...]], order: list[str]
    ) -> dict[str, Variable]:
        """Each parameter as a window on the flat vectors."""
        windows, start = {}, 0
        for name in order:
            stop = start + math.prod(shapes[name])
            value = _window(self.flat[start:stop], shapes[name])
            target = _window(self.flat_gradient[start:stop], shapes[name])
            windows[name] = Variable(value, requires_grad=True, grad_buffer=target)
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
        loss, logits = (
            self._backward(x, y, step)
            if self._config.accumulation == 1
            else self._accumulate(x, y, step)
        )
        self._seen.append((loss, logits, y))
        self._add_penalty_gradients()
        if self._config.regularizer.grad_clip:
            self._clip(self._config.regularizer.grad_clip)
        self._optimizer.step(lr)
        if self._config.regularizer.max_norm:
            self._limit_norms(self._config.regularizer.max_norm)

    def _backward(self, x: Array, y: Array, step: int) -> tuple[float, Array]:
        """Mean loss and logits (N, K); the gradients are left in ``flat_gradient``."""
        is_small = len(x) * self._largest_flops in tuning.SINGLE_BLAS_THREAD_FLOPS
        with single_blas_thread() if is_small else nullcontext():
            logits, loss = self.forward(Variable(x), y, step)
            value, copied = float(loss.value), logits.value.copy()
            if self._not_finite is None and not math.isfinite(value):
                self._not_finite = self._first_not_finite(x, step)
            self._tape.backward(loss)
        return value, copied

    def _accumulate(self, x: Array, y: Array, step: int) -> tuple[float, Array]:
        """The same part by part. The mean over the batch is that of the parts' means, each counted
        by its share of the samples, and so is its gradient."""
        config, total = self._config, self._accumulated
        parts = batch_parts(len(y), config.batch_size, config.accumulation)
        total.fill(0)
        losses, logits = [], []
        for number, rows in enumerate(parts):
            # In place of the step, a number of each part's own: the masks differ.
            loss, z = self._backward(x[rows], y[rows], step * config.accumulation + number)
            share = (rows.stop - rows.start) / len(y)
            self.flat_gradient *= share
            total += self.flat_gradient
            losses.append(share * loss)
            logits.append(z)
        np.copyto(self.flat_gradient, total)
        return sum(losses), np.concatenate(logits)

    def forward(
        self, x: Variable, y: Array, step: int, first: int = 0
    ) -> tuple[Variable, Variable]:
        """Logits (N, K) and the mean loss in training mode, noted on the tape. Layers before the
        ``first`` are left out: x is then what that one takes, (N, D) or (N, C, H, W)."""
        logits = self._run(self._modules(first), self._tape, x, step)
        return logits, self._tape.apply(self._loss_op, logits, labels=y, **self._loss_options)

    def layer_inputs(self, x: Array, step: int) -> list[Array]:
        """What each of ``architecture.layers`` takes in training mode, (N, D) or (N, C, H, W):
        x itself for the first, copies for the others."""
        outputs = self._observe(x, step)
        return [x, *(outputs[layer.name] for layer in self.architecture.layers[:-1])]

    def gradients(self, loss: Variable) -> dict[str, Array]:
        """Gradients of the loss, penalties left out, of every parameter: windows, not copies."""
        self._tape.backward(loss)
        return {
            name: p.grad_buffer for name, p in self.parameters.items() if p.grad_buffer is not None
        }

    def read_steps(self) -> StepRecord:
        losses = np.array([loss for loss, _, _ in self._seen], dtype=np.float64)
        correct = sum(
            int(np.count_nonzero(z.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))))
            for _, z, y in self._seen
        )
        count = sum(len(y) for _, _, y in self._seen)
        self._seen.clear()
        norm = self._norm_before_clipping
        if not self._config.regularizer.grad_clip:
            norm = _norm(self.flat_gradient)
        is_finite = self._optimizer.state_is_finite()
        return StepRecord(losses, correct, count, norm, self._not_finite, is_finite)

    def average(self, weight: float) -> None:
        self._average.move(weight)

    def swap_average(self) -> None:
        self._average.swap()

    def recompute_statistics(self, batches: Iterable[Array]) -> None:
        if not any(name.endswith("running_mean") for name in self.statistics):
            return
        config = self._config
        parts = parts_of(batches, config.batch_size, config.accumulation)
        try:
            for number, x in enumerate(parts):
                self._binder.momentum = 1 / (number + 1)
                self._run(self._modules(), self._tape, Variable(x), number)
        finally:
            self._binder.momentum = None

    def predict(self, x: Array) -> NDArray[np.floating]:
        logits = self._logits(x)
        if self._config.regularizer.test_flip:
            logits = (logits + self._logits(x[..., ::-1])) / 2
        return logits

    def _logits(self, x: Array) -> NDArray[np.floating]:
        """(N, K) in evaluation mode, so many samples at once as memory is well used by."""
        rows = self._evaluation_rows
        logits = [
            self._run(self._modules(), self._evaluation_tape, Variable(part), None).value.copy()
            for part in (x[start : start + rows] for start in range(0, len(x), rows))
        ]
        return np.concatenate(logits)

    def layer_outputs(self, x: Array) -> dict[str, NDArray[np.floating]]:
        outputs = self._observe(x, None)
        return {layer.name: outputs[layer.name] for layer in self.architecture.walk()}

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        targets = {name: parameter.grad_buffer for name, parameter in self.parameters.items()}
        return {name: target.copy() for name, target in targets.items() if target is not None}

    @cached_property
    def _average(self) -> Average:
        """Of all parameters and statistics; takes memory once there is something to average."""
        return Average([self.flat, *self.statistics.values()], self._workers)

    def _modules(self, first: int = 0) -> list[Module]:
        """Of the layers, or of those from the ``first`` on."""
        if first not in self._modules_from:
            self._modules_from[first] = self._binder.modules(self.architecture.layers[first:])
        return self._modules_from[first]

    def _run(
        self, modules: Iterable[Module], tape: Tape, x: Variable, step: int | None
    ) -> Variable:
        """The layers one after another, noted on the tape."""
        tape.reset()
        if x.value.ndim == 4:
            x = tape.apply(CHANNELS_LAST, x)
        for module in modules:
            x = module(tape, x, step)
        return x

    def _first_not_finite(self, x: Array, step: int) -> str | None:
        """The first layer that gives numbers that are not finite, the batch computed once more."""
        outputs = self._observe(x, step)
        broken = (name for name, output in outputs.items() if not np.isfinite(output).all())
        return next(broken, None)

    def _observe(self, x: Array, step: int | None) -> dict[str, NDArray[np.floating]]:
        """What every layer gives, in the order in which they finish."""
        observer = Observer(self._config, self.parameters, self.statistics, self._workers)
        modules = observer.modules(self.architecture.layers)
        self._run(modules, Tape(), Variable(x), step)
        return observer.outputs

    def _add_penalty_gradients(self) -> None:
        """d/dw (½ l2 w² + l1 |w|) = l2 w + l1 sign w."""
        l1, l2 = self._config.regularizer.l1, self._config.regularizer.l2
        if not (l1 or l2):
            return
        w, g = self.flat[self._penalized], self.flat_gradient[self._penalized]
        if l2:
            g += l2 * w
        if l1:
            g += l1 * np.sign(w)

    def _clip(self, largest: float) -> None:
        """Scale the gradient to at most this norm."""
        self._norm_before_clipping = _norm(self.flat_gradient)
        tiny = float(np.finfo(self.flat_gradient.dtype).tiny)
        for factor in clipping_factors(self._norm_before_clipping, largest, tiny):
            self.flat_gradient *= factor

    def _limit_norms(self, largest: float) -> None:
        """w ← w / max(‖w‖ / c, 1) for the weights w that come into each unit, a row of a dense
        weight or all of an output channel's kernel (Srivastava et al. 2014, section 5.1)."""
        for weight in self._weights:
            norms = np.sqrt(np.einsum("ij,ij->i", weight, weight))
            norms[np.isinf(norms)] = math.nan  # or the weight would become 0
            np.divide(weight, np.maximum(norms / largest, 1)[:, None], out=weight)


def _norm(vector: Array) -> float:
    """Return √(v·v). If v·v overflows, or is so small that squares may have become 0, it is
    m √(u·u) with u = v / m, where m is the largest absolute value. NaN if that is not finite."""
    with np.errstate(over="ignore"):
        square = _dot(vector)
    limits = np.finfo(vector.dtype)
    if limits.tiny / limits.eps**2 < square < math.inf:
        return math.sqrt(square)
    largest = np.max(np.abs(vector), initial=0)
    if largest == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        scaled = vector / largest
    norm = float(largest) * math.sqrt(_dot(scaled))
    return norm if math.isfinite(norm) else math.nan


def _dot(vector: Array) -> float:
    """Return v·v. OpenBLAS's threads would add up parts of it, as many as there are threads."""
    with single_blas_thread():
        return float(np.dot(vector, vector))


def _window(vector: Array, shape: tuple[int, ...]) -> Array:
    """A part of a flat vector as a parameter of this shape."""
    return weight_in(vector, shape) if len(shape) == 2 else vector.reshape(shape)
