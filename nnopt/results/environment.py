"""What a result depends on besides its configuration: versions, commit, machine, threads.

Nothing here names the host or its user, so that results can be published as they are.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import nnopt
from nnopt.results.cores import thread_pools, usable_cores

MIB = 2**20


def versions() -> dict[str, str]:
    """Name -> version. PyTorch's and its like only if they took part: this imports none."""
    found = {
        "python": platform.python_version(),
        "nnopt": nnopt.__version__,
        "numpy": np.__version__,
        "hydra-core": _version("hydra-core"),
    }
    for name in ("torch", "torchvision", "schedulefree"):
        if name in sys.modules:
            found[name] = _version(name)
    return found


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def git_state() -> dict[str, str | bool] | None:
    """The commit and whether tracked files differ from it ("dirty"); None outside a repository.

    The repository is nnopt's own when it runs from a checkout, else the current folder's: the
    project that uses nnopt.
    """
    checkout = Path(nnopt.__file__).resolve().parents[1]
    folder = checkout if (checkout / ".git").exists() else Path.cwd()
    # Inside a git hook these point at the repository being committed to, whatever -C says.
    inherited = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    # One call tells both. It takes no lock on the index, for many runs may ask at once.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    lines = answer.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    if not commit or commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def code_state() -> dict[str, str | bool] | None:
    """``git_state`` when this process first asked, which is when its code was loaded: a sweep does
    not ask again for every point."""
    return git_state()


def machine() -> dict[str, str | int | None]:
    """Processor, logical cores (of the machine, and those this process may use), system, memory."""
    return {
        "cpu": _cpu_model(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "platform": platform.platform(),
        "memory_mb": _memory_mb(),
    }


def accelerator(device: str) -> dict[str, str | int] | None:
    """What PyTorch computed on, if not the processor: device, and of CUDA's the name of the model,
    memory and version of CUDA."""
    if device == "cpu":
        return None
    found: dict[str, str | int] = {"device": device}
    if device.startswith("cuda"):
        torch = sys.modules["torch"]
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory_mb": properties.total_memory // MIB}
        found["cuda"] = torch.version.cuda
    return found


def peak_device_memory_mb(device: str) -> float | None:
    """The most memory of a CUDA device that arrays held since the network was made, in MiB."""
    with suppress(RuntimeError):  # of a device that has failed
        if device.startswith("cuda"):
            peak: int = sys.modules["torch"].cuda.max_memory_allocated(device)
            return peak / MIB
    return None


def peak_memory_mb() -> float | None:
    """The most resident memory this process held so far, in MiB (2**20 bytes)."""
    # getrusage's figure on Linux outlives exec: it may be that of the larger program which started
    # this one. The kernel's high-water mark of this very address space is the right number.
    with suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    with suppress(ImportError):
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere
    return None


def threads() -> dict[str, Any]:
    """Return the threads in use. The bits of a result depend on their number.

    NumPy's matrix library has its name, version and threads, None if threadpoolctl sees none.
    PyTorch has its threads if it took part.
    """
    libraries = thread_pools().select(user_api="blas").info()
    libraries.sort(key=lambda library: "numpy" not in library["filepath"])  # torch may bring one
    found: dict[str, Any] = {"library": None, "version": None, "blas": None}
    if libraries:
        first = libraries[0]
        found = {"library": first["internal_api"], "version": first["version"]}
        found["blas"] = first["num_threads"]
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found


def _cpu_model() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    return None
