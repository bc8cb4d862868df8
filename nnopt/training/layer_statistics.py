"""Statistics of each layer after an epoch: activations on fixed samples, and the last gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.layers import ReLU
from nnopt.architecture.network import Architecture
from nnopt.backends.protocol import DeviceArray, Loader, Network
from nnopt.data.dataset import Dataset, Part
from nnopt.results.metrics_file import LayerRow

MAX_PROBE_SAMPLES = 256

PROBE_BATCH_SIZE = 32
"""A small number, because the outputs of all layers for a batch are in memory together."""


def select_probe(dataset: Dataset) -> Part:
    """Return at most 256 evenly spaced samples.

    They are validation samples or, without a validation part, training samples. The samples depend
    only on the dataset, so they are the same at every epoch.
    """
    part = dataset.train if dataset.validation is None else dataset.validation
    rows = np.linspace(0, len(part) - 1, min(len(part), MAX_PROBE_SAMPLES)).astype(np.int64)
    return Part(part.inputs, part.labels, part.rows[rows])


def update_ratios(
    before: Mapping[str, NDArray[np.floating]], after: Mapping[str, NDArray[np.floating]]
) -> dict[str, float | None]:
    """Return ‖after - before‖ / ‖before‖ of each ``weight``, by full name; None if before is 0.

    Args:
        before: All arrays of a network before a step, by full name.
        after: The same arrays after the step.
    """
    ratios: dict[str, float | None] = {}
    for name, old in before.items():
        if name.endswith(".weight"):
            norm = _norm(old)
            ratios[name] = _norm(after[name].astype(np.float64) - old) / norm if norm else None
    return ratios


def layer_rows(
    network: Network,
    architecture: Architecture,
    probe: Loader,
    epoch: int,
    updates: Mapping[str, float | None],
) -> list[LayerRow]:
    """Return a row of statistics for each layer, in the order of the architecture.

    Args:
        network: The network after the epoch.
        architecture: Its layers.
        probe: The samples for which the activations are computed.
        epoch: The number of the epoch, from 1.
        updates: Full name of a weight -> update ratio of the epoch's last step.
    """
    activations = {layer.name: RunningMoments() for layer in architecture.walk()}
    for x in _batches(probe):
        for name, y in network.layer_outputs(x).items():
            activations[name].add(y)
    gradients, arrays = network.gradient_arrays(), network.arrays()
    rows = []
    for layer in architecture.walk():
        name, moments = f"{layer.name}.weight", activations[layer.name]
        gradient = gradients.get(name)
        rows.append(
            LayerRow(
                epoch=epoch,
                layer=layer.name,
                activation_mean=moments.mean,
                activation_std=moments.std,
                dead_fraction=moments.dead_fraction if isinstance(layer.record, ReLU) else None,
                gradient_mean=None if gradient is None else _mean(gradient),
                gradient_std=None if gradient is None else _variance(gradient) ** 0.5,
                weight_norm=None if gradient is None else _norm(arrays[name]),
                update_ratio=None if gradient is None else updates.get(name),
            )
        )
    return rows


class RunningMoments:
    """Mean, standard deviation and dead units of arrays (N, D) or (N, C, H, W), batch by batch.

    Batches are combined as in Chan, Golub and LeVeque (1979), without the cancellation of
    E[y²] - E[y]².
    """

    def __init__(self) -> None:
        self.mean = 0.0
        self._count = 0
        self._squares = 0.0  # the sum of squared deviations from the mean
        self._alive: NDArray[np.bool_] | None = None

    def add(self, y: NDArray[np.floating]) -> None:
        """Add one batch."""
        mean, count = _mean(y), self._count + y.size
        difference = mean - self.mean
        self._squares += _variance(y) * y.size + difference**2 * self._count * y.size / count
        self.mean += difference * y.size / count
        self._count = count
        alive = (y != 0).any(axis=(0, *range(2, y.ndim)))
        self._alive = alive if self._alive is None else self._alive | alive

    @property
    def std(self) -> float:
        """The standard deviation of all numbers, with their count as the denominator."""
        return float((self._squares / self._count) ** 0.5)

    @property
    def dead_fraction(self) -> float:
        """The fraction of units, or channels, that are 0 in every batch."""
        assert self._alive is not None
        return 1 - float(self._alive.mean())


def _batches(probe: Loader) -> Iterator[DeviceArray]:
    for x in probe.evaluation_batches():
        for start in range(0, len(x), PROBE_BATCH_SIZE):
            yield x[start : start + PROBE_BATCH_SIZE]


def _norm(array: NDArray[np.floating]) -> float:
    """Return the L2 norm of all numbers, computed in float64."""
    return float(np.linalg.norm(array.astype(np.float64, copy=False).ravel()))


def _mean(array: NDArray[np.floating]) -> float:
    return float(array.mean(dtype=np.float64))


def _variance(array: NDArray[np.floating]) -> float:
    return float(array.var(dtype=np.float64))
