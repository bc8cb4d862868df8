"""Settings for which nnopt once printed plausible but wrong numbers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Attempt, Command

ROWS = 24


def write_data(workplace: Path, scale: float, shift: float = 0.0, features: int = 4) -> None:
    """Write ``data.csv`` with two classes.

    The features have the mean ``shift`` in class 0, the mean ``shift + scale`` in class 1, and the
    standard deviation ``scale`` in both.
    """
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % 2
    x = random.normal(size=(ROWS, features)) + labels[:, None]
    header = ",".join([*"abcdefgh"[:features], "label"])
    lines = [
        ",".join([*(f"{shift + scale * value:.6g}" for value in row), str(label)])
        for row, label in zip(x, labels, strict=True)
    ]
    (workplace / "data.csv").write_text("\n".join([header, *lines]) + "\n")


def train(
    attempt: Command, backend: str, layers: str, *overrides: str, folder: str = "out"
) -> Attempt:
    """Train these layers on ``data.csv`` without normalization, in full batches."""
    return attempt(
        *("run", "dataset=csv", "dataset.train=data.csv", "dataset.normalization=none"),
        *(f"backend={backend}", "architecture=layers", f"architecture.layers={layers}"),
        *("plots=false", "batch_size=64", f"hydra.run.dir={folder}", *overrides),
    )


def rows(workplace: Path, folder: str = "out") -> list[dict[str, str]]:
    with (workplace / folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def summary(workplace: Path, folder: str = "out") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((workplace / folder / "summary.json").read_text())
    return content


TAILS = {"sigmoid": 17.0, "silu": 17.0, "tanh": 9.5}
"""Activation -> mean of the feature. Its products with the weights reach both tails."""


@pytest.mark.parametrize("activation", TAILS)
def test_activation_tails_give_equal_updates_in_both_backends(
    attempt: Command, workplace: Path, activation: str
) -> None:
    """Adam makes a full step for any gradient other than zero, however small it is."""
    write_data(workplace, 0.5, TAILS[activation], features=1)
    layers = f"[{{dense: 64}}, {activation}, {{dense: classes}}]"
    weights = []
    for backend in ("numpy", "torch"):
        overrides = "optimizer=adam", "optimizer.lr=0.1", "optimizer.epsilon=1e-16", "epochs=3"
        train(attempt, backend, layers, *overrides, "seed=1", folder=backend).is_done()
        with np.load(workplace / backend / "model_last.npz") as file:
            weights.append(file["dense1.weight"])
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-3, atol=1e-3)


LINEAR = "[{dense: {units: classes, bias: false}}]"
FLAT_NORM = "[layer_norm, {dense: classes}]"
DENSE_NORM = "[{dense: 4}, batch_norm, {dense: classes}]"

DIVERGES = {
    "layer norm of large values": (1e20, FLAT_NORM, []),
    "batch norm of large values": (1e25, DENSE_NORM, []),
    "square of a gradient in Adam": (1e25, LINEAR, ["optimizer=adam"]),
    "square of a gradient in RMSprop": (1e25, LINEAR, ["optimizer=rmsprop"]),
    "square of a gradient in Adagrad": (1e25, LINEAR, ["optimizer=adagrad"]),
    "weights of max-norm": (1e25, LINEAR, ["optimizer=sgd", "regularizer.max_norm=1"]),
    "hinge of infinite logits": (1e38, "[{dense: 64}, {dense: classes}]", ["loss=hinge"]),
    "logits that are not finite": (1e38, "[{dense: 64}, {dense: classes}]", []),
    "clipping of an infinite gradient": (
        1e38,
        "[{dense: 64}, {dense: classes}]",
        ["regularizer.grad_clip=1"],
    ),
}


@pytest.mark.parametrize(("scale", "layers", "overrides"), DIVERGES.values(), ids=DIVERGES)
def test_run_with_overflow_diverges(
    attempt: Command, workplace: Path, backend: str, scale: float, layers: str, overrides: list[str]
) -> None:
    write_data(workplace, scale)
    fixed = ("epochs=2", "regularizer.grad_clip=0")
    train(attempt, backend, layers, *fixed, *overrides).is_refused(5, "training diverged")
    assert summary(workplace)["status"] == "diverged"


def test_message_on_overflow_in_layer_norm_contains_name_of_layer(
    attempt: Command, workplace: Path
) -> None:
    write_data(workplace, 1e20)
    result = train(attempt, "numpy", FLAT_NORM, "epochs=2")
    result.is_refused(5, "at step 1 the outputs of layer layer_norm1 and the loss are not finite")


@pytest.mark.parametrize("scale", [1e22, 1e30])
def test_run_with_clipped_large_gradient_lowers_the_loss(
    attempt: Command, workplace: Path, backend: str, scale: float
) -> None:
    write_data(workplace, scale)
    overrides = "optimizer=sgd", "optimizer.lr=0.1", "regularizer.grad_clip=1", "epochs=10"
    train(attempt, backend, LINEAR, *overrides).is_done()
    table = rows(workplace)
    assert 0.01 * scale < float(table[0]["gradient_norm"]) < 100 * scale
    assert float(table[-1]["train_loss"]) < 0.8 * float(table[0]["train_loss"])


@pytest.mark.parametrize("scale", [1e-25, 1e-36])
def test_small_gradient_norm_is_written_to_metrics_file(
    attempt: Command, workplace: Path, backend: str, scale: float
) -> None:
    write_data(workplace, scale)
    train(attempt, backend, LINEAR, "epochs=1", "regularizer.grad_clip=1").is_done()
    norm = float(rows(workplace)[0]["gradient_norm"])
    assert 0.01 * scale < norm < 100 * scale


ONE_NUMBER = {
    "layer norm of one feature": ("[{dense: 1}, layer_norm, {dense: classes}]", "layer_norm1"),
    "layer norm of one feature in a branch": (
        "[{dense: 1}, {residual: [layer_norm]}, {dense: classes}]",
        "residual1.layer_norm1",
    ),
    "group norm of flat samples": ("[{group_norm: 2}, {dense: classes}]", "group_norm1"),
}


@pytest.mark.parametrize(("layers", "name"), ONE_NUMBER.values(), ids=ONE_NUMBER)
def test_run_with_norm_layer_over_one_number_is_refused(
    attempt: Command, workplace: Path, backend: str, layers: str, name: str
) -> None:
    write_data(workplace, 1)
    train(attempt, backend, layers).is_refused(2, f"layer {name}: ")
    assert not (workplace / "out").exists()


def test_run_of_mlp_with_norm_layer_over_one_unit_is_refused(
    attempt: Command, backend: str
) -> None:
    overrides = f"backend={backend}", "architecture.hidden=[1]", "regularizer.norm=layer"
    attempt("run", *overrides).is_refused(2, "layer layer_norm1: its input of 1 has one number")


def test_run_with_hinge_loss_has_finite_test_loss(
    attempt: Command, workplace: Path, backend: str
) -> None:
    write_data(workplace, 1)
    train(attempt, backend, LINEAR, "loss=hinge", "epochs=3").is_done()
    assert math.isfinite(summary(workplace)["test_loss"])
