"""All plots of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset import Dataset
from nnopt.plots.confusion import plot_confusion
from nnopt.plots.curves import plot_curves
from nnopt.plots.decision_boundary import plot_decision_boundary
from nnopt.plots.samples import plot_samples
from nnopt.plots.schedule import plot_schedule
from nnopt.plots.weights import plot_weight_histograms
from nnopt.results.metrics import confusion_matrix
from nnopt.training.loop import Training

Arrays = Mapping[str, NDArray[np.floating]]
Predict = Callable[[np.ndarray], NDArray[np.floating]]


def plot_training(
    training: Training, initial: Arrays, steps_per_epoch: int, name: str, folder: Path
) -> None:
    """What training did: curves, learning rates, weights before and after. Raises OutputError."""
    if training.history:
        plot_curves(training.history, folder / "curves.png", name, training.best_epoch or None)
    if training.learning_rates:
        rates = np.array(training.learning_rates)
        plot_schedule(rates, steps_per_epoch, folder / "schedule.png", name)
    plot_weight_histograms(initial, training.last, folder / "weights.png")


def plot_test(
    dataset: Dataset, logits: NDArray[np.floating], predict: Predict, name: str, folder: Path
) -> None:
    """What the trained network makes of the test part: confusion matrix, and some images or, for
    points in the plane, the decision boundary.

    logits: (N, K) of the test part; predict: raw inputs (M, 2) to logits (M, K).
    Raises OutputError.
    """
    test = dataset.test
    labels, predictions = test.labels[test.rows], logits.argmax(axis=1)
    counts = confusion_matrix(labels, predictions, len(dataset.classes))
    plot_confusion(counts, dataset.classes, folder / "confusion.png", name)
    if dataset.is_image:
        some = slice(16)
        images = test.inputs[test.rows[some]]
        path = folder / "samples.png"
        plot_samples(images, labels[some], predictions[some], dataset.classes, path)
    elif dataset.input_shape == (2,):
        points, path = test.inputs[test.rows], folder / "decision_boundary.png"
        plot_decision_boundary(predict, points, labels, dataset.classes, path, name)
