"""The environment of a run: versions, commit, machine and threads.

Host and user names are excluded, so that results can be published.
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
    """Return versions by package; PyTorch and its libraries are included only if imported."""
    imported = [x for x in ("torch", "torchvision", "schedulefree") if x in sys.modules]
    return {
        "python": platform.python_version(),
        "nnopt": nnopt.__version__,
        "numpy": np.__version__,
        **{name: _version(name) for name in ("hydra-core", *imported)},
    }


@cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def git_state() -> dict[str, str | bool] | None:
    """Return the commit and whether tracked files differ from it; None if Git finds none.

    The repository is that of nnopt if nnopt runs from a checkout, else that of the current folder.
    """
    checkout = Path(nnopt.__file__).resolve().parents[1]
    folder = checkout if (checkout / ".git").exists() else Path.cwd()
    # A git hook sets these variables, which take precedence over -C.
    inherited = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    # Git must not lock its index, because several runs may call Git at the same time.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        output = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    lines = output.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    if not commit or commit == "(initial)":
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def now() -> str:
    """Return the time in UTC in ISO 8601 format, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


code_state = cache(git_state)
"""Return the ``git_state()`` of the first call, because the loaded code does not change later."""


def machine() -> dict[str, str | int | None]:
    """Return the processor, its logical and usable cores, the operating system and the memory."""
    return {
        "cpu": _proc_value("cpuinfo", "model name") or platform.processor() or platform.machine(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "platform": platform.platform(),
        "memory_mb": _memory_mb(),
    }


def accelerator(device: str) -> dict[str, str | int] | None:
    """Return the device, and for CUDA its name, memory and CUDA version; None for the CPU."""
    if not device.startswith("cuda"):
        return None if device == "cpu" else {"device": device}
    torch = sys.modules["torch"]
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": device,
        "name": properties.name,
        "memory_mb": properties.total_memory // MIB,
        "cuda": torch.version.cuda,
    }


def peak_device_memory_mb(device: str) -> float | None:
    """Return the peak memory of arrays on a CUDA device in MiB, or None for other devices."""
    with suppress(RuntimeError):  # the device may have failed
        if device.startswith("cuda"):
            peak: int = sys.modules["torch"].cuda.max_memory_allocated(device)
            return peak / MIB
    return None


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process in MiB (2**20 bytes)."""
    # On Linux, getrusage also counts the program that this process ran before exec. VmHWM counts
    # only the current program.
    if peak := _proc_value("self/status", "VmHWM"):
        return int(peak.split()[0]) / 1024
    with suppress(ImportError):
        import resource  # not available on Windows

        maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return maximum / (MIB if sys.platform == "darwin" else 1024)  # bytes on macOS, else KiB
    return None


def threads() -> dict[str, Any]:
    """Return the numbers of threads, which can change the last bits of results.

    ``library``, ``version`` and ``blas`` are the name, the version and the number of threads of
    NumPy's matrix library, or None if unknown. ``torch`` is the number of PyTorch's threads.
    """
    libraries = thread_pools().select(user_api="blas").info()
    # NumPy's matrix library comes first. PyTorch may contain another.
    libraries.sort(key=lambda library: "numpy" not in library["filepath"])
    first = libraries[0] if libraries else {}
    names = {"library": "internal_api", "version": "version", "blas": "num_threads"}
    found = {name: first.get(key) for name, key in names.items()}
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].get_num_threads()
    return found


def _proc_value(file: str, name: str) -> str | None:
    """Return the first value of the field ``name`` of a file below ``/proc``; None if unknown."""
    with suppress(OSError), open(f"/proc/{file}", encoding="utf-8", errors="replace") as lines:
        pairs = (line.partition(":") for line in lines)
        return next((value.strip() for key, _, value in pairs if key.strip() == name), None)
    return None


def _memory_mb() -> int | None:
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    return None
