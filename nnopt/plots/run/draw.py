"""All plots of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.layers import Conv2d
from nnopt.architecture.network import Architecture
from nnopt.data.dataset import Dataset
from nnopt.plots.run.confusion import plot_confusion
from nnopt.plots.run.curves import plot_curves, plot_schedule
from nnopt.plots.run.decision_boundary import plot_decision_boundary
from nnopt.plots.run.feature_maps import plot_feature_maps, stages_of
from nnopt.plots.run.images import plot_filters, plot_samples
from nnopt.plots.run.layer_statistics import plot_layer_statistics
from nnopt.plots.run.pruning import plot_kept, plot_mask
from nnopt.plots.run.weights import plot_weight_histograms
from nnopt.pruning.pruner import Pruner
from nnopt.pruning.unit_pruner import UnitPruner
from nnopt.results.metrics import confusion_matrix
from nnopt.results.metrics_file import LayerRow
from nnopt.training.state import TrainingState

Arrays = Mapping[str, NDArray[np.floating]]
Predict = Callable[[np.ndarray], NDArray[np.floating]]
Outputs = Callable[[np.ndarray], Mapping[str, NDArray[np.floating]]]

MAX_IMAGES = 6  # images in the plot of feature maps, each of another class


def plot_training(
    training: TrainingState,
    initial: Arrays,
    layers: Sequence[LayerRow],
    steps_per_epoch: int,
    name: str,
    folder: Path,
) -> None:
    """Draw curves, learning rates, weights before and after training, and layer statistics.

    ``initial`` contains the parameters before training. ``layers`` is empty if layer statistics are
    off. ``name`` is the name of the run.
    """
    if training.history:
        plot_curves(training.history, folder / "curves.png", name, training.best_epoch or None)
    if training.learning_rates:
        rates = np.array(training.learning_rates)
        plot_schedule(rates, steps_per_epoch, folder / "schedule.png", name)
    plot_weight_histograms(initial, training.last, folder / "weights.png")
    if layers:
        matrices = {key.removesuffix(".weight") for key, x in initial.items() if np.ndim(x) > 1}
        plot_layer_statistics(layers, matrices, folder / "layer_statistics.png", name)


def plot_pruning(pruner: Pruner, architecture: Architecture, folder: Path) -> None:
    """Draw the kept fraction of each layer and, if weights are pruned, the first mask.

    ``architecture`` is the network after pruning.
    """
    masks = pruner.masks_by_layer
    is_structured = isinstance(pruner, UnitPruner)
    plot_kept(masks, "units" if is_structured else "weights", folder / "kept.png")
    first = architecture.weights[0].removesuffix(".weight")
    if first in masks and not is_structured:
        plot_mask(masks[first], architecture.input_shape, first, folder / "mask.png")


def plot_test(
    dataset: Dataset, logits: NDArray[np.floating], predict: Predict, name: str, folder: Path
) -> None:
    """Draw the confusion matrix; for images, also samples; for points, the decision boundary.

    ``logits`` (N, K) are the logits of the test samples. ``predict`` maps raw inputs (M, 2) to
    logits (M, K). ``name`` is the name of the run.
    """
    test = dataset.test
    labels, predictions = test.labels[test.rows], logits.argmax(axis=1)
    counts = confusion_matrix(labels, predictions, len(dataset.classes))
    plot_confusion(counts, dataset.classes, folder / "confusion.png", name)
    if dataset.is_image:
        images, path = test.take(test.rows[:16]), folder / "samples.png"
        plot_samples(images, labels[:16], predictions[:16], dataset.classes, path)
    elif dataset.input_shape == (2,):
        points, path = test.take(test.rows), folder / "decision_boundary.png"
        plot_decision_boundary(predict, points, labels, dataset.classes, path, name)


def plot_convolutions(
    dataset: Dataset, architecture: Architecture, weights: Arrays, outputs: Outputs, folder: Path
) -> None:
    """Draw the filters of the first convolution and feature maps of test images.

    The feature maps are of one image of each of the first six classes. ``outputs`` maps raw
    images (N, C, H, W) to the output of each layer. Without convolutions, nothing is drawn.
    """
    convolutions = (x.name for x in architecture.walk() if isinstance(x.record, Conv2d))
    first = next(convolutions, None)
    if first is None:
        return
    plot_filters(weights[f"{first}.weight"], first, folder / "filters.png")
    test = dataset.test
    classes, indices = np.unique(test.labels[test.rows], return_index=True)
    images = test.take(test.rows[indices[:MAX_IMAGES]])
    names = [dataset.classes[k] for k in classes[:MAX_IMAGES]]
    maps = outputs(images)
    stages = {layer: maps[layer] for layer in stages_of(architecture)}
    plot_feature_maps(images, names, stages, folder / "feature_maps.png")
