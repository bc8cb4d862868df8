"""A metric: balanced accuracy, the mean over the classes of the fraction of correct predictions."""

import numpy as np

from nnopt import Registry


def balanced_accuracy(logits, labels):
    correct = logits.argmax(axis=1) == labels
    return np.mean([correct[labels == label].mean() for label in np.unique(labels)])


def register(registry: Registry) -> None:
    registry.metric("balanced_accuracy", balanced_accuracy)
