"""The PyTorch backend: the NumPy backend's layers and losses, and more optimizers, on any device.

The functions of this file import PyTorch only when they are called, so that a missing PyTorch or a
missing device is reported like any other error in the configuration.
"""

from __future__ import annotations

import gc
import importlib
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
    with _no_garbage_collection():
        problems = _import_problems("backend.name = 'torch'", "PyTorch", "torch")
    if problems:
        return [f"{problem}, or set backend=numpy" for problem in problems]
    default_threads()  # stores PyTorch's default before a run changes it
    if isinstance(config.optimizer, ScheduleFreeConfig):
        setting, title = f"optimizer.name = {config.optimizer.name!r}", "the library schedulefree"
        problems = _import_problems(setting, title, "schedulefree")
    return [*problems, *_device_problems(config.backend), *_torchvision_problems(config)]


def _import_problems(setting: str, title: str, *packages: str) -> list[str]:
    """Return why the last of ``packages`` does not load, and a pip command that repairs this."""
    name = packages[-1]
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        # OSError: a shared library does not load. RuntimeError: a package is for another PyTorch.
        target = f"--force-reinstall {' '.join(packages)}"
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            target = name if name == "schedulefree" else "'nnopt[torch]'"
        return [f"{setting}: {title} does not load ({error}); run: pip install {target}"]
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
    problems = _import_problems(" and ".join(needed_by), "torchvision", "torch", "torchvision")
    if problems or not isinstance(architecture, TorchvisionConfig):
        return problems
    from nnopt.backends.torch.vision import model_problems

    return model_problems(architecture)


def _missing_for_compilation(device: str) -> str | None:
    """Return a tool that torch.compile needs and that is missing, or None if all are present."""
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            return "Triton, which is not installed (pip install triton)"
        if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
            return "a C compiler, but neither $CC nor gcc nor clang was found"
    if device == "cpu" and not any(
        map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))
    ):
        return "a C++ compiler, but neither $CXX nor g++ nor clang++ was found"
    return None


def device_errors() -> AbstractContextManager[None]:
    """Return a ``DeviceErrors`` whose messages name no layers. PyTorch must be installed."""
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


def try_components(architecture: Architecture, config: Config) -> None:
    """Compute each configured component of a plug-in once. Raises ConfigError if one is faulty."""
    from nnopt.backends.torch import plugins

    plugins.try_components(architecture, config)


def _require(config: Config) -> None:
    """Raise ConfigError with the problems of ``check_backend``, if there are any."""
    if problems := check_backend(config):
        raise ConfigError(problems)
