"""Whitening: outputs of the first layer with mean 0, variance at most 1 and no correlation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nnopt import schema
from nnopt.architecture import whitening
from nnopt.architecture.initializers import initial_arrays
from nnopt.architecture.network import Architecture, infer_shapes
from nnopt.architecture.parse import parse_layers
from nnopt.architecture.whitening import patch_statistics, whitening_filters, whitening_problems
from nnopt.backends.numpy.network import NumpyNetwork
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.errors import DataError
from nnopt.schema import Config

SHAPE = (3, 9, 8)
WHITENING = schema.InitializerConfig("he_normal", "lecun_normal", "whitening", 1.0, 1.0, 0.0, 1.0)


def photographs(count: int = 40) -> Dataset:
    """Return a dataset whose training images vary smoothly, like photographs.

    They are the images with even indices. The images with odd indices are noise.
    """
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((2 * count, *SHAPE)), axis=2), axis=3)
    mixed = np.einsum("dc,nchw->ndhw", rng.standard_normal((3, 3)) + 2, smooth)
    inputs = np.clip(128 + 5 * mixed, 0, 255).astype(np.uint8)
    inputs[1::2] = 255 * rng.integers(0, 2, inputs[1::2].shape)
    part = Part(inputs, np.zeros(2 * count, np.int64), np.arange(0, 2 * count, 2))
    scale = Normalization(np.array([0.02, 0.01, 0.03]), np.array([-2.0, 0.5, 0.0]))
    return Dataset("made", ("a", "b"), part, None, part, scale, {})


def network(conv: dict[str, Any], *rest: Any) -> Architecture:
    return infer_shapes(parse_layers([{"conv2d": conv}, *rest, "flatten", {"dense": 2}]), SHAPE, 2)


def scaling_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return dataset.normalization.scale, dataset.normalization.shift


def outputs(make_config: Callable[..., Config], conv: dict[str, Any]) -> np.ndarray:
    """Compute the outputs of the first layer for all training images with the NumPy backend.

    The axes of the result are (channels, images · positions).
    """
    dataset, architecture = photographs(), network(conv)
    net = NumpyNetwork(architecture, make_config(**{"backend.dtype": "float64"}))
    net.load(initial_arrays(architecture, WHITENING, 0, dataset))
    scale, shift = (x[:, None, None] for x in scaling_of(dataset))
    y = net.layer_outputs(dataset.train.inputs[dataset.train.rows] * scale + shift)["conv2d1"]
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)


@pytest.mark.parametrize("kernel", [2, 3])
def test_whitening_outputs_are_uncorrelated_with_mean_zero_and_damped_variances(
    make_config: Callable[..., Config], kernel: int
) -> None:
    entries = 3 * kernel**2
    y = outputs(make_config, {"channels": entries, "kernel": kernel, "padding": 0})
    assert_allclose(y.mean(axis=1), 0, atol=1e-9)
    covariance = np.cov(y, bias=True)
    patches = [
        (image * 1.0)[:, i : i + kernel, j : j + kernel].ravel()
        for image in normalized(photographs())
        for i in range(SHAPE[1] - kernel + 1)
        for j in range(SHAPE[2] - kernel + 1)
    ]
    variances = np.linalg.eigvalsh(np.cov(np.array(patches).T, bias=True))[::-1]
    assert variances[0] > 1000 * variances[-1]  # the pixels of a patch are correlated
    damped = variances / (variances + 5e-4 * variances.mean())
    assert_allclose(covariance, np.diag(damped), atol=1e-9)
    assert_allclose(covariance[:4, :4], np.eye(4), atol=0.05)


def normalized(dataset: Dataset) -> np.ndarray:
    scale, shift = (x[:, None, None] for x in scaling_of(dataset))
    images: np.ndarray = dataset.train.inputs[dataset.train.rows] * scale + shift
    return images


def test_second_half_of_whitened_channels_has_the_opposite_sign(
    make_config: Callable[..., Config],
) -> None:
    conv = {"kernel": 2, "padding": 0}
    all24, some15, few5 = (outputs(make_config, {"channels": n, **conv}) for n in (24, 15, 5))
    assert_allclose(all24[12:], -all24[:12], atol=1e-12)
    assert_allclose(some15, all24[:15], atol=1e-12)
    assert_allclose(few5, all24[:5], atol=1e-12)


def test_whitening_without_bias_does_not_remove_mean(make_config: Callable[..., Config]) -> None:
    conv = {"channels": 12, "kernel": 2, "padding": 0}
    with_bias, without = (outputs(make_config, {**conv, "bias": b}) for b in (True, False))
    assert abs(without.mean(axis=1)).max() > 0.1
    assert_allclose(without - without.mean(axis=1)[:, None], with_bias, atol=1e-9)


def test_whitening_filters_of_two_pixels_equal_hand_calculation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two pixels are ``a + b`` and ``a - b``, and the outputs are ``a / 3`` and ``± b / 2``.

    In the data, ``a`` has the variance 3², and ``b`` has the variance 2².
    """
    monkeypatch.setattr(whitening, "EPSILON", 0)
    filters = whitening_filters(np.array([[13.0, 5.0], [5.0, 13.0]]), 2)
    a, b = 0.7, -1.9
    y = filters @ np.array([a + b, a - b])
    assert y[0] == pytest.approx(a / 3)
    assert abs(y[1]) == pytest.approx(1.9 / 2)


def test_whitening_filters_scale_inversely_with_the_inputs() -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T
    filters = whitening_filters(covariance, 6)
    assert_allclose(whitening_filters(1e4 * covariance, 6), filters / 100, rtol=1e-9)
    peaks = np.take_along_axis(filters, abs(filters).argmax(axis=1)[:, None], axis=1)
    assert (peaks > 0).all()


def test_whitening_filters_of_zero_variance_are_finite() -> None:
    filters = whitening_filters(np.diag([2.0, 0.0]), 2)
    assert_allclose(filters, np.diag([1 / np.sqrt(2 + 5e-4), 1 / np.sqrt(5e-4)]))


def test_patch_statistics_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = photographs()
    mean, covariance = patch_statistics(dataset, 3)
    monkeypatch.setattr(whitening, "CHUNK_ELEMENTS", 1)
    again = patch_statistics(dataset, 3)
    assert_allclose(again[0], mean, rtol=1e-12)
    assert_allclose(again[1], covariance, rtol=1e-9)


def test_patch_statistics_of_many_images_use_evenly_spaced_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = photographs()
    monkeypatch.setattr(whitening, "MAX_PATCHES", 10 * 7 * 6)
    found = patch_statistics(dataset, 3)
    tenth = replace(dataset, train=replace(dataset.train, rows=dataset.train.rows[::4]))
    for one, other in zip(found, patch_statistics(tenth, 3), strict=True):
        assert_array_equal(one, other)


def test_whitening_does_not_change_other_layers() -> None:
    architecture = network({"channels": 8}, {"conv2d": 4})
    plain = schema.InitializerConfig("he_normal", "lecun_normal", None, 1.0, 1.0, 0.0, 1.0)
    before = initial_arrays(architecture, plain, 0)
    after = initial_arrays(architecture, WHITENING, 0, photographs())
    assert {name for name in after if (after[name] != before[name]).any()} == {
        "conv2d1.weight",
        "conv2d1.bias",
    }


def test_scale_does_not_change_the_weights_of_whitening() -> None:
    architecture = network({"channels": 8}, {"conv2d": 4})
    scaled = replace(WHITENING, scale=3.0)
    plain, found = (initial_arrays(architecture, x, 0, photographs()) for x in (WHITENING, scaled))
    for name, array in plain.items():
        factor = 3 if name in ("conv2d2.weight", "dense1.weight") else 1
        assert_array_equal(found[name], factor * array, err_msg=name)


@pytest.mark.parametrize(
    ("layers", "samples", "expected_parts"),
    [
        (["batch_norm", {"conv2d": 4}], 40, ["batch_norm1", "first layer"]),
        ([{"conv2d": {"channels": 3, "groups": 3}}], 40, ["with groups"]),
        ([{"conv2d": {"channels": 25, "kernel": 2, "padding": 1}}], 40, ["24", "25 channels"]),
        ([{"conv2d": {"channels": 4, "kernel": 7}}], 24, ["more than 147", "have 144"]),
        ([{"conv2d": {"channels": 4, "kernel": 9}}], None, ["more than 243", "have 0"]),
    ],
)
def test_whitening_of_unsuitable_network_is_refused(
    layers: list[Any], samples: int | None, expected_parts: list[str]
) -> None:
    architecture = infer_shapes(parse_layers([*layers, "flatten", {"dense": 2}]), SHAPE, 2)
    (problem,) = whitening_problems(architecture, samples)
    assert all(word in problem for word in ("initializer.input", *expected_parts)), problem


def test_whitening_of_suitable_network_has_no_problems() -> None:
    assert not whitening_problems(network({"channels": 54}), 1)
    assert not whitening_problems(network({"channels": 24, "kernel": 2, "padding": 0}), None)


@pytest.mark.parametrize("colour", [0, 7, 255])
def test_whitening_of_images_of_one_colour_is_refused(colour: int) -> None:
    dataset = photographs()
    dataset.train.inputs[::2] = colour
    with pytest.raises(DataError, match="nothing to whiten"):
        initial_arrays(network({"channels": 4}), WHITENING, 0, dataset)


def test_gradcheck_lr_find_and_run_support_whitening(
    workplace: Path, nnopt: Callable[..., int]
) -> None:
    """With a learning rate of 0, the saved weights are the initial weights."""
    rng = np.random.default_rng(0)
    header = ",".join(["label", *(f"pixel{i}" for i in range(25))])
    rows = [",".join(map(str, [k % 2, *rng.integers(0, 256, 25)])) for k in range(40)]
    Path("images.csv").write_text("\n".join([header, *rows]) + "\n", "utf-8")
    overrides = ["dataset=csv", "dataset.train=images.csv", "architecture=three_layer_conv"]
    overrides += ["architecture.kernel=3", "architecture.channels=9", "initializer.input=whitening"]
    overrides += ["architecture.hidden=2", "plots=false"]
    assert nnopt("gradcheck", *overrides) == 0
    assert nnopt("lr-find", *overrides, "lr_find.steps=20") in (0, 5)  # exit code 5: no suggestion
    assert nnopt("run", *overrides, "optimizer.lr=0", "epochs=1", "hydra.run.dir=out") == 0
    with np.load("out/model_last.npz") as arrays:
        weight = arrays["conv2d1.weight"].reshape(9, 9).astype(float)
    products = weight @ weight.T  # diagonal, because eigenvectors are orthogonal
    assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-6)
    # The default architecture has no convolution.
    assert nnopt("run", *overrides[:2], "initializer.input=whitening") == 2
