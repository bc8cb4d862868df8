"""How a network uses its device: the process's settings, the layout of images, compilation, and
what is said when its memory does not suffice or it has no kernel."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
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
"""(x (N, ...), labels) -> logits (N, K), mean loss of the batch."""


def set_process_up(backend: TorchConfig, threads: int) -> None:
    """PyTorch keeps these settings for the whole process: each is set also to what it is without
    being asked for, since an earlier point may have changed it."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(backend.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # none is read
    torch.backends.cudnn.benchmark = not backend.deterministic
    # TF32, which keeps 10 of float32's 23 bits, is cuDNN's default but not that of other products.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def layout_of(architecture: Architecture, backend: TorchConfig) -> torch.memory_format | None:
    """The layout in which images are fastest, None being the one they come in.

    Convolutions want the channels of a pixel side by side, as (N, H, W, C): products of matrices
    then need no rearranging. In float64 PyTorch has no such kernels.
    """
    has_conv = any(isinstance(layer.record, records.Conv2d) for layer in architecture.walk())
    return torch.channels_last if has_conv and backend.dtype == "float32" else None


_compiled_for: list[tuple[Any, ...]] = []
"""What the compiled code that PyTorch holds depends on."""

MOST_KINDS = 3
"""Of compiled networks at a time, each with its last batch: PyTorch keeps eight compiled forms of
one function, and runs further ones uncompiled."""


def compiled(forward: Forward, architecture: Architecture, config: Config) -> Forward:
    """``forward`` and its gradient through torch.compile, if configured: compiled at the first
    batch of each size.

    A network like an earlier one, but for numbers such as seed and learning rate, takes over what
    was compiled for that one, unless more than MOST_KINDS have come since.
    """
    backend = config.backend
    assert isinstance(backend, TorchConfig)
    if backend.compile == "off":
        return forward
    sizes = config.batch_size, config.accumulation, config.last_batch, config.dataset
    kind = (architecture, backend, config.loss, config.regularizer.label_smoothing, *sizes)
    if kind not in _compiled_for:
        if len(_compiled_for) == MOST_KINDS:
            torch.compiler.reset()
            _compiled_for.clear()
        _compiled_for.append(kind)
    # The compiler looks at .grad of what dropout, which it leaves to PyTorch, takes.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    fast = torch.compile(forward, mode=backend.compile, dynamic=False)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits, loss = fast(x, y)
        return logits.clone(), loss.clone()  # a CUDA graph writes over its results at the next step

    return step


WANT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""Parts of what is said by CUDA and MPS, by the CPU's allocator, and by CUDA's libraries."""

AMOUNT = re.compile(r"ried to allocate (?:more than )?(\d[\d.]* ?[A-Za-z]+)")


class DeviceErrors:
    """A context in which what PyTorch says of its device becomes an error of nnopt's: want of
    memory a MemoryError, that of a repeatable kernel a TrainingError. Both name the layer in whose
    forward pass it happens; a backward pass runs in no module, and compiled code neither.

    layers: id of a module -> its name.
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
        name = _innermost(traceback, self._layers)
        where = f" in layer {name}" if name else ""
        if any(sign in message for sign in WANT_OF_MEMORY):
            amount = AMOUNT.search(message)
            needed = f"{amount[1]} more" if amount else "more"
            raise MemoryError(f"{needed} were needed{where}") from error
        operation, sign, _ = message.partition(" does not have a deterministic implementation")
        if sign:
            raise TrainingError(
                f"backend.deterministic = true: PyTorch has no repeatable {operation}{where} on "
                "this device; set backend.deterministic=false, or choose another layer"
            ) from error


def _innermost(traceback: TracebackType | None, layers: Mapping[int, str]) -> str | None:
    """The name of the last module whose method was running."""
    name = None
    while traceback is not None:
        name = layers.get(id(traceback.tb_frame.f_locals.get("self")), name)
        traceback = traceback.tb_next
    return name
