"""The use of a device: settings of the process, memory format, compilation and errors."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from traceback import walk_tb
from types import TracebackType
from typing import Any

import torch
import torch.utils.deterministic
from torch import Tensor

from nnopt.architecture import layers as records
from nnopt.architecture.network import Architecture
from nnopt.errors import TrainingError
from nnopt.schema import Config, TorchConfig

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x (N, ...), labels) -> logits (N, K) and the mean loss of the batch."""

CPU_EVALUATION_ELEMENTS, ACCELERATOR_EVALUATION_ELEMENTS = 2**26, 2**28
"""Maximum number of elements of a layer's input and output together in evaluation, on a CPU and on
an accelerator: 256 MB and 1 GB in float32."""


def configure_process(backend: TorchConfig, threads: int) -> None:
    """Set PyTorch's settings for the process. An earlier run may have changed the defaults."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA reads this when it starts
    torch.use_deterministic_algorithms(backend.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # uninitialized memory is not read
    torch.backends.cudnn.benchmark = not backend.deterministic
    # TF32 keeps 10 of the 23 fraction bits of float32. By default, only cuDNN uses TF32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def evaluation_rows(architecture: Architecture, backend: TorchConfig) -> int:
    """Return the number of samples to evaluate at once, to limit the memory of a layer."""
    layers = architecture.walk()
    largest = max(math.prod(x.input_shape) + math.prod(x.output_shape) for x in layers)
    is_cpu = backend.device == "cpu"
    elements = CPU_EVALUATION_ELEMENTS if is_cpu else ACCELERATOR_EVALUATION_ELEMENTS
    return max(1, elements // largest)


def image_memory_format(
    architecture: Architecture, backend: TorchConfig
) -> torch.memory_format | None:
    """Return the fastest memory format of images, or None to keep the format of the input.

    Convolutions are fastest with the channels of a pixel next to each other, (N, H, W, C), because
    the matrix products then need no copies. In float64, PyTorch has no convolutions of this format.
    """
    has_conv = any(isinstance(layer.record, records.Conv2d) for layer in architecture.walk())
    return torch.channels_last if has_conv and backend.dtype == "float32" else None


_compiled_keys: list[tuple[Any, ...]] = []
"""For each compiled network in PyTorch's cache, all values on which the compiled code depends."""

MAX_COMPILED_NETWORKS = 3
"""Maximum number of compiled networks at a time. Each network is compiled for two batch sizes.
PyTorch keeps at most eight compiled versions of a function, and runs any others uncompiled."""


def compiled(forward: Forward, architecture: Architecture, config: Config) -> Forward:
    """Return ``forward`` compiled by torch.compile, or unchanged if compilation is off.

    Forward and backward pass are compiled at the first batch of each size. A network that differs
    from an earlier one only in numbers such as the seed or the learning rate reuses the compiled
    code. Before MAX_COMPILED_NETWORKS would be exceeded, all compiled code is deleted.
    """
    backend = config.backend
    assert isinstance(backend, TorchConfig)
    if backend.compile == "off":
        return forward
    sizes = config.batch_size, config.accumulation_steps, config.drop_last, config.dataset
    loss = config.loss, config.focal_gamma, config.regularizer.label_smoothing
    key = (architecture, backend, *loss, *sizes)
    if key not in _compiled_keys:
        if len(_compiled_keys) == MAX_COMPILED_NETWORKS:
            torch.compiler.reset()
            _compiled_keys.clear()
        _compiled_keys.append(key)
    # PyTorch warns when the compiler reads .grad of the inputs of dropout, which is not compiled.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    compiled_forward = torch.compile(forward, mode=backend.compile, dynamic=False)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits, loss = compiled_forward(x, y)
        return logits.clone(), loss.clone()  # a CUDA graph overwrites its results at the next step

    return step


OOM_MESSAGES = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""Parts of messages about a lack of memory, from CUDA, MPS, the CPU and CUDA's libraries."""

REQUESTED_MEMORY = re.compile(r"ried to allocate (?:more than )?(\d[\d.]* ?[A-Za-z]+)")


class DeviceErrors:
    """A context manager that converts PyTorch's errors about a device.

    A lack of memory becomes MemoryError. A missing deterministic kernel becomes TrainingError. The
    messages name the layer, except for errors in the backward pass and in compiled code, which run
    outside of the modules. ``layers`` maps the id of a module to the name of the layer.
    """

    def __init__(self, layers: Mapping[int, str] | None = None) -> None:
        self._layers = layers or {}

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, RuntimeError):
            return
        message = str(error)
        modules = (id(frame.f_locals.get("self")) for frame, _ in walk_tb(traceback))
        names = [self._layers[module] for module in modules if module in self._layers]
        where = f" in layer {names[-1]}" if names else ""  # the innermost layer
        if any(part in message for part in OOM_MESSAGES):
            amount = REQUESTED_MEMORY.search(message)
            needed = f"{amount[1]} more memory" if amount else "more memory"
            raise MemoryError(f"{needed} was needed{where}") from error
        operation, separator, _ = message.partition(" does not have a deterministic implementation")
        if separator:
            raise TrainingError(
                f"backend.deterministic = true: PyTorch has no deterministic {operation}{where} "
                "on this device; set backend.deterministic=false, or choose another layer"
            ) from error
