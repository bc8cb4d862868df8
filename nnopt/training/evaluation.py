"""Loss and accuracy of a network on one part of the data, computed alike for both backends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.protocol import DeviceArray, Network
from nnopt.results import metrics
from nnopt.schema import Config


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        loss: Mean loss, without penalties and label smoothing.
        accuracy: Fraction of correct predictions.
        logits: (N, K), in the order of the samples.
    """

    loss: float
    accuracy: float
    logits: NDArray[np.floating]


def evaluate(
    network: Network, batches: Iterable[DeviceArray], labels: NDArray[np.int64], config: Config
) -> Evaluation:
    """Predict the samples in evaluation mode and compare the predictions with ``labels`` (N,)."""
    logits = np.concatenate([network.predict(x) for x in batches])
    loss = metrics.loss_of(config, logits, labels)
    return Evaluation(loss, metrics.accuracy(logits, labels), logits)
