"""benchmarks/gpu_recipes.py: the evaluation of results, and the message without a GPU."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnopt.config.compose import make_plan

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_recipes")


def write_point(
    folder: Path, accuracy: float, seconds: list[float], seed: int = 0, validated: int = 0
) -> None:
    """Write a point of 100 steps of 10 samples. A forward pass of a sample takes 2·10¹² FLOPs."""
    folder.mkdir(parents=True)
    summary: dict[str, Any] = {"test_accuracy": accuracy, "train_seconds": sum(seconds)}
    summary |= {"flops_per_sample": 2 * 10**12, "steps": 100, "config": {"batch_size": 10}}
    summary |= {
        "seed": seed,
        "epochs": len(seconds),
        "data": {"samples": {"validation": validated}},
    }
    (folder / "summary.json").write_text(json.dumps(summary), "utf-8")
    rows = "".join(f"{epoch},{s}\n" for epoch, s in enumerate(seconds, start=1))
    (folder / "metrics.csv").write_text(f"epoch,seconds\n{rows}", "utf-8")


def test_result_row_equals_hand_computation(script: ModuleType, tmp_path: Path) -> None:
    """Training on 1,000 samples takes 1,000 · 3 · 2 TFLOP = 6,000 TFLOP.

    The factor 3 counts a forward pass, and a backward pass that costs twice as much. The two runs
    take 60 and 40 s at the speed of the later epochs, so they have 100 and 150 TFLOP/s. The average
    is half of the peak of 250 TFLOP/s.
    """
    write_point(tmp_path / "a", 0.93, [30, 15, 15, 15], seed=1)
    write_point(tmp_path / "b", 0.95, [30, 10, 11, 9])
    row, reached = script.measure("cifar10_fast", tmp_path, 250.0)
    assert reached
    assert " ".join(row.split()) == ("cifar10_fast 2 94.00 ± 1.41 60.0 50.00 ± 14.14 50.0")
    assert script.measure("cifar10_fast", tmp_path, None)[0].endswith(" ?")


def test_flops_include_forward_passes_of_validation(script: ModuleType, tmp_path: Path) -> None:
    """Validation on 750 samples in 4 epochs adds 6,000 TFLOP to the 6,000 TFLOP of training.

    At the speed of the later epochs, the run takes 40 s. It thus has 300 TFLOP/s, half of the peak.
    """
    write_point(tmp_path / "a", 0.95, [30, 10, 11, 9], validated=750)
    assert script.measure("cifar10_fast", tmp_path, 600.0)[0].endswith(" 50.0")


def test_mean_accuracy_below_bound_is_reported(script: ModuleType, tmp_path: Path) -> None:
    write_point(tmp_path / "a", 0.95, [1, 1])
    write_point(tmp_path / "b", 0.9298, [1, 1], seed=1)
    row, reached = script.measure("cifar10_fast", tmp_path, 250.0)
    assert not reached
    assert "MISSED: at least 94 %" in row
    assert script.measure("cifar10_resnet18", tmp_path, 250.0)[1]


def test_peak_flops_depend_on_exact_name_of_device(script: ModuleType) -> None:
    names = ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3", "NVIDIA L40S", "NVIDIA L4", "Voodoo 2")
    assert [script.peak_of(name) for name in names] == [756.0, 989.4, 362.0, 121.0, None]
    others = ("NVIDIA H200", "NVIDIA H200 NVL", "NVIDIA L40", "NVIDIA GB200", "NVIDIA B200")
    assert [script.peak_of(name) for name in others] == [989.4, 835.0, None, None, 2250.0]


def test_recipes_are_composed_with_settings_of_script(script: ModuleType) -> None:
    assert set(script.MIN_ACCURACY) <= set(script.SEEDS)
    for name in script.SEEDS:
        (point,) = make_plan([f"experiment={name}", *script.SETTINGS]).points
        assert point.config.drop_last  # the script counts only full batches
        text = (BENCHMARKS.parent / "conf" / "experiment" / f"{name}.yaml").read_text("utf-8")
        assert f"gpu_recipes.py --only {name}" in text
        assert " ".join(script.SETTINGS) in text


def test_script_without_gpu_prints_reason(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu_recipes.py"])
    assert script.main() == 2
    assert capsys.readouterr().out.count("\n") == 1
