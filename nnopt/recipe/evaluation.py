"""Evaluations after training, with the tested weights: metrics and tables of the results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.data.dataset import Dataset
from nnopt.recipe.recorder import RunRecorder
from nnopt.results.classification import calibration_error, class_scores, top_k_accuracy
from nnopt.results.metrics import confusion_matrix, softmax
from nnopt.results.prediction_files import write_classes, write_confusion, write_predictions
from nnopt.schema import Config
from nnopt.training.evaluation import Evaluation, evaluate

log = logging.getLogger("nnopt")

TOP_K = 5
"""The top-k accuracy is recorded only for more than this number of classes."""


def record_test(
    result: Evaluation, dataset: Dataset, config: Config, recorder: RunRecorder
) -> None:
    """Add the metrics of the test set to the summary, and write the tables about its samples.

    If a logit is not finite, only loss and accuracy are recorded, because the run has diverged.
    """
    summary, labels = recorder.summary, dataset.test.labels[dataset.test.rows]
    classes, logits = dataset.classes, result.logits
    summary["test_loss"], summary["test_accuracy"] = result.loss, result.accuracy
    log.info("test loss %.6g, test accuracy %.4f", result.loss, result.accuracy)
    if not np.isfinite(logits).all():
        return
    predictions = logits.argmax(axis=1)
    counts = confusion_matrix(labels, predictions, len(classes))
    scores = class_scores(counts)
    has_probabilities = config.loss in ("cross_entropy", "focal")
    has_top_k = len(classes) > TOP_K
    summary["test_top5_accuracy"] = top_k_accuracy(logits, labels, TOP_K) if has_top_k else None
    summary["test_macro_f1"] = scores.macro_f1
    summary["test_calibration_error"] = (
        calibration_error(logits, labels) if has_probabilities else None
    )
    write_classes(recorder.directory, scores, classes)
    write_confusion(recorder.directory, counts, classes)
    if config.evaluation.predictions:
        values, kind = logits.astype(np.float64), "score"
        if has_probabilities:
            values, kind = softmax(logits), "probability"
        write_predictions(recorder.directory, labels, predictions, values, kind, classes)


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
    log.info("training part: loss %.6g, accuracy %.4f", result.loss, result.accuracy)


def _calling(function: Callable[[], None], batches: Iterable[DeviceArray]) -> Iterator[DeviceArray]:
    for batch in batches:
        function()
        yield batch
