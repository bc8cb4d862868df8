"""A network in NumPy: layers and loss on the tape, penalties, clipping and update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture, is_penalized
from nnopt.backends.numpy import tuning
from nnopt.backends.numpy.average import Average
from nnopt.backends.numpy.gradients import clip, norm
from nnopt.backends.numpy.layout import FlatLayout
from nnopt.backends.numpy.memory import zeros
from nnopt.backends.numpy.modules import LayerBuilder, Module, loss_operation
from nnopt.backends.numpy.ops import Array
from nnopt.backends.numpy.ops.shape import CHANNELS_LAST
from nnopt.backends.numpy.optimizers import Optimizer
from nnopt.backends.numpy.penalties import add_penalty_gradients, limit_norms
from nnopt.backends.numpy.tape import Tape, Variable
from nnopt.backends.numpy.threads import ThreadPool, default_threads, single_blas_thread
from nnopt.backends.protocol import StepRecord
from nnopt.backends.state import check_state
from nnopt.backends.thread_choice import threads_for
from nnopt.data.batches import batch_parts, parts_of
from nnopt.schema import Config, weight_decay


class NumpyNetwork:
    """A network in NumPy; ``nnopt.backends.protocol.Network`` documents its methods.

    All parameters are views of one flat vector, and all gradients are views of a second vector. In
    both, parameters with penalties come first. Penalties, clipping and the update are therefore a
    few operations on long vectors.
    """

    def __init__(self, architecture: Architecture, config: Config) -> None:
        self.architecture = architecture
        self.dtype = np.dtype(config.backend.dtype)
        self._config = config
        self._layout = layout = FlatLayout(
            architecture.parameter_shapes(), config.regularizer.decay_norm_and_bias
        )
        size = layout.size
        self.flat = zeros((size,), self.dtype)
        self.flat_gradient = zeros((size,), self.dtype)
        self._gradient_sum = zeros((size if config.accumulation_steps > 1 else 0,), self.dtype)
        gradients = layout.views(self.flat_gradient)
        self.parameters = {
            name: Variable(value, requires_grad=True, grad_buffer=gradients[name])
            for name, value in layout.views(self.flat).items()
        }
        self._weights = [  # (units, inputs)
            x.value.reshape(len(x.value), -1)
            for x in self.parameters.values()
            if is_penalized(x.value.shape, False)
        ]
        statistics = architecture.statistic_shapes()
        self.statistics = {name: np.zeros(shape, self.dtype) for name, shape in statistics.items()}
        self._workers = ThreadPool(threads_for(architecture, config, default_threads()).count)
        self._builder = LayerBuilder(config, self.parameters, self.statistics)
        self._modules_from: dict[int, list[Module]] = {}
        largest = max(math.prod(layer.output_shape) for layer in architecture.walk())
        self._largest_flops = max(layer.flops for layer in architecture.walk())
        self._evaluation_rows = max(tuning.EVALUATION_CHUNK_ELEMENTS // largest, 1)
        self._loss_op, self._loss_options = loss_operation(config)
        self._tape, self._evaluation_tape = Tape(self._workers), Tape(self._workers)
        self._optimizer = Optimizer(
            config.optimizer,
            self.flat,
            self.flat_gradient,
            layout.penalized,
            weight_decay(config),
            self._workers,
        )
        self._mask: Array | None = None  # 0 where a weight is pruned, else 1, as a flat vector
        self._steps: list[tuple[float, Array, Array]] = []  # loss, logits, labels
        self._norm_before_clipping = math.nan
        self._not_finite: str | None = None

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic."""
        for name, parameter in self.parameters.items():
            np.copyto(parameter.value, arrays[name], casting="same_kind")
        for name, statistic in self.statistics.items():
            np.copyto(statistic, arrays[name], casting="same_kind")

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of every parameter and running statistic."""
        arrays = {name: parameter.value.copy() for name, parameter in self.parameters.items()}
        return arrays | {name: statistic.copy() for name, statistic in self.statistics.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays on which later steps depend."""
        steps = {"optimizer/steps": np.array(self._optimizer.steps)}
        return {name: view.copy() for name, view in self._state_views().items()} | steps

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the arrays that the method ``state`` has returned."""
        views = self._state_views(with_average=False)
        if has_average := any(name.startswith("average/") for name in state):
            weights = {name: view for name, view in views.items() if name.startswith("weights/")}
            views |= {name.replace("weights/", "average/", 1): x for name, x in weights.items()}
        check_state(views | {"optimizer/steps": np.array(0)}, state)
        if state["optimizer/steps"] < 0:
            raise ValueError("optimizer/steps is negative")
        for name, view in self._state_views(has_average).items():
            np.copyto(view, state[name])
        self._optimizer.steps = int(state["optimizer/steps"])

    def _state_views(self, with_average: bool | None = None) -> dict[str, Array]:
        """Return views of the state by name. By default, the average is included if it is used."""
        vectors = {"weights": self.flat, "gradients": self.flat_gradient}
        vectors |= {f"optimizer/{name}": x for name, x in self._optimizer.vectors.items()}
        statistics = {f"weights/{name}": x for name, x in self.statistics.items()}
        if "_average" in vars(self) if with_average is None else with_average:
            vectors["average"], *averages = self._average.averages
            statistics |= {
                f"average/{name}": average.reshape(x.shape)
                for (name, x), average in zip(self.statistics.items(), averages, strict=True)
            }
        views = {
            f"{kind}/{name}": view
            for kind, vector in vectors.items()
            for name, view in self._layout.views(vector).items()
        }
        return views | statistics

    def restart(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic, and forget the state of the optimizer."""
        self.load(arrays)
        self._optimizer.reset()

    def set_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Set weights to zero where their mask is False, and keep them at zero in later steps."""
        self._mask = np.ones_like(self.flat)
        for name, view in self._layout.views(self._mask).items():
            np.copyto(view, masks.get(name, True))
        pruned = self._mask == 0
        for vector in (self.flat, *self._optimizer.vectors.values()):
            vector[pruned] = 0
        vars(self).pop("_average", None)

    def mean_gradients(
        self, batches: Iterable[tuple[Array, Array]], step: int
    ) -> dict[str, NDArray[np.floating]]:
        """Return the gradient of the mean loss of batches, without penalties."""
        last, total, count = self.flat_gradient.copy(), np.zeros_like(self.flat), 0
        is_whole = self._config.accumulation_steps == 1
        self._builder.momentum = 0.0  # running statistics do not change
        try:
            for x, y in batches:
                (self._backward if is_whole else self._accumulate)(x, y, step)
                total += len(y) * self.flat_gradient
                count += len(y)
        finally:
            self._builder.momentum = None
            np.copyto(self.flat_gradient, last)
        return {name: view.copy() for name, view in self._layout.views(total / count).items()}

    def train_step(self, x: Array, y: Array, lr: float, step: int) -> None:
        """Perform one optimizer update."""
        loss, logits = (
            self._backward(x, y, step)
            if self._config.accumulation_steps == 1
            else self._accumulate(x, y, step)
        )
        self._steps.append((loss, logits, y))
        if self._mask is not None:
            np.multiply(self.flat_gradient, self._mask, out=self.flat_gradient)
        penalized = self._layout.penalized
        regularizer = self._config.regularizer
        add_penalty_gradients(
            self.flat[penalized], self.flat_gradient[penalized], regularizer.l1, regularizer.l2
        )
        if max_norm := regularizer.grad_clip:
            self._norm_before_clipping = clip(self.flat_gradient, max_norm)
        self._optimizer.step(lr)
        if max_norm := regularizer.max_norm:
            limit_norms(self._weights, max_norm)

    def _backward(self, x: Array, y: Array, step: int) -> tuple[float, Array]:
        """Return the mean loss and the logits (N, K); write the gradient to ``flat_gradient``."""
        is_small = len(x) * self._largest_flops in tuning.SINGLE_BLAS_THREAD_FLOPS
        with single_blas_thread() if is_small else nullcontext():
            logits, loss = self.forward(Variable(x), y, step)
            value, copied = float(loss.value), logits.value.copy()
            if self._not_finite is None and not math.isfinite(value):
                self._not_finite = self._first_not_finite(x, step)
            self._tape.backward(loss)
        return value, copied

    def _accumulate(self, x: Array, y: Array, step: int) -> tuple[float, Array]:
        """Add up the gradients of the micro-batches. Return the mean loss and the logits (N, K)."""
        config, total = self._config, self._gradient_sum
        parts = batch_parts(len(y), config.batch_size, config.accumulation_steps)
        total.fill(0)
        losses, logits = [], []
        for number, rows in enumerate(parts):
            # Each micro-batch has its own step number, and thus its own dropout masks.
            loss, z = self._backward(x[rows], y[rows], step * config.accumulation_steps + number)
            fraction = (rows.stop - rows.start) / len(y)
            self.flat_gradient *= fraction
            total += self.flat_gradient
            losses.append(fraction * loss)
            logits.append(z)
        np.copyto(self.flat_gradient, total)
        return sum(losses), np.concatenate(logits)

    def forward(
        self, x: Variable, y: Array, step: int, first: int = 0
    ) -> tuple[Variable, Variable]:
        """Return logits (N, K) and the mean loss in training mode, recorded on the tape.

        ``x`` is the input of the layer with the index ``first``, (N, D) or (N, C, H, W), and ``y``
        contains labels (N,) or class fractions (N, K).
        """
        logits = self._run(self._modules(first), self._tape, x, step)
        return logits, self._tape.apply(self._loss_op, logits, labels=y, **self._loss_options)

    def layer_inputs(self, x: Array, step: int) -> list[Array]:
        """Return x and copies of the inputs of later ``architecture.layers``, in training mode."""
        outputs = self._record_outputs(x, step)
        return [x, *(outputs[layer.name] for layer in self.architecture.layers[:-1])]

    def gradients(self, loss: Variable) -> dict[str, Array]:
        """Return views of the gradients of ``loss``, without penalties, for every parameter."""
        self._tape.backward(loss)
        return self._gradient_views()

    def read_steps(self) -> StepRecord:
        """Return the record of the steps since the last call."""
        losses = np.array([loss for loss, _, _ in self._steps], dtype=np.float64)
        correct = sum(
            int(np.count_nonzero(z.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))))
            for _, z, y in self._steps
        )
        count = sum(len(y) for _, _, y in self._steps)
        self._steps.clear()
        gradient_norm = self._norm_before_clipping
        if not self._config.regularizer.grad_clip:
            gradient_norm = norm(self.flat_gradient)
        is_finite = self._optimizer.state_is_finite()
        return StepRecord(losses, correct, count, gradient_norm, self._not_finite, is_finite)

    def average(self, weight: float) -> None:
        """Move the average towards the parameters and running statistics."""
        self._average.move(weight)

    def swap_average(self) -> None:
        """Exchange the parameters and running statistics with their average."""
        self._average.swap()

    @cached_property
    def _average(self) -> Average:
        """The average over steps of each parameter and statistic, allocated on first use."""
        return Average([self.flat, *self.statistics.values()], self._workers)

    def recompute_statistics(self, batches: Iterable[Array]) -> None:
        """Set the running statistics of batch norm to averages over the batches."""
        if not any(name.endswith("running_mean") for name in self.statistics):
            return
        config = self._config
        parts = parts_of(batches, config.batch_size, config.accumulation_steps)
        try:
            for number, x in enumerate(parts):
                self._builder.momentum = 1 / (number + 1)
                self._run(self._modules(), self._tape, Variable(x), number)
        finally:
            self._builder.momentum = None

    def predict(self, x: Array) -> NDArray[np.floating]:
        """Return logits (N, K) in evaluation mode."""
        logits = self._logits(x)
        if self._config.regularizer.test_time_flip:
            logits = (logits + self._logits(x[..., ::-1])) / 2
        return logits

    def _logits(self, x: Array) -> NDArray[np.floating]:
        """Return logits (N, K), evaluated in chunks that limit the memory."""
        rows = self._evaluation_rows
        logits = [
            self._run(self._modules(), self._evaluation_tape, Variable(chunk), None).value.copy()
            for chunk in (x[start : start + rows] for start in range(0, len(x), rows))
        ]
        return np.concatenate(logits)

    def layer_outputs(self, x: Array) -> dict[str, NDArray[np.floating]]:
        """Return copies of the output of every layer in evaluation mode."""
        outputs = self._record_outputs(x, None)
        return {layer.name: outputs[layer.name] for layer in self.architecture.walk()}

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of the last step's gradients, with penalties and after clipping."""
        return {name: gradient.copy() for name, gradient in self._gradient_views().items()}

    def _gradient_views(self) -> dict[str, Array]:
        buffers = {name: parameter.grad_buffer for name, parameter in self.parameters.items()}
        return {name: buffer for name, buffer in buffers.items() if buffer is not None}

    def _modules(self, first: int = 0) -> list[Module]:
        """Return the modules of the layers, starting at index ``first``."""
        if first not in self._modules_from:
            self._modules_from[first] = self._builder.build_all(self.architecture.layers[first:])
        return self._modules_from[first]

    def _run(
        self, modules: Iterable[Module], tape: Tape, x: Variable, step: int | None
    ) -> Variable:
        """Reset the tape, apply the modules in order and return the last output."""
        tape.reset()
        if x.value.ndim == 4:
            x = tape.apply(CHANNELS_LAST, x)
        for module in modules:
            x = module(tape, x, step)
        return x

    def _first_not_finite(self, x: Array, step: int) -> str | None:
        """Compute the batch again, and return the first layer whose output is not finite."""
        outputs = self._record_outputs(x, step)
        broken = (name for name, output in outputs.items() if not np.isfinite(output).all())
        return next(broken, None)

    def _record_outputs(self, x: Array, step: int | None) -> dict[str, NDArray[np.floating]]:
        """Return the output of every layer by name, in the order of computation."""
        outputs: dict[str, Array] = {}
        builder = LayerBuilder(self._config, self.parameters, self.statistics, outputs)
        modules = builder.build_all(self.architecture.layers)
        self._run(modules, Tape(self._workers), Variable(x), step)
        return outputs
