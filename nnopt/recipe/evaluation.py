"""Evaluations after training, with the tested weights: metrics and tables of the results."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnopt.backends import load_backend
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.data.dataset import Dataset, Normalization, Part
from nnopt.errors import ConfigError
from nnopt.recipe.recorder import RunRecorder
from nnopt.results.classification import (
    ClassScores,
    calibration_error,
    class_scores,
    top_k_accuracy,
)
from nnopt.results.metrics import confusion_matrix, softmax
from nnopt.results.prediction_files import write_classes, write_confusion, write_predictions
from nnopt.schema import Config
from nnopt.schema.tables import table
from nnopt.training.evaluation import Evaluation, evaluate

log = logging.getLogger("nnopt")

METRIC_FUNCTIONS: dict[str, Callable[[Any, Any], float]] = table("metric")
"""Name of a metric of a plug-in -> function of logits (N, K) and labels (N,)."""

TOP_K = 5
"""The top-k accuracy is recorded only for more than this number of classes."""


@dataclass(frozen=True)
class ClassResults:
    """Results of a classification, of samples with labels and finite logits.

    Attributes:
        metrics: ``top5_accuracy``, ``macro_f1``, ``calibration_error`` and the metrics of plug-ins;
            None if the metric does not apply.
        scores: Metrics of each class.
        counts: Samples by true class (rows) and predicted class (columns), (K, K).
    """

    metrics: dict[str, float | None]
    scores: ClassScores
    counts: NDArray[np.int64]


def classify(
    logits: NDArray[np.floating], labels: NDArray[np.int64], config: Config
) -> ClassResults | None:
    """Return the results for logits (N, K) and labels (N,), or None if a logit is not finite."""
    if not np.isfinite(logits).all():
        return None
    classes = logits.shape[1]
    counts = confusion_matrix(labels, logits.argmax(axis=1), classes)
    scores = class_scores(counts)
    is_calibrated = has_probabilities(config)
    metrics = {
        "top5_accuracy": top_k_accuracy(logits, labels, TOP_K) if classes > TOP_K else None,
        "macro_f1": scores.macro_f1,
        "calibration_error": calibration_error(logits, labels) if is_calibrated else None,
        **_plugin_metrics(config, logits, labels),
    }
    return ClassResults(metrics, scores, counts)


def has_probabilities(config: Config) -> bool:
    """Return whether the softmax of the logits gives probabilities, which depends on the loss."""
    return config.loss in ("cross_entropy", "focal")


def class_values(
    logits: NDArray[np.floating], config: Config
) -> tuple[NDArray[np.float64], Literal["probability", "score"]]:
    """Return the probabilities of the classes or, for other losses, their scores, both (N, K)."""
    if has_probabilities(config):
        return softmax(logits), "probability"
    return logits.astype(np.float64), "score"


def write_tables(
    folder: Path,
    results: ClassResults,
    logits: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    config: Config,
    predictions: bool,
) -> None:
    """Write ``classes.csv``, ``confusion.csv`` and, on request, ``predictions.csv``.

    Raises OutputError.
    """
    write_classes(folder, results.scores, classes)
    write_confusion(folder, results.counts, classes)
    if predictions:
        values, kind = class_values(logits, config)
        write_predictions(folder, labels, logits.argmax(axis=1), values, kind, classes)


def record_test(
    result: Evaluation, dataset: Dataset, config: Config, recorder: RunRecorder
) -> None:
    """Add the metrics of the test set to the summary, and write the tables about its samples.

    If a logit is not finite, only loss and accuracy are recorded, because the run has diverged.
    """
    summary, labels = recorder.summary, dataset.test.labels[dataset.test.rows]
    logits = result.logits
    summary["test_loss"], summary["test_accuracy"] = result.loss, result.accuracy
    log.info("test loss %.6g, test accuracy %.4f", result.loss, result.accuracy)
    if (found := classify(logits, labels, config)) is None:
        return
    summary |= {f"test_{name}": value for name, value in found.metrics.items()}
    with_predictions = config.evaluation.predictions
    classes = dataset.classes
    write_tables(recorder.directory, found, logits, labels, classes, config, with_predictions)


def input_batches(
    inputs: np.ndarray, normalization: Normalization, config: Config
) -> Iterator[DeviceArray]:
    """Return the evaluation batches of raw inputs (N, ...), normalized, on the backend's device."""
    part = Part(inputs, np.zeros(len(inputs), np.int64), np.arange(len(inputs)))
    loader = load_backend(config.backend.name).build_loader(part, normalization, config)
    return loader.evaluation_batches()


def record_train(
    network: Network,
    loader: Loader,
    dataset: Dataset,
    config: Config,
    summary: dict[str, Any],
    between_batches: Callable[[], None],
) -> None:
    """Evaluate the training part in evaluation mode, and add the metrics to the summary.

    ``network`` has the tested weights, and ``summary`` their test accuracy. The function
    ``between_batches`` is called before every batch. It may raise an exception.
    """
    labels = dataset.train.labels[dataset.train.rows]
    batches = _calling(between_batches, loader.evaluation_batches())
    result = evaluate(network, batches, labels, config)
    summary["train_loss"], summary["train_accuracy"] = result.loss, result.accuracy
    summary["generalization_gap"] = result.accuracy - summary["test_accuracy"]
    found = _plugin_metrics(config, result.logits, labels)
    summary |= {f"train_{name}": value for name, value in found.items()}
    log.info("training part: loss %.6g, accuracy %.4f", result.loss, result.accuracy)


def _plugin_metrics(
    config: Config, logits: NDArray[np.floating], labels: NDArray[np.int64]
) -> dict[str, float | None]:
    """Return the metrics of plug-ins by name; None if a metric fails or is not finite."""
    values: dict[str, float | None] = {}
    logits, labels = logits.view(), labels.view()
    logits.flags.writeable = labels.flags.writeable = False  # they are written to files later
    for name in config.evaluation.metrics:
        try:
            value = METRIC_FUNCTIONS[name](logits, labels)
        except ConfigError as error:  # the results of the training must not be lost
            log.warning("%s", error)
            value = math.nan
        values[name] = value if math.isfinite(value) else None
        log.info("%s: %.6g", name, value)
    return values


def _calling(function: Callable[[], None], batches: Iterable[DeviceArray]) -> Iterator[DeviceArray]:
    for batch in batches:
        function()
        yield batch
