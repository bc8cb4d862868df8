"""Loss and accuracy of a network on a part of the data, the same code for both backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnopt.backends.protocol import Loader, Network
from nnopt.results import metrics


@dataclass(frozen=True)
class Evaluation:
    """logits: (N, K) in the part's order; loss: mean, without penalties or label smoothing."""

    loss: float
    accuracy: float
    logits: NDArray[np.floating]


def evaluate(network: Network, loader: Loader, labels: NDArray[np.int64], loss: str) -> Evaluation:
    """Predict every sample of ``loader`` in evaluation mode and compare with ``labels`` (N,)."""
    logits = np.concatenate([network.predict(x) for x in loader.evaluation_batches()])
    mean_loss = metrics.hinge if loss == "hinge" else metrics.cross_entropy
    return Evaluation(mean_loss(logits, labels), metrics.accuracy(logits, labels), logits)
