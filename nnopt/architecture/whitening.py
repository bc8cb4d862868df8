"""First weights that whiten: filters of the first convolution, found in the training images."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nnopt.architecture.layers import Conv2d
from nnopt.architecture.network import Architecture, PlacedLayer
from nnopt.data.dataset import Dataset
from nnopt.errors import DataError

Floats = NDArray[np.float64]

PATCHES = 5_000_000
"""Looked at, at most, give or take an image's: those of some 5,000 images of 32x32."""

EPSILON = 5e-4
"""Of the mean variance, added to each: what lies far below it is noise, and not blown up to 1."""

CHUNK = 2**21
"""Entries of patches that are copied at a time."""


def whitening_problems(architecture: Architecture, samples: int | None) -> list[str]:
    """What stands against ``initializer.input = 'whitening'``, one line a problem.

    samples: in the training part, None if only the data would tell.
    """
    first = architecture.layers[0]
    if not isinstance(first.record, Conv2d) or first.record.groups > 1:
        what = "a conv2d layer in groups" if isinstance(first.record, Conv2d) else first.name
        return [
            "initializer.input = 'whitening' needs a network that begins with a conv2d layer of "
            f"one group, but this one begins with {what}; set initializer.input=null"
        ]
    problems = []
    channels, window = first.output_shape[0], _window(first)
    entries = math.prod(window)
    if channels > 2 * entries:
        problems.append(
            f"initializer.input = 'whitening' makes at most {2 * entries} filters of "
            f"{'x'.join(map(str, window))} pixels, one of either sign for each, but {first.name} "
            f"has {channels} channels; set at most {2 * entries}, or initializer.input=null"
        )
    height, width = (max(side - window[-1] + 1, 0) for side in first.input_shape[1:])
    patches = height * width * (entries + 1 if samples is None else samples)
    if patches <= entries:
        problems.append(
            f"initializer.input = 'whitening' needs more than {entries} patches of "
            f"{'x'.join(map(str, window))} pixels to tell their directions apart, but the training "
            f"images have {patches} for {first.name}; set initializer.input=null"
        )
    return problems


def _window(layer: PlacedLayer) -> tuple[int, int, int]:
    """What one filter sees: (C, k, k)."""
    assert isinstance(layer.record, Conv2d)
    return layer.input_shape[0], layer.record.kernel, layer.record.kernel


def whitening_arrays(layer: PlacedLayer, dataset: Dataset) -> dict[str, Floats]:
    """Weight (O, C, k, k), and bias (O,) if the layer has one, by which the patches x of training
    images become uncorrelated numbers of variance 1 and, with a bias, of mean 0:

        y = W (x - μ),   W = (Λ + ε)^(-1/2) Eᵀ,   E Λ Eᵀ = Cov x

    (Page 2019, "How to train your ResNet 8: bag of tricks", "Input patch whitening"; Jordan 2024,
    arXiv:2404.00498, section 3.2.) Raises DataError if the images are all one colour.
    """
    channels, window = layer.output_shape[0], _window(layer)
    mean, covariance = patch_statistics(dataset, window[-1])
    if not np.trace(covariance) > 1e-9 * (mean @ mean):  # which is what rounding makes of 0
        raise DataError(
            f"{dataset.name}: every pixel of a channel has the same value in all training images, "
            "so there is nothing to whiten; set initializer.input=null"
        )
    filters = whitening_filters(covariance, channels)
    arrays = {"weight": filters.reshape(channels, *window)}
    if "bias" in layer.parameters:
        arrays["bias"] = -filters @ mean
    return arrays


def patch_statistics(dataset: Dataset, kernel: int) -> tuple[Floats, Floats]:
    """Mean (D,) and covariance (D, D), D = C·k·k, of all patches of k x k pixels of the training
    images, normalized as the network sees them; zeros that padding adds are in none. Of many images
    so many, evenly spaced, as have about ``PATCHES`` patches: nothing is drawn."""
    part, normalization = dataset.train, dataset.normalization
    channels, height, width = dataset.input_shape
    entries, positions = channels * kernel**2, (height - kernel + 1) * (width - kernel + 1)
    count = min(len(part), max(1, PATCHES // positions))
    rows = part.rows[np.arange(count) * len(part) // count]
    scale, shift = (x[:, None, None] for x in (normalization.scale, normalization.shift))
    total, products = np.zeros(entries), np.zeros((entries, entries))
    step = max(1, CHUNK // (entries * positions))
    for start in range(0, count, step):
        images = part.take(rows[start : start + step]) * scale + shift
        windows = sliding_window_view(images, (kernel, kernel), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, entries)
        total += patches.sum(axis=0)
        products += patches.T @ patches
    mean = total / (count * positions)
    return mean, products / (count * positions) - np.outer(mean, mean)


def whitening_filters(covariance: Floats, channels: int) -> Floats:
    """Rows (O, D) of W for a covariance (D, D): eigenvectors over the roots of their eigenvalues,
    the largest variance first; then, since a ReLU would lose half of what each has to say, the same
    with the other sign; of these 2 D the first O.

    An eigenvector is one with either sign; here its entry furthest from zero is positive.
    """
    variances, directions = (x[..., ::-1] for x in np.linalg.eigh(covariance))
    peaks = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    deviations = np.sqrt(variances + EPSILON * variances.mean())
    filters = (directions * np.sign(peaks) / deviations).T
    return np.concatenate([filters, -filters])[:channels]
