"""How a network uses its device: the process's settings, the layout of images, compilation, and
what is said when its memory does not suffice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType

import torch
from torch import Tensor

from nnopt.architecture import layers as records
from nnopt.architecture.network import Architecture
from nnopt.backends.pytorch import default_threads
from nnopt.schema import TorchConfig

Forward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x (N, ...), labels) -> logits (N, K), mean loss of the batch."""


def set_process_up(backend: TorchConfig) -> None:
    """PyTorch keeps these settings for the whole process: each is set also to what it is without
    being asked for, since an earlier point may have changed it."""
    torch.set_num_threads(backend.threads or default_threads())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(backend.deterministic)
    torch.backends.cudnn.benchmark = not backend.deterministic


def layout_of(architecture: Architecture, backend: TorchConfig) -> torch.memory_format | None:
    """The layout in which images are fastest, None being the one they come in.

    Convolutions want the channels of a pixel side by side, as (N, H, W, C): products of matrices
    then need no rearranging. In float64 PyTorch has no such kernels.
    """
    has_conv = any(isinstance(layer.record, records.Conv2d) for layer in architecture.walk())
    return torch.channels_last if has_conv and backend.dtype == "float32" else None


def compiled(forward: Forward, backend: TorchConfig) -> Forward:
    """``forward`` and its gradient through torch.compile, if configured: compiled at the first
    batch of each size."""
    if backend.compile == "off":
        return forward
    # The compiler looks at .grad of what dropout, which it leaves to PyTorch, takes.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    fast = torch.compile(forward, mode=backend.compile, dynamic=False)

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits, loss = fast(x, y)
        return logits.clone(), loss.clone()  # a CUDA graph writes over its results at the next step

    return step


class MemoryErrors:
    """A context in which want of memory is a MemoryError that names the layer that wanted it.

    layers: id of a module -> its name; a backward pass runs in no module.
    """

    def __init__(self, layers: Mapping[int, str]) -> None:
        self._layers = layers

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
        if not (isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in message):
            return
        amount = message.partition("ried to allocate ")[2].split()[:2]
        name = _innermost(traceback, self._layers)
        where = f"in layer {name}" if name else "outside of the layers' forward pass"
        raise MemoryError(" ".join([*amount, "more were needed", where])) from error


def _innermost(traceback: TracebackType | None, layers: Mapping[int, str]) -> str | None:
    """The name of the last module whose method was running."""
    name = None
    while traceback is not None:
        name = layers.get(id(traceback.tb_frame.f_locals.get("self")), name)
        traceback = traceback.tb_next
    return name
