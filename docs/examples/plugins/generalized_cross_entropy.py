"""A loss: generalized cross-entropy, which is robust to wrong labels (Zhang and Sabuncu 2018).

With the softmax p of the label, the loss is the mean of (1 - p^q) / q.
"""

import numpy as np

from nnopt import Registry

Q = 0.7


def forward(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    power = p[np.arange(len(labels)), labels] ** Q
    return np.mean((1 - power) / Q), (p, power, labels)


def backward(g, saved):
    p, power, labels = saved
    d_logits = power[:, None] * p
    d_logits[np.arange(len(labels)), labels] -= power
    return g * d_logits / len(labels)


def torch_function(logits, labels):
    p = logits.softmax(dim=1).gather(1, labels[:, None])
    return ((1 - p**Q) / Q).mean()


def register(registry: Registry) -> None:
    registry.loss("generalized_cross_entropy", numpy=(forward, backward), torch=torch_function)
