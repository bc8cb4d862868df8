"""The table of layers that ``describe`` prints for convolutional networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_describe_command_indents_shortcut_like_branch(nnopt: Run, capsys: Captured) -> None:
    overrides = ("architecture=resnet", "regularizer.norm=batch", "architecture.width=4")
    assert nnopt("describe", "dataset=mnist", *overrides) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["residual4"] == ["8x14x14", "0", f"{14 * 14 * (2 * 8 * (4 * 10 + 72) + 14 * 8):,}"]
    assert rows["residual4.conv2d2"] == ["8x14x14", "576", f"{2 * 576 * 196:,}"]
    assert rows["residual4.shortcut.conv2d1"] == ["8x14x14", "32", f"{2 * 32 * 196:,}"]
    indents = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines}
    assert indents["residual4.shortcut.conv2d1"] == indents["residual4.conv2d1"] == 2
    assert indents["residual4"] == 0


def test_describe_command_shows_rates_of_stochastic_depth(nnopt: Run, capsys: Captured) -> None:
    """Residual layer k of n is skipped with probability 0.5 · k/n (Huang et al. 2016)."""
    overrides = ("dataset=mnist", "architecture=resnet", "architecture.depth=18")
    assert nnopt("describe", *overrides, "regularizer.stochastic_depth=0.5") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    found = [line.split("  ")[0] for line in lines if "skipped" in line]
    rates = ("0.0625", "0.125", "0.188", "0.25", "0.312", "0.375", "0.438", "0.5")
    assert found == [f"residual{i}, skipped {rate}" for i, rate in enumerate(rates, start=1)]
    assert nnopt("describe", *overrides) == 0
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["three_layer_conv", "vgg", "resnet"])
def test_describe_command_with_flat_samples_is_refused_at_first_layer(
    nnopt: Run, capsys: Captured, name: str
) -> None:
    assert nnopt("describe", "dataset=spiral", f"architecture={name}") == 2
    message = capsys.readouterr().err
    assert "layer conv2d1: needs images (C, H, W), but its input is flat (2 numbers);" in message


def test_describe_command_with_conv_algorithm_for_torch_is_refused(
    nnopt: Run, capsys: Captured
) -> None:
    assert nnopt("describe", "backend=torch", "backend.conv_algorithm=naive") == 2
    assert "unknown key 'backend.conv_algorithm'" in capsys.readouterr().err
    assert nnopt("describe", "backend.conv_algorithm=naive") == 0


def test_describe_command_without_data_refuses_too_large_cutout_and_max_steps(
    nnopt: Run, capsys: Captured
) -> None:
    overrides = ("dataset=mnist", "regularizer.augmentation.cutout=29", "max_steps=1000000")
    assert nnopt("describe", *overrides, "epochs=60") == 2
    message = capsys.readouterr().err
    assert "regularizer.augmentation.cutout = 29 is larger than the images of mnist" in message
    assert "max_steps = 1000000 is more than the" in message


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_json_output_of_describe_command_agrees_with_the_table(
    nnopt: Run, capsys: Captured, name: str
) -> None:
    overrides = ("dataset=mnist", f"architecture={name}", "regularizer.norm=batch")
    assert nnopt("describe", *overrides) == 0
    _, first, *rows, total = capsys.readouterr().out.splitlines()
    assert nnopt("describe", *overrides, "--format", "json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert list(found) == [
        *("input_shape", "layers", "other_parameter_shapes", "parameters", "flops_per_sample"),
    ]
    assert first.split() == ["input", "x".join(map(str, found["input_shape"]))]
    assert total.split() == ["total", f"{found['parameters']:,}", f"{found['flops_per_sample']:,}"]
    for row, layer in zip(rows, found["layers"], strict=True):
        shape = "x".join(map(str, layer["output_shape"]))
        counts = [f"{layer['parameters']:,}", f"{layer['flops']:,}"]
        assert row.split() == [layer["name"], shape, *counts]
        sizes = [math.prod(shape) for shape in layer["parameter_shapes"].values()]
        assert sum(sizes) == layer["parameters"]
        assert layer["skip_probability"] == 0
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]


def test_describe_command_refuses_unknown_format(nnopt: Run, capsys: Captured) -> None:
    assert nnopt("describe", "--format", "csv") == 2
    assert "argument --format: invalid choice: 'csv'" in capsys.readouterr().err
