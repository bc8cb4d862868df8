"""The PyTorch backend: the same records, losses and update rules, on any device.

This file imports PyTorch only when one of its functions is called, so that an absent PyTorch or
device can be reported like any other mistake in the configuration.
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
def _no_collection() -> Iterator[None]:
    """While PyTorch is imported, Python does not look for garbage in cycles: it would at every
    700th of the hundreds of thousands of objects that come in to stay, for a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_backend(config: Config) -> list[str]:
    """What stands against ``config.backend`` on this machine, one line a problem; empty if nothing.

    An absent device is a problem and never a reason to compute somewhere else.
    """
    assert isinstance(config.backend, TorchConfig)
    try:
        with _no_collection():
            import torch
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries does not load
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        mend = "'nnopt[torch]'" if is_absent else "--force-reinstall torch"
        return [
            f"backend.name = 'torch': PyTorch does not load ({error}); "
            f"run: pip install {mend}, or set backend=numpy"
        ]
    if isinstance(config.optimizer, ScheduleFreeConfig):
        try:
            import schedulefree  # noqa: F401
        except ImportError as error:
            return [
                f"optimizer.name = {config.optimizer.name!r}: the library schedulefree does not "
                f"load ({error}); run: pip install schedulefree"
            ]
    default_threads()  # asked for before a run limits them
    device, dtype = config.backend.device, config.backend.dtype
    available = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        count = torch.accelerator.device_count()
        available += [str(kind), *(f"{kind}:{index}" for index in range(count))]
    if device not in available:
        return [
            f"backend.device = {device!r}: PyTorch {torch.__version__} has no such device here; "
            f"available: {', '.join(available)}; set backend.device to one of them, or install the "
            "PyTorch that is made for the device"
        ]
    if device.startswith("mps") and dtype == "float64":
        return [
            "backend.dtype = 'float64': backend.device = 'mps' computes in float32 only; "
            "set backend.dtype=float32 or backend.device=cpu"
        ]
    if config.backend.compile != "off" and (lacking := _lacking_to_compile(device)):
        return [
            f"backend.compile = {config.backend.compile!r} on {device} needs {lacking}; "
            "set backend.compile=off"
        ]
    return _torchvision_problems(config)


def _torchvision_problems(config: Config) -> list[str]:
    """Is torchvision here, if it is wanted, and has it the model?"""
    architecture, policy = config.architecture, config.regularizer.augmentation.policy
    wants_model = isinstance(architecture, TorchvisionConfig)
    wanted = ["architecture.name = 'torchvision'"] if wants_model else []
    if policy != "none":
        wanted.append(f"regularizer.augmentation.policy = {policy!r}")
    if not wanted:
        return []
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: made for another PyTorch
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == "torchvision"
        mend = "'nnopt[torch]'" if is_absent else "--force-reinstall torch torchvision"
        return [
            f"{' and '.join(wanted)}: torchvision does not load ({error}); run: pip install {mend}"
        ]
    if not isinstance(architecture, TorchvisionConfig):
        return []
    from nnopt.backends.torch.vision import model_problems

    return model_problems(architecture)


def _lacking_to_compile(device: str) -> str | None:
    """What torch.compile needs here and does not find: on a CPU it writes C++, on CUDA Triton's
    kernels, whose launchers are C."""
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
    """See ``nnopt.backends.Backend``; PyTorch has to load."""
    from nnopt.backends.torch.device import DeviceErrors

    return DeviceErrors()


@cache
def default_threads() -> int:
    """Return the number of threads that PyTorch uses by itself: one for each physical core, or
    OMP_NUM_THREADS."""
    import torch

    return torch.get_num_threads()


def build_network(architecture: Architecture, config: Config) -> TorchNetwork:
    """A network without weights yet: ``load`` them. Raises ConfigError as ``check_backend``."""
    _require(config)
    with _no_collection():
        from nnopt.backends.torch.network import TorchNetwork

    return TorchNetwork(architecture, config)


def build_loader(part: Part, normalization: Normalization, config: Config) -> TorchLoader:
    """Batches of one part of a dataset. Raises ConfigError as ``check_backend``."""
    _require(config)
    from nnopt.backends.torch.loader import TorchLoader

    return TorchLoader(part, normalization, config)


def _require(config: Config) -> None:
    if problems := check_backend(config):
        raise ConfigError(problems)
