"""A network in PyTorch: loss, penalties, clipping, update; no step waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nnopt.architecture.network import Architecture, is_penalized, is_weight
from nnopt.backends.protocol import StepRecord
from nnopt.backends.thread_choice import threads_for
from nnopt.backends.torch.average import Average
from nnopt.backends.torch.device import DeviceErrors, Forward, compiled, layout_of, set_process_up
from nnopt.backends.torch.dropout import Dropout
from nnopt.backends.torch.gradients import Norm, clip, total_norm
from nnopt.backends.torch.modules import build_module
from nnopt.backends.torch.optimizers import build_optimizer, set_learning_rate, state_is_finite
from nnopt.backends.torch.precision import Precision
from nnopt.backends.torch.schedule_free import ScheduleFree
from nnopt.backends.torch.step_sums import StepSums
from nnopt.data.batches import batch_parts, parts_of
from nnopt.schema import Config, TorchConfig, weight_decay

CPU_NUMBERS, ACCELERATOR_NUMBERS = 2**26, 2**28
"""Of a layer in evaluation: 256 MB and 1 GB in float32."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,) or shares of each class (N, K)) -> mean loss of the batch."""


def cross_entropy(label_smoothing: float) -> Loss:
    """-Σₖ tₖ log softmax(z)ₖ with t the label or a mixture, a share of it spread evenly over the
    classes."""
    return lambda logits, y: F.cross_entropy(logits, y, label_smoothing=label_smoothing)


def hinge(logits: Tensor, y: Tensor) -> Tensor:
    """Σ_{j≠y} max(0, z_j - z_y + 1) (Weston and Watkins 1999), which PyTorch divides by K. If a
    logit is not finite, the loss and its gradient are NaN: PyTorch's would count NaN as 0."""
    loss = F.multi_margin_loss(logits, y) * logits.shape[1]
    return loss * torch.where(torch.isfinite(logits).all(), 1.0, math.nan)


def evaluation_rows(architecture: Architecture, backend: TorchConfig) -> int:
    """How many samples are evaluated at once, at most: what the largest layer takes and gives of
    them has to fit into so many numbers. Residual branches keep their input besides."""
    layers = architecture.walk()
    largest = max(math.prod(x.input_shape) + math.prod(x.output_shape) for x in layers)
    numbers = CPU_NUMBERS if backend.device == "cpu" else ACCELERATOR_NUMBERS
    return max(1, numbers // largest)


def logits_and_loss(module: nn.Module, precision: Precision, loss: Loss) -> Forward:
    """The forward pass of a training step: (x, y) -> logits (N, K), mean loss. No method: a network
    that holds itself would keep its memory until Python looks for cycles."""

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with precision.autocast():
            logits = module(x)
        return logits, loss(precision.restore(logits), y)

    return forward


class TorchNetwork:
    """See ``nnopt.backends.Network`` for what the methods promise."""

    def __init__(self, architecture: Architecture, config: Config) -> None:
        backend, regularizer = config.backend, config.regularizer
        assert isinstance(backend, TorchConfig)
        threads = threads_for(architecture, config, torch.get_num_threads())
        set_process_up(backend, threads.count)
        self.module = build_module(architecture, config).to(getattr(torch, backend.dtype))
        self._layout = layout_of(architecture, backend)
        if self._layout is not None:
            self.module.to(memory_format=self._layout)
        self._precision = Precision(backend)
        self._layers = [layer.name for layer in architecture.walk()]
        self._evaluation_rows = evaluation_rows(architecture, backend)
        self._dropouts = [x for x in self.module.modules() if isinstance(x, Dropout)]
        named = dict(self.module.named_parameters())
        self._parameters = list(named.values())
        self._penalized: list[Tensor] = [
            parameter
            for parameter in named.values()
            if is_penalized(tuple(parameter.shape), regularizer.decay_all)
        ]
        self._weights = [x for name, x in named.items() if is_weight(name, tuple(x.shape))]
        self._batch_size, self._accumulation = config.batch_size, config.accumulation
        self._regularizer = regularizer
        self._optimizer = build_optimizer(self._parameters, self._weights, config)
        self._schedule_free = self._optimizer if isinstance(self._optimizer, ScheduleFree) else None
        self._weight_decay = 0.0 if self._schedule_free else weight_decay(config)
        penalized = {id(x) for x in self._penalized}
        groups = [
            (group, [x for x in group["params"] if id(x) in penalized])
            for group in self._optimizer.param_groups
        ]
        self._decayed = [(group, parameters) for group, parameters in groups if parameters]
        loss = hinge if config.loss == "hinge" else cross_entropy(regularizer.label_smoothing)
        self._errors = DeviceErrors(
            {id(self.module.get_submodule(name)): name for name in self._layers}
        )
        step = logits_and_loss(self.module, self._precision, loss)
        self._forward = compiled(step, architecture, config)
        if self._parameters[0].is_cuda:
            torch.cuda.reset_peak_memory_stats(self._parameters[0].device)
        self._steps = StepSums()
        self._gradient_norm: Norm | None = None

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(torch.tensor(arrays[name]))
        if self._schedule_free:
            self._schedule_free.restart()

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        self._set_mode(training=False)
        state = self.module.state_dict()
        return {name: tensor.cpu().numpy().copy() for name, tensor in state.items()}

    def train_step(self, x: Tensor, y: Tensor, lr: float, step: int) -> None:
        self._set_mode(training=True)
        is_whole = self._accumulation == 1
        for parameter in self._parameters:  # sums lie in memory that no CUDA graph writes over
            parameter.grad = None if is_whole else torch.zeros_like(parameter)
        with self._errors:
            loss, logits = (self._backward if is_whole else self._accumulate)(x, y, step)
            self._steps.add(loss, logits, y)
            self._update(lr)

    def _backward(self, x: Tensor, y: Tensor, step: int, share: float = 1) -> tuple[Tensor, Tensor]:
        """Mean loss and logits (N, K); ``share`` of its gradients is added to the parameters'."""
        for dropout in self._dropouts:
            dropout.begin(step)
        logits, loss = self._forward(self._laid_out(x), y)
        self._precision.backward(loss if share == 1 else loss * share)
        return loss.detach(), logits.detach()

    def _accumulate(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The same part by part. The mean over the batch is that of the parts' means, each counted
        by its share of the samples, and so is its gradient."""
        losses, logits = [], []
        for number, rows in enumerate(batch_parts(len(y), self._batch_size, self._accumulation)):
            share = (rows.stop - rows.start) / len(y)
            # In place of the step, a number of each part's own: the masks differ.
            part = step * self._accumulation + number
            loss, z = self._backward(x[rows], y[rows], part, share)
            losses.append(loss * share)
            logits.append(z)
        return torch.stack(losses).sum(), torch.cat(logits)

    def _logits(self, x: Tensor) -> Tensor:
        """(N, K), without a loss, in the module's present mode."""
        with self._errors, self._precision.autocast():
            logits = self.module(self._laid_out(x))
        return self._precision.restore(logits)

    def _laid_out(self, x: Tensor) -> Tensor:
        return x if self._layout is None else x.contiguous(memory_format=self._layout)

    def read_steps(self) -> StepRecord:
        norm = self._gradient_norm
        if norm is None:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            norm = total_norm(gradients)
        steps, self._steps = self._steps, StepSums()
        return steps.record(norm.read(), state_is_finite(self._optimizer))

    def average(self, weight: float) -> None:
        self._average.move(weight)

    def swap_average(self) -> None:
        self._average.swap()

    @torch.no_grad()
    def recompute_statistics(self, batches: Iterable[Tensor]) -> None:
        norms = [x for x in self.module.modules() if isinstance(x, nn.BatchNorm1d | nn.BatchNorm2d)]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        self._set_mode(training=False)  # the weights that are evaluated; then the layers alone
        self.module.train()
        parts = parts_of(batches, self._batch_size, self._accumulation)
        try:
            for number, x in enumerate(parts):
                for dropout in self._dropouts:
                    dropout.begin(number)
                for norm in norms:
                    norm.momentum = 1 / (number + 1)
                self._logits(x)
        finally:
            self.module.eval()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    @torch.inference_mode()
    def predict(self, x: Tensor) -> NDArray[np.floating]:
        self._set_mode(training=False)
        parts = x.split(self._evaluation_rows)  # type: ignore[no-untyped-call]
        logits = torch.cat([self._logits(part) for part in parts])
        if self._regularizer.test_flip:
            mirrored = torch.cat([self._logits(part.flip(-1)) for part in parts])
            logits = (logits + mirrored) / 2
        numbers: NDArray[np.floating] = logits.cpu().numpy()
        return numbers

    @torch.inference_mode()
    def layer_outputs(self, x: Tensor) -> dict[str, NDArray[np.floating]]:
        self._set_mode(training=False)
        outputs: dict[str, NDArray[np.floating]] = {}

        def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = self._precision.restore(output).cpu().numpy().copy()

        hooks = [
            self.module.get_submodule(name).register_forward_hook(partial(note, name))
            for name in self._layers
        ]
        try:
            self._logits(x)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: outputs[name] for name in self._layers}

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).detach().cpu().numpy().copy()
            for name, p in self.module.named_parameters()
        }

    def _set_mode(self, training: bool) -> None:
        """Of the layers, and of Schedule-Free's weights: it evaluates others than it trains on."""
        if self.module.training is not training:
            self.module.train(training)
            if self._schedule_free:
                (self._schedule_free.train if training else self._schedule_free.eval)()

    @cached_property
    def _average(self) -> Average:
        """Of all parameters and statistics; takes memory once there is something to average."""
        return Average(self.module.state_dict().values())

    @torch.no_grad()
    def _update(self, lr: float) -> None:
        """Penalties, clipping, decoupled weight decay, the optimizer, max-norm, in this order. The
        last three are left out if a gradient overflowed, which the host need not know."""
        self._precision.unscale(self._optimizer)
        overflowed = self._precision.overflowed(self._optimizer)
        self._add_penalty_gradients()
        if largest := self._regularizer.grad_clip:
            self._gradient_norm = clip(self._parameters, largest)
        set_learning_rate(self._optimizer, lr)
        if self._weight_decay:
            self._decay(overflowed)
        self._precision.step(self._optimizer)
        if largest := self._regularizer.max_norm:
            self._limit_norms(largest, overflowed)

    def _add_penalty_gradients(self) -> None:
        """d/dw (½ l2 w² + l1 |w|) = l2 w + l1 sign w."""
        l1, l2 = self._regularizer.l1, self._regularizer.l2
        if not (l1 or l2):
            return
        gradients = [p.grad for p in self._penalized if p.grad is not None]
        if l2:
            torch._foreach_add_(gradients, self._penalized, alpha=l2)
        if l1:
            torch._foreach_add_(gradients, torch._foreach_sign(self._penalized), alpha=l1)

    def _decay(self, overflowed: Tensor | None) -> None:
        """w ← (1 - η λ) w, each by the learning rate η of its own group."""
        for group, parameters in self._decayed:
            kept = 1 - group["lr"] * self._weight_decay
            factor = kept if overflowed is None else torch.where(overflowed, 1.0, kept)
            torch._foreach_mul_(parameters, factor)

    def _limit_norms(self, largest: float, overflowed: Tensor | None) -> None:
        """w ← w / max(‖w‖ / c, 1) for the weights w that come into each unit, a row of a dense
        weight or all of an output channel's kernel (Srivastava et al. 2014, section 5.1); w ← w if
        the step was left out."""
        for weight in self._weights:
            inputs = tuple(range(1, weight.ndim))
            norms = torch.linalg.vector_norm(weight, dim=inputs, keepdim=True)
            norms.masked_fill_(norms.isinf(), math.nan)  # or the weight would become 0
            excess = norms.div_(largest).clamp_(min=1)
            weight.div_(excess if overflowed is None else excess.masked_fill_(overflowed, 1))
