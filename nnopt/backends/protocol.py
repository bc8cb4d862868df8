"""The border between the training loop and a backend: a network, and a loader of its batches.

The loop knows these methods and nothing else of a backend. Arrays cross it in PyTorch's layouts:
weights (out, in), inputs (N, D) or (N, C, H, W), logits (N, K), labels (N,), or (N, K) where they
are mixed: the share of each class, in the backend's number type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture.network import Architecture
from nnopt.data.batches import Augmentation
from nnopt.data.dataset import Normalization, Part
from nnopt.schema import Config

DeviceArray = Any
"""An array where the backend computes: np.ndarray or torch.Tensor."""


@dataclass(frozen=True)
class StepRecord:
    """What training steps left behind, read seldom (once an epoch, within a long one every few
    hundred steps), so that Python need not wait for a device at every step.

    losses: (steps,) mean loss of each batch, without penalties.
    correct: samples classified rightly, in training mode, the largest share of a mixed label being
    the right class; count: samples seen.
    gradient_norm: L2 norm of the whole gradient, penalties included, before clipping, of the last
    of these steps.
    not_finite: the first layer whose outputs were not finite, at the first step whose loss was not;
    None if all were, or if the backend does not look (PyTorch would have to wait for the device).
    state_is_finite: whether all that the optimizer remembers is finite. The average of the squares
    of a gradient may overflow, and then its parameter stops.
    """

    losses: NDArray[np.float64]
    correct: int
    count: int
    gradient_norm: float
    not_finite: str | None = None
    state_is_finite: bool = True


class Loader(Protocol):
    """Batches of one part of a dataset, gathered, augmented and normalized on the device."""

    def train_batches(
        self, order: NDArray[np.int64], batch_size: int, augmentation: Augmentation
    ) -> Iterator[tuple[DeviceArray, DeviceArray]]:
        """Inputs (N, ...) and labels (N,), or (N, K) if ``augmentation`` mixes, in the order given:
        positions 0..len(part)-1. The inputs are valid until the next batch is asked for."""
        ...

    def evaluation_batches(self) -> Iterator[DeviceArray]:
        """Inputs in the part's own order, in batches of the backend's choice."""
        ...


class Network(Protocol):
    """A network on its device, with its loss, penalties and optimizer."""

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic, by full name."""
        ...

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Copies of every parameter and running statistic."""
        ...

    def train_step(self, x: DeviceArray, y: DeviceArray, lr: float, step: int) -> None:
        """One optimizer update, the gradients of the batch's parts added up; ``step`` counts from 0
        over the whole training and, with the part's number, decides the dropout masks. ``y`` has
        to stay as it is until ``read_steps``."""
        ...

    def read_steps(self) -> StepRecord:
        """The record of the steps since the last call, which is then forgotten."""
        ...

    def average(self, weight: float) -> None:
        """Move the average a of all parameters and running statistics w towards them:
        a ← a + weight · (w - a), from zero at the first call. Does not wait for the device."""
        ...

    def swap_average(self) -> None:
        """Exchange the parameters and running statistics with their average: every other method
        then acts on the average, and a second call puts all back, to the bit."""
        ...

    def recompute_statistics(self, batches: Iterable[DeviceArray]) -> None:
        """Set batch norm's running statistics to the averages, over the parts of these batches of
        inputs, of each one's mean and unbiased variance in training mode, with the dropout masks
        of steps 0, 1, ... Asks for no batch if there is no batch norm."""
        ...

    def predict(self, x: DeviceArray) -> NDArray[np.floating]:
        """Return logits (N, K) in evaluation mode. ``regularizer.test_flip`` averages the logits of
        the images (N, C, H, W) and of the same images flipped from left to right."""
        ...

    def layer_outputs(self, x: DeviceArray) -> dict[str, NDArray[np.floating]]:
        """What every placed layer, by its name, those inside residual ones too, gives for a batch
        in evaluation mode: copies, (N, D) or (N, C, H, W), in the architecture's order."""
        ...

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        """Copies of the last training step's gradient of every parameter, by full name, as the
        optimizer took it: penalties included, after clipping; zeros before the first step."""
        ...


class Backend(Protocol):
    """What a backend's package offers."""

    def check_backend(self, config: Config) -> list[str]:
        """Return the reasons why this machine cannot use ``config.backend``, one line each."""
        ...

    def device_errors(self) -> AbstractContextManager[None]:
        """Return a context manager that converts the errors of a device. A lack of memory becomes
        MemoryError, and a missing deterministic kernel becomes TrainingError."""
        ...

    def default_threads(self) -> int:
        """Return the number of threads that the backend's matrix library uses by itself."""
        ...

    def build_network(self, architecture: Architecture, config: Config) -> Network: ...

    def build_loader(self, part: Part, normalization: Normalization, config: Config) -> Loader: ...
