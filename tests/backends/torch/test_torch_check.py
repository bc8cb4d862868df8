"""The check of configuration and machine by the PyTorch backend, and the import of PyTorch."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nnopt.architecture.layers import Dense
from nnopt.architecture.network import infer_shapes
from nnopt.backends import torch as pytorch
from nnopt.backends.torch import build_loader, build_network, check_backend
from nnopt.config.rules import cross_field_problems
from nnopt.data.dataset import Normalization, Part
from nnopt.errors import ConfigError
from nnopt.schema import Config

MakeConfig = Callable[..., Config]


def test_backend_check_for_cpu_finds_no_problems(make_config: MakeConfig) -> None:
    assert check_backend(make_config(backend="torch")) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "cdua", "gpu", ""])
def test_backend_check_refuses_absent_device(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    config = make_config(backend="torch", **{"backend.device": device})
    (problem,) = check_backend(config)
    assert problem.startswith(f"backend.device = {device!r}: ")
    assert "available: cpu; set backend.device" in problem
    with pytest.raises(ConfigError, match=r"backend\.device"):
        build_network(infer_shapes([Dense("classes")], (2,), 2), config)
    part = Part(np.zeros((1, 2), np.float32), np.zeros(1, np.int64), np.arange(1))
    with pytest.raises(ConfigError, match=r"backend\.device"):
        build_loader(part, Normalization(np.ones(2), np.zeros(2)), config)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_error_about_absent_device_contains_the_available_devices(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for device in ("cpu", kind, f"{kind}:1"):
        assert check_backend(make_config(backend="torch", **{"backend.device": device})) == []
    config = make_config(backend="torch", **{"backend.device": f"{kind}:2"})
    (problem,) = check_backend(config)
    assert f"available: cpu, {kind}, {kind}:0, {kind}:1; " in problem


def test_backend_check_refuses_float64_on_mps(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    changes = {"backend.device": "mps", "backend.dtype": "float64"}
    (problem,) = check_backend(make_config(backend="torch", **changes))
    assert "backend.dtype" in problem
    assert "backend.device" in problem


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "'nnopt[torch]'"),
        (OSError("libtorch_cpu.so: not found"), "--force-reinstall torch"),
        (ModuleNotFoundError("No module named 'sympy'", name="sympy"), "--force-reinstall torch"),
    ],
)
def test_backend_check_reports_missing_or_broken_torch(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, error: Exception, mend: str
) -> None:
    real_import = importlib.import_module

    def broken_import(name: str) -> Any:
        if name == "torch":
            raise error
        return real_import(name)

    monkeypatch.setattr(importlib, "import_module", broken_import)
    (problem,) = check_backend(make_config(backend="torch"))
    assert str(error) in problem
    assert f"; run: pip install {mend}, or" in problem
    with pytest.raises(ConfigError, match="pip install"):
        build_network(infer_shapes([Dense("classes")], (2,), 2), make_config(backend="torch"))


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_backend_check_reports_missing_schedulefree(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = make_config(backend="torch", optimizer=name)
    assert check_backend(config) == []
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    (problem,) = check_backend(config)
    assert problem.startswith(f"optimizer.name = '{name}': the library schedulefree does not load")
    assert problem.endswith("run: pip install schedulefree")
    assert check_backend(make_config(backend="torch")) == []


def test_backend_check_reports_absent_device_and_all_missing_libraries(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    config = make_config(
        backend="torch",
        optimizer="schedule_free_sgd",
        **{
            "backend.device": "mps",
            "backend.dtype": "float64",
            "regularizer.augmentation.policy": "rand_augment",
        },
    )
    optimizer, device, dtype, policy = check_backend(config)
    assert optimizer.startswith("optimizer.name = 'schedule_free_sgd': ")
    assert device.startswith("backend.device = 'mps': ")
    assert dtype.startswith("backend.dtype = 'float64': ")
    assert policy.startswith("regularizer.augmentation.policy = 'rand_augment': torchvision")
    with pytest.raises(ConfigError) as raised:
        build_network(infer_shapes([Dense("classes")], (2,), 2), config)
    assert [str(raised.value).count(problem) for problem in (optimizer, dtype)] == [1, 1]


def test_loading_a_backend_does_not_import_torch() -> None:
    code = (
        "import sys; from nnopt.backends import load_backend; load_backend('torch');"
        "load_backend('numpy'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_failed_import_of_torch_restores_garbage_collection() -> None:
    for was_enabled in (True, False):
        (gc.enable if was_enabled else gc.disable)()
        try:
            with pytest.raises(ImportError, match=r"^False$"), pytorch._no_garbage_collection():
                raise ImportError(str(gc.isenabled()))
            assert gc.isenabled() is was_enabled
        finally:
            gc.enable()


@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_max_autotune_with_deterministic_is_refused(
    make_config: MakeConfig, precision: str
) -> None:
    overrides = {"backend.precision": precision, "backend.compile": "max-autotune"}
    assert cross_field_problems(make_config(backend="torch", **overrides)) == []
    overrides["backend.deterministic"] = True  # type: ignore[assignment]
    (problem,) = cross_field_problems(make_config(backend="torch", **overrides))
    assert "backend.deterministic = true: backend.compile = 'max-autotune'" in problem
