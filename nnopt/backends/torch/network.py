"""A network in PyTorch: loss, penalties, clipping and update, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nnopt.architecture.network import Architecture, is_penalized, is_weight
from nnopt.backends.protocol import StepRecord
from nnopt.backends.state import check_state
from nnopt.backends.thread_choice import threads_for
from nnopt.backends.torch import optimizers
from nnopt.backends.torch.average import Average
from nnopt.backends.torch.device import (
    DeviceErrors,
    Forward,
    compiled,
    configure_process,
    evaluation_rows,
    image_memory_format,
)
from nnopt.backends.torch.dropout import Dropout
from nnopt.backends.torch.gradients import Norm, clip, total_norm
from nnopt.backends.torch.losses import Loss, build_loss
from nnopt.backends.torch.masks import Masks
from nnopt.backends.torch.modules import build_module
from nnopt.backends.torch.normalization import batch_norms, keeping_momenta, unchanged_statistics
from nnopt.backends.torch.optimizer_state import (
    expected_state,
    load_optimizer_state,
    optimizer_state,
)
from nnopt.backends.torch.penalties import add_penalty_gradients, decay, limit_norms
from nnopt.backends.torch.precision import Precision
from nnopt.backends.torch.schedule_free import ScheduleFree
from nnopt.backends.torch.step_sums import StepSums
from nnopt.data.batches import batch_parts, parts_of
from nnopt.schema import Config, TorchConfig, weight_decay


def logits_and_loss(module: nn.Module, precision: Precision, loss: Loss) -> Forward:
    """Return the forward pass of a training step.

    The function does not refer to the ``TorchNetwork``: a reference cycle would keep its memory.
    """

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with precision.autocast():
            logits = module(x)
        return logits, loss(precision.restore(logits), y)

    return forward


class TorchNetwork:
    """A network in PyTorch; ``nnopt.backends.protocol.Network`` documents its methods."""

    def __init__(self, architecture: Architecture, config: Config) -> None:
        backend, regularizer = config.backend, config.regularizer
        assert isinstance(backend, TorchConfig)
        threads = threads_for(architecture, config, torch.get_num_threads())
        configure_process(backend, threads.count)
        self.module = build_module(architecture, config).to(getattr(torch, backend.dtype))
        self._memory_format = image_memory_format(architecture, backend)
        if self._memory_format is not None:
            self.module.to(memory_format=self._memory_format)
        self._precision = Precision(backend)
        self._layers = [layer.name for layer in architecture.walk()]
        self._evaluation_rows = evaluation_rows(architecture, backend)
        self._dropouts = [x for x in self.module.modules() if isinstance(x, Dropout)]
        self._named = named = dict(self.module.named_parameters())
        self._parameters = list(named.values())
        self._penalized: list[Tensor] = [
            parameter
            for parameter in named.values()
            if is_penalized(tuple(parameter.shape), regularizer.decay_norm_and_bias)
        ]
        self._weights = [x for name, x in named.items() if is_weight(name, tuple(x.shape))]
        self._batch_size, self._accumulation_steps = config.batch_size, config.accumulation_steps
        self._is_whole = config.accumulation_steps == 1
        self._regularizer = regularizer
        self._config = config
        self._start_optimizer()
        self._errors = DeviceErrors(
            {id(self.module.get_submodule(name)): name for name in self._layers}
        )
        step = logits_and_loss(self.module, self._precision, build_loss(config))
        self._forward = compiled(step, architecture, config)
        if self._parameters[0].is_cuda:
            torch.cuda.reset_peak_memory_stats(self._parameters[0].device)
        self._masks = Masks(self._named, {})
        self._steps = StepSums()
        self._gradient_norm: Norm | None = None

    def _start_optimizer(self) -> None:
        """Build the optimizer in its initial state."""
        config = self._config
        self._optimizer = optimizers.build_optimizer(self._parameters, self._weights, config)
        self._schedule_free = self._optimizer if isinstance(self._optimizer, ScheduleFree) else None
        self._weight_decay = 0.0 if self._schedule_free else weight_decay(config)
        penalized = {id(x) for x in self._penalized}
        groups = [
            (group, [x for x in group["params"] if id(x) in penalized])
            for group in self._optimizer.param_groups
        ]
        self._decayed = [(group, parameters) for group, parameters in groups if parameters]

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic."""
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(torch.tensor(arrays[name]))
        if self._schedule_free:
            self._schedule_free.reset()

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of every parameter and running statistic."""
        self._set_mode(training=False)
        state = self.module.state_dict()
        return {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays on which later steps depend."""
        self._set_mode(training=True)  # Schedule-Free then selects the weights for training
        tensors = self.module.state_dict()
        state = {f"weights/{name}": tensor for name, tensor in tensors.items()}
        if "_average" in vars(self):
            averages = zip(tensors, self._average.averages, strict=True)
            state |= {f"average/{name}": average for name, average in averages}
        state |= optimizer_state(self._optimizer, self._named)
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}
        arrays |= {f"gradients/{name}": array for name, array in self.gradient_arrays().items()}
        return arrays | self._precision.state()

    @torch.no_grad()
    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the arrays that the method ``state`` has returned."""
        self._set_mode(training=True)
        tensors = self.module.state_dict()
        gradients = {name: torch.zeros_like(p) for name, p in self._named.items()}
        targets = {f"weights/{name}": tensor for name, tensor in tensors.items()}
        targets |= {f"gradients/{name}": gradient for name, gradient in gradients.items()}
        expected = {name: tensor.cpu().numpy() for name, tensor in targets.items()}
        if has_average := any(name.startswith("average/") for name in state):
            expected |= {f"average/{name}": expected[f"weights/{name}"] for name in tensors}
        expected |= expected_state(self._optimizer, self._named, state)
        check_state(expected | self._precision.state(), state)
        if has_average:
            averages = zip(tensors, self._average.averages, strict=True)
            targets |= {f"average/{name}": average for name, average in averages}
        for name, tensor in targets.items():
            tensor.copy_(torch.from_numpy(state[name]))
        for name, gradient in gradients.items():
            self._named[name].grad = gradient
        load_optimizer_state(self._optimizer, self._named, state)
        self._precision.load_state(state)

    def restart(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic, and forget the state of the optimizer."""
        self._set_mode(training=True)  # else Schedule-Free would return to its saved weights
        self.load(arrays)
        self._start_optimizer()

    def set_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Set weights to zero where their mask is False, and keep them at zero in later steps."""
        self._set_mode(training=True)
        self._masks = Masks(self._named, masks)
        self._masks.set_to_zero(self._named | optimizer_state(self._optimizer, self._named))
        vars(self).pop("_average", None)

    def mean_gradients(
        self, batches: Iterable[tuple[Tensor, Tensor]], step: int
    ) -> dict[str, NDArray[np.floating]]:
        """Return the gradient of the mean loss of batches, without penalties."""
        self._set_mode(training=True)
        last, count = [p.grad for p in self._parameters], 0
        total = {name: np.zeros_like(x) for name, x in self.gradient_arrays().items()}
        with unchanged_statistics(self.module):
            for x, y in batches:
                self._zero_gradients()
                (self._backward if self._is_whole else self._accumulate)(x, y, step)
                for name, gradient in self.gradient_arrays().items():
                    total[name] += gradient * (len(y) / self._precision.scale)
                count += len(y)
        for parameter, before in zip(self._parameters, last, strict=True):
            parameter.grad = before
        return {name: array / count for name, array in total.items()}

    def train_step(self, x: Tensor, y: Tensor, lr: float, step: int) -> None:
        """Perform one optimizer update."""
        self._set_mode(training=True)
        self._zero_gradients()
        with self._errors:
            loss, logits = (self._backward if self._is_whole else self._accumulate)(x, y, step)
            self._steps.add(loss, logits, y)
            self._update(lr)

    def _zero_gradients(self) -> None:
        for parameter in self._parameters:  # a CUDA graph would overwrite a micro-batch's gradient
            parameter.grad = None if self._is_whole else torch.zeros_like(parameter)

    def _backward(
        self, x: Tensor, y: Tensor, step: int, fraction: float = 1
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss and logits (N, K). Add ``fraction`` · gradient to each ``grad``."""
        for dropout in self._dropouts:
            dropout.set_step(step)
        logits, loss = self._forward(self._to_memory_format(x), y)
        self._precision.backward(loss if fraction == 1 else loss * fraction)
        return loss.detach(), logits.detach()

    def _accumulate(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Add up the gradients of the micro-batches. Return the mean loss and the logits (N, K)."""
        losses, logits = [], []
        parts = batch_parts(len(y), self._batch_size, self._accumulation_steps)
        for number, rows in enumerate(parts):
            fraction = (rows.stop - rows.start) / len(y)
            # Each micro-batch has its own step number, and thus its own dropout masks.
            part_step = step * self._accumulation_steps + number
            loss, z = self._backward(x[rows], y[rows], part_step, fraction)
            losses.append(loss * fraction)
            logits.append(z)
        return torch.stack(losses).sum(), torch.cat(logits)

    def _logits(self, x: Tensor) -> Tensor:
        """Return logits (N, K) in the current mode of the module."""
        with self._errors, self._precision.autocast():
            logits = self.module(self._to_memory_format(x))
        return self._precision.restore(logits)

    def _to_memory_format(self, x: Tensor) -> Tensor:
        return x if self._memory_format is None else x.contiguous(memory_format=self._memory_format)

    def read_steps(self) -> StepRecord:
        """Return the record of the steps since the last call."""
        norm = self._gradient_norm
        if norm is None:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            norm = total_norm(gradients)
        steps, self._steps = self._steps, StepSums()
        return steps.record(norm.read(), optimizers.state_is_finite(self._optimizer))

    def average(self, weight: float) -> None:
        """Move the average towards the parameters and running statistics."""
        self._average.move(weight)

    def swap_average(self) -> None:
        """Exchange the parameters and running statistics with their average."""
        self._average.swap()

    @torch.no_grad()
    def recompute_statistics(self, batches: Iterable[Tensor]) -> None:
        """Set the running statistics of batch norm to averages over the batches."""
        norms = batch_norms(self.module)
        if not norms:
            return
        self._set_mode(training=False)  # Schedule-Free then selects the weights for evaluation
        self.module.train()
        parts = parts_of(batches, self._batch_size, self._accumulation_steps)
        try:
            with keeping_momenta(norms):
                for number, x in enumerate(parts):
                    for dropout in self._dropouts:
                        dropout.set_step(number)
                    for norm in norms:
                        norm.momentum = 1 / (number + 1)
                    self._logits(x)
        finally:
            self.module.eval()

    @torch.inference_mode()
    def predict(self, x: Tensor) -> NDArray[np.floating]:
        """Return logits (N, K) in evaluation mode."""
        self._set_mode(training=False)
        chunks = x.split(self._evaluation_rows)  # type: ignore[no-untyped-call]
        logits = torch.cat([self._logits(chunk) for chunk in chunks])
        if self._regularizer.test_time_flip:
            flipped = torch.cat([self._logits(chunk.flip(-1)) for chunk in chunks])
            logits = (logits + flipped) / 2
        array: NDArray[np.floating] = logits.cpu().numpy()
        return array

    @torch.inference_mode()
    def layer_outputs(self, x: Tensor) -> dict[str, NDArray[np.floating]]:
        """Return copies of the output of every layer in evaluation mode."""
        self._set_mode(training=False)
        outputs: dict[str, NDArray[np.floating]] = {}

        def store(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = self._precision.restore(output).cpu().numpy().copy()

        hooks = [
            self.module.get_submodule(name).register_forward_hook(partial(store, name))
            for name in self._layers
        ]
        try:
            self._logits(x)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: outputs[name] for name in self._layers}

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of the last step's gradients, with penalties and after clipping."""
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).detach().cpu().numpy().copy()
            for name, p in self.module.named_parameters()
        }

    def _set_mode(self, training: bool) -> None:
        """Set the mode of the layers and of Schedule-Free, whose weights depend on the mode."""
        if self.module.training is not training:
            self.module.train(training)
            if self._schedule_free:
                (self._schedule_free.train if training else self._schedule_free.eval)()

    @cached_property
    def _average(self) -> Average:
        """The average over steps of each parameter and statistic, allocated on first use."""
        return Average(self.module.state_dict().values())

    @torch.no_grad()
    def _update(self, lr: float) -> None:
        """Apply penalties, clipping, decoupled weight decay, optimizer and max-norm in this order.

        If a gradient overflowed, the device skips weight decay, the optimizer and max-norm.
        """
        self._precision.unscale(self._optimizer)
        self._masks.mask_gradients()
        overflowed = self._precision.overflowed(self._optimizer)
        regularizer = self._regularizer
        add_penalty_gradients(self._penalized, regularizer.l1, regularizer.l2)
        if max_norm := regularizer.grad_clip:
            self._gradient_norm = clip(self._parameters, max_norm)
        optimizers.set_learning_rate(self._optimizer, lr)
        if self._weight_decay:
            decay(self._decayed, self._weight_decay, overflowed)
        self._precision.step(self._optimizer)
        if optimizers.mixes_elements(self._optimizer):
            self._masks.mask_parameters()
        if max_norm := regularizer.max_norm:
            limit_norms(self._weights, max_norm, overflowed)
