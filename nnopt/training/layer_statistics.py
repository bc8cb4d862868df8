"""How each layer stands after an epoch: activations on a few fixed samples, the last gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.layers import ReLU
from nnopt.architecture.network import Architecture
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.data.dataset import Dataset, Part
from nnopt.results.layers_file import LayerRow

PROBE = 256
"""Samples looked at, at most."""

PROBE_BATCH = 32
"""Of them at once: what every layer gives is held, which for many images is much."""


def probe_of(dataset: Dataset) -> Part:
    """At most 256 samples of the validation part, or without one of the training part, evenly
    chosen: the same at every epoch and for every seed of the weights."""
    part = dataset.train if dataset.validation is None else dataset.validation
    places = np.linspace(0, len(part) - 1, min(len(part), PROBE)).astype(np.int64)
    return Part(part.inputs, part.labels, part.rows[places])


def layer_rows(
    network: Network, architecture: Architecture, probe: Loader, epoch: int
) -> list[LayerRow]:
    """A row for each layer, in the architecture's order."""
    seen = {layer.name: Moments() for layer in architecture.walk()}
    for x in _batches(probe):
        for name, y in network.layer_outputs(x).items():
            seen[name].add(y)
    gradients = network.gradient_arrays()
    rows = []
    for layer in architecture.walk():
        moments, gradient = seen[layer.name], gradients.get(f"{layer.name}.weight")
        rows.append(
            LayerRow(
                epoch=epoch,
                layer=layer.name,
                activation_mean=moments.mean,
                activation_std=moments.std,
                dead_share=moments.dead_share if isinstance(layer.record, ReLU) else None,
                gradient_mean=None if gradient is None else _mean(gradient),
                gradient_std=None if gradient is None else _variance(gradient) ** 0.5,
            )
        )
    return rows


class Moments:
    """Mean, standard deviation and silent units of arrays (N, D) or (N, C, H, W) that come batch by
    batch, joined as Chan, Golub and LeVeque (1979) do: without the cancellation of E[y²] - E[y]².
    """

    def __init__(self) -> None:
        self.mean = 0.0
        self._count = 0
        self._squares = 0.0  # the sum of squared deviations from the mean
        self._alive: NDArray[np.bool_] | None = None

    def add(self, y: NDArray[np.floating]) -> None:
        """Take in one more batch."""
        mean, count = _mean(y), self._count + y.size
        apart = mean - self.mean
        self._squares += _variance(y) * y.size + apart**2 * self._count * y.size / count
        self.mean += apart * y.size / count
        self._count = count
        alive = (y != 0).any(axis=(0, *range(2, y.ndim)))
        self._alive = alive if self._alive is None else self._alive | alive

    @property
    def std(self) -> float:
        """Of all numbers seen, divided by their count."""
        return float((self._squares / self._count) ** 0.5)

    @property
    def dead_share(self) -> float:
        """Of the units, or channels, those that never were anything but 0."""
        assert self._alive is not None
        return 1 - float(self._alive.mean())


def _batches(probe: Loader) -> Iterator[DeviceArray]:
    for x in probe.evaluation_batches():
        for start in range(0, len(x), PROBE_BATCH):
            yield x[start : start + PROBE_BATCH]


def _mean(array: NDArray[np.floating]) -> float:
    return float(array.mean(dtype=np.float64))


def _variance(array: NDArray[np.floating]) -> float:
    return float(array.var(dtype=np.float64))
