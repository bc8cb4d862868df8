"""Whitening: initial filters of the first convolution, computed from the training images."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nnopt.architecture.inference import InferredLayer, format_shape
from nnopt.architecture.layers import Conv2d
from nnopt.architecture.network import Architecture
from nnopt.data.dataset import Dataset
from nnopt.errors import DataError

Floats = NDArray[np.float64]

MAX_PATCHES = 5_000_000
"""Approximate maximum number of patches in the statistics, as in 5,000 images of 32x32 pixels."""

EPSILON = 5e-4
"""Fraction of the mean variance to add to each variance, so that noise is not amplified."""

CHUNK_ELEMENTS = 2**21
"""Number of elements (pixel values in patches) that are copied at a time."""


def whitening_problems(architecture: Architecture, samples: int | None) -> list[str]:
    """Return the reasons why ``initializer.input = 'whitening'`` is impossible, one line each.

    ``samples`` is the number of training samples, None if it is unknown until the data are loaded.
    """
    first = architecture.layers[0]
    if not isinstance(first.record, Conv2d) or first.record.groups > 1:
        found = "conv2d with groups" if isinstance(first.record, Conv2d) else first.name
        return [
            "initializer.input = 'whitening' needs a conv2d layer without groups as the first layer"
            f", got {found}; set initializer.input=null"
        ]
    problems = []
    channels, window = first.output_shape[0], _window(first)
    entries = math.prod(window)
    if channels > 2 * entries:
        problems.append(
            f"initializer.input = 'whitening' gives at most {2 * entries} filters of "
            f"{format_shape(window)} pixels, two for each pixel, but {first.name} has {channels} "
            f"channels; set at most {2 * entries}, or initializer.input=null"
        )
    height, width = (max(side - window[-1] + 1, 0) for side in first.input_shape[1:])
    patches = height * width * (entries + 1 if samples is None else samples)
    if patches <= entries:
        problems.append(
            f"initializer.input = 'whitening' needs more than {entries} patches of "
            f"{format_shape(window)} pixels, but the training images have {patches} for "
            f"{first.name}; set initializer.input=null"
        )
    return problems


def _window(layer: InferredLayer) -> tuple[int, int, int]:
    """Return the shape of one filter, (C, k, k)."""
    assert isinstance(layer.record, Conv2d)
    return layer.input_shape[0], layer.record.kernel, layer.record.kernel


def whitening_arrays(layer: InferredLayer, dataset: Dataset) -> dict[str, Floats]:
    """Return the weight (O, C, k, k) that whitens patches, and the bias (O,) of a layer with bias.

    The layer transforms patches x of the training images into uncorrelated numbers with a variance
    of about 1 and, if there is a bias, a mean of 0:

        y = W (x - μ),  W = (Λ + ε)^(-1/2) Eᵀ,  E Λ Eᵀ = Cov x,  μ = mean x,  ε = EPSILON · mean(Λ)

    Sources: Page 2019, "How to train your ResNet 8: bag of tricks", "Input patch whitening"; Jordan
    2024, arXiv:2404.00498, section 3.2.

    Raises:
        DataError: All pixels of each channel have the same value.
    """
    channels, window = layer.output_shape[0], _window(layer)
    mean, covariance = patch_statistics(dataset, window[-1])
    if not np.trace(covariance) > 1e-9 * (mean @ mean):  # the variance is zero up to rounding
        raise DataError(
            f"{dataset.name}: all pixels of each channel have the same value in all training "
            "images, so there is nothing to whiten; set initializer.input=null"
        )
    filters = whitening_filters(covariance, channels)
    arrays = {"weight": filters.reshape(channels, *window)}
    if "bias" in layer.parameters:
        arrays["bias"] = -filters @ mean
    return arrays


def patch_statistics(dataset: Dataset, kernel: int) -> tuple[Floats, Floats]:
    """Return mean (D,) and covariance (D, D) of all patches of k x k pixels, D = C·k·k.

    Patches are cut from the normalized training images, without padding. If there are more than
    about ``MAX_PATCHES`` patches, only evenly spaced images are used.
    """
    part, normalization = dataset.train, dataset.normalization
    channels, height, width = dataset.input_shape
    entries, positions = channels * kernel**2, (height - kernel + 1) * (width - kernel + 1)
    count = min(len(part), max(1, MAX_PATCHES // positions))
    rows = part.rows[np.arange(count) * len(part) // count]
    scale, shift = (x[:, None, None] for x in (normalization.scale, normalization.shift))
    total, products = np.zeros(entries), np.zeros((entries, entries))
    step = max(1, CHUNK_ELEMENTS // (entries * positions))
    for start in range(0, count, step):
        images = part.take(rows[start : start + step]) * scale + shift
        windows = sliding_window_view(images, (kernel, kernel), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, entries)
        total += patches.sum(axis=0)
        products += patches.T @ patches
    mean = total / (count * positions)
    return mean, products / (count * positions) - np.outer(mean, mean)


def whitening_filters(covariance: Floats, channels: int) -> Floats:
    """Return O = ``channels`` filters (O, D) for patches with a covariance (D, D), O <= 2 D.

    The first D filters are the eigenvectors, each divided by the square root of its eigenvalue + ε,
    in descending order of the eigenvalues. The other filters are the negatives of the first D: a
    ReLU removes half of each output. The entry of largest magnitude in an eigenvector is positive.
    """
    variances, directions = (x[..., ::-1] for x in np.linalg.eigh(covariance))
    peaks = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    deviations = np.sqrt(variances + EPSILON * variances.mean())
    filters = (directions * np.sign(peaks) / deviations).T
    return np.concatenate([filters, -filters])[:channels]
