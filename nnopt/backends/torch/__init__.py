"""The PyTorch backend: the same layers, losses and update rules, on any device.

This file imports PyTorch only when one of its functions is called, so that a missing PyTorch or
device is reported like any other error in the configuration.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from nnopt.architecture.network import Architecture
from nnopt.data.dataset import Normalization, Part
from nnopt.errors import ConfigError
from nnopt.schema import Config, ScheduleFreeConfig, TorchConfig, TorchvisionConfig

if TYPE_CHECKING:
    from nnopt.backends.torch.loader import TorchLoader
    from nnopt.backends.torch.network import TorchNetwork


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable the search for reference cycles, which takes a tenth of PyTorch's import time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_backend(config: Config) -> list[str]:
    """Return all reasons why this machine cannot use ``config.backend``, one line each."""
    assert isinstance(config.backend, TorchConfig)
    try:
        with _no_garbage_collection():
            import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a shared library of PyTorch does not load
        remedy = _pip_install(error, "torch")
        return [
            f"backend.name = 'torch': PyTorch does not load ({error}); "
            f"run: {remedy}, or set backend=numpy"
        ]
    default_threads()  # cached before a run limits the threads
    return [
        *_schedulefree_problems(config),
        *_device_problems(config.backend),
        *_torchvision_problems(config),
    ]


def _pip_install(error: Exception, *packages: str) -> str:
    """Return the pip command that repairs a failed import of the last of the packages."""
    is_absent = isinstance(error, ModuleNotFoundError) and error.name == packages[-1]
    target = "'nnopt[torch]'" if is_absent else f"--force-reinstall {' '.join(packages)}"
    return f"pip install {target}"


def _schedulefree_problems(config: Config) -> list[str]:
    if not isinstance(config.optimizer, ScheduleFreeConfig):
        return []
    try:
        import schedulefree  # noqa: F401
    except ImportError as error:
        return [
            f"optimizer.name = {config.optimizer.name!r}: the library schedulefree does not "
            f"load ({error}); run: pip install schedulefree"
        ]
    return []


def _device_problems(backend: TorchConfig) -> list[str]:
    import torch

    device, problems, available = backend.device, [], ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        count = torch.accelerator.device_count()
        available += [str(kind), *(f"{kind}:{index}" for index in range(count))]
    if device not in available:
        problems.append(
            f"backend.device = {device!r}: PyTorch {torch.__version__} has no such device here; "
            f"available: {', '.join(available)}; set backend.device to one of them, or install the "
            "PyTorch that is made for the device"
        )
    elif backend.compile != "off" and (missing := _missing_for_compilation(device)):
        problems.append(
            f"backend.compile = {backend.compile!r} on {device} needs {missing}; "
            "set backend.compile=off"
        )
    if device.startswith("mps") and backend.dtype == "float64":
        problems.append(
            "backend.dtype = 'float64': backend.device = 'mps' computes in float32 only; "
            "set backend.dtype=float32 or backend.device=cpu"
        )
    return problems


def _torchvision_problems(config: Config) -> list[str]:
    architecture, policy = config.architecture, config.regularizer.augmentation.policy
    needs_model = isinstance(architecture, TorchvisionConfig)
    needed_by = ["architecture.name = 'torchvision'"] if needs_model else []
    if policy != "none":
        needed_by.append(f"regularizer.augmentation.policy = {policy!r}")
    if not needed_by:
        return []
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: built for another PyTorch
        remedy = _pip_install(error, "torch", "torchvision")
        return [f"{' and '.join(needed_by)}: torchvision does not load ({error}); run: {remedy}"]
    if not isinstance(architecture, TorchvisionConfig):
        return []
    from nnopt.backends.torch.vision import model_problems

    return model_problems(architecture)


def _missing_for_compilation(device: str) -> str | None:
    """Return the first missing tool of torch.compile, which generates C++, or Triton on CUDA."""
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            return "Triton, found none: pip install triton"
        if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
            return "a C compiler, found neither $CC nor gcc nor clang"
    if device == "cpu" and not any(
        map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))
    ):
        return "a C++ compiler, found neither $CXX nor g++ nor clang++"
    return None


def device_errors() -> AbstractContextManager[None]:
    """Return ``DeviceErrors`` without layer names. PyTorch must be installed."""
    from nnopt.backends.torch.device import DeviceErrors

    return DeviceErrors()


@cache
def default_threads() -> int:
    """Return PyTorch's default number of threads: OMP_NUM_THREADS, or one per physical core."""
    import torch

    return torch.get_num_threads()


def build_network(architecture: Architecture, config: Config) -> TorchNetwork:
    """Return a network without weights; ``TorchNetwork.load`` sets them."""
    _require(config)
    with _no_garbage_collection():
        from nnopt.backends.torch.network import TorchNetwork

    return TorchNetwork(architecture, config)


def build_loader(part: Part, normalization: Normalization, config: Config) -> TorchLoader:
    """Return the loader of the batches of one part of a dataset."""
    _require(config)
    from nnopt.backends.torch.loader import TorchLoader

    return TorchLoader(part, normalization, config)


def _require(config: Config) -> None:
    """Raise ConfigError with the problems of ``check_backend``, if there are any."""
    if problems := check_backend(config):
        raise ConfigError(problems)
