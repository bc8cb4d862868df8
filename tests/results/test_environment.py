"""The recorded environment of a run: versions, commit, machine and memory."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnopt
from nnopt.results import environment


def test_versions_equal_the_versions_of_the_installed_packages() -> None:
    found = environment.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["nnopt"] == nnopt.__version__
    assert found["hydra-core"].startswith("1.")


def test_versions_contain_torch_only_if_imported() -> None:
    program = (
        "import sys; from nnopt.results.environment import *\n"
        "found = versions(); git_state(); machine(); peak_memory_mb(); threads()\n"
        "assert 'torch' not in found and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    torch = pytest.importorskip("torch")
    assert environment.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a new Git repository with one commit, and return it. nnopt is installed elsewhere."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    monkeypatch.setattr(nnopt, "__file__", str(tmp_path / "site-packages/nnopt/__init__.py"))
    monkeypatch.chdir(folder)
    return folder


def test_git_state_contains_commit_and_changes(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert environment.git_state() == {"commit": commit, "dirty": False}
    (repository / "outputs").mkdir()
    (repository / "outputs" / "new.txt").write_text("untracked files are no change of the code")
    assert environment.git_state() == {"commit": commit, "dirty": False}
    (repository / "a.txt").write_text("2")
    assert environment.git_state() == {"commit": commit, "dirty": True}


def test_git_state_describes_the_repository_of_the_code(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert environment.git_state() is None
    monkeypatch.setattr(nnopt, "__file__", str(repository / "nnopt" / "__init__.py"))
    state = environment.git_state()
    assert state is not None
    assert state["commit"] == git(repository, "rev-parse", "HEAD")


def test_git_state_ignores_the_environment_of_a_hook(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    assert environment.git_state() is not None


def test_git_state_without_commit_or_git_is_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = repository / "fresh"
    fresh.mkdir()
    git(fresh, "init", "-q")
    monkeypatch.chdir(fresh)
    assert environment.git_state() is None
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PATH", "")
    assert environment.git_state() is None


def test_machine_is_described_but_not_named() -> None:
    described = environment.machine()
    assert set(described) == {"cpu", "logical_cores", "usable_cores", "platform", "memory_mb"}
    cores, memory = described["usable_cores"], described["memory_mb"]
    assert isinstance(cores, int)
    assert cores >= 1
    assert isinstance(memory, int)
    assert memory > 100
    text = json.dumps(described)
    assert platform.node() not in text
    user = getpass.getuser()
    assert len(user) < 5 or user not in text


def test_peak_memory_includes_a_large_array() -> None:
    """The array is in a new process, because pytest's process may have had a higher peak before."""
    program = (
        "import numpy as np; from nnopt.results.environment import peak_memory_mb\n"
        "before = peak_memory_mb(); np.ones(100 * 2**17); print(peak_memory_mb() - before)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert 90 < float(answer.stdout) < 120


def test_peak_memory_excludes_the_parent() -> None:
    """getrusage would report the peak memory of the larger parent, even after exec."""
    program = (
        "import numpy as np, subprocess, sys\n"
        "big = np.ones(300 * 2**17)\n"
        "child = 'from nnopt.results.environment import peak_memory_mb; print(peak_memory_mb())'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert float(answer.stdout) < 200


def test_number_of_blas_threads_is_the_current_number() -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        found = environment.threads()
    assert set(found) - {"torch"} == {"library", "version", "blas"}
    assert found["blas"] == 1


def test_cuda_accelerator_has_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=150 * 2**30)
    cuda = SimpleNamespace(
        get_device_properties={"cuda:1": properties}.get,
        max_memory_allocated={"cuda:1": 3 * 2**20}.get,
    )
    fake = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert environment.accelerator("cuda:1") == {
        "device": "cuda:1",
        "name": "NVIDIA H200",
        "memory_mb": 150 * 1024,
        "cuda": "13.0",
    }
    assert environment.peak_device_memory_mb("cuda:1") == 3
    assert environment.accelerator("mps") == {"device": "mps"}
    for device in ("cpu", "mps"):
        assert environment.peak_device_memory_mb(device) is None
    assert environment.accelerator("cpu") is None

    def fail(device: str) -> int:
        raise RuntimeError("CUDA error: unspecified launch failure")

    cuda.max_memory_allocated = fail
    assert environment.peak_device_memory_mb("cuda:1") is None
