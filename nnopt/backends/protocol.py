"""The interface between the training loop and a backend: a network and a loader of batches.

The training loop uses a backend only through the methods in this file. Arrays have PyTorch's
layouts: weights (out, in), inputs (N, D) or (N, C, H, W), logits (N, K) and labels (N,). Mixed
labels (N, K) contain the fraction of each class, in the backend's number type. Full names look like
"dense1.weight". Running statistics include weights that are not trained.
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
"""An array on the backend's device: np.ndarray or torch.Tensor."""


@dataclass(frozen=True)
class StepRecord:
    """The results of several training steps.

    The training loop reads the record once an epoch, or every few hundred steps of a long epoch, so
    that Python does not wait for the device at every step. ``not_finite`` names the first layer
    whose output is not finite, at the first step whose loss is not finite. The PyTorch backend does
    not search for this layer, because the search would wait for the device. If ``state_is_finite``
    is False, the optimizer's state is not finite, and some parameters never change again.
    """

    losses: NDArray[np.float64]  # mean loss of each batch, without penalties, (steps,)
    correct: int  # correct predictions; a mixed label counts as the class of the largest fraction
    count: int  # number of samples
    gradient_norm: float  # L2 norm of the last step's gradient, with penalties, before clipping
    not_finite: str | None = None
    state_is_finite: bool = True


class Loader(Protocol):
    """Batches of one part of a dataset, gathered, augmented and normalized on the device."""

    def train_batches(
        self,
        order: NDArray[np.int64],
        batch_size: int,
        augmentation: Augmentation,
        first: int = 0,
    ) -> Iterator[tuple[DeviceArray, DeviceArray]]:
        """Yield the batches of an epoch. The last batch may be smaller than ``batch_size``.

        ``order`` contains indices of samples, from 0 to len(part) - 1. The first batch to yield has
        the index ``first``. ``augmentation`` contains the epoch's random draws. Inputs (N, ...) are
        valid until the next batch is requested. Mixed labels are (N, K), others (N,).
        """

    def evaluation_batches(self) -> Iterator[DeviceArray]:
        """Yield inputs (N, ...) in the order of the part. The backend chooses the batch size."""


class Network(Protocol):
    """A network on its device, with its loss, penalties and optimizer."""

    def load(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic to the array with its full name."""

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of every parameter and running statistic, by full name."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays on which later steps depend.

        The names are "weights/NAME" for parameters and running statistics, "gradients/NAME" for the
        gradients of the last step, and "optimizer/..." for the state of the optimizer. The entries
        "average/NAME" and "scaler/..." exist only if an average or a scale of the loss is used.
        """
        ...

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the result of the method ``state`` of a network with the same configuration.

        Later steps then give the same bits as those of the other network. Raises ValueError, and
        changes nothing, if the names, shapes or types do not match this network.
        """
        ...

    def restart(self, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Set every parameter and running statistic, and forget the state of the optimizer."""

    def set_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Set weights to zero where their mask is False, and keep them at zero in later steps.

        ``masks`` contains masks by the full name of the parameter, with its shape. The state of the
        optimizer becomes zero at the same places. The average of the weights is deleted. In later
        steps, the gradient is multiplied by the masks before penalties and clipping, so its norm
        counts only weights that are trained. A second call replaces the masks.
        """

    def mean_gradients(
        self, batches: Iterable[tuple[DeviceArray, DeviceArray]], step: int
    ) -> dict[str, NDArray[np.floating]]:
        """Return the gradient of the mean loss of batches for every parameter, by full name.

        The loss has no penalties. The forward passes are in training mode, with the dropout masks
        of ``step``. Weights and running statistics do not change.
        """
        ...

    def train_step(self, x: DeviceArray, y: DeviceArray, lr: float, step: int) -> None:
        """Perform one optimizer update for inputs x (N, ...) and labels y (N,) or (N, K).

        With ``accumulation_steps``, the batch is divided into micro-batches, and their gradients
        are added up. ``step`` is the index of the step, counted from 0. The dropout masks depend on
        the indices of step and micro-batch. ``y`` must not change until ``read_steps`` is called.
        """

    def read_steps(self) -> StepRecord:
        """Return the record of the steps since the last call."""

    def average(self, weight: float) -> None:
        """Compute a ← a + weight · (w - a) without waiting for the device.

        ``w`` is each parameter or running statistic, and ``a`` its average, which is 0 at first.
        """

    def swap_average(self) -> None:
        """Exchange the parameters and running statistics with their average.

        Every other method then uses the average. A second call undoes the exchange, bit for bit.
        """

    def recompute_statistics(self, batches: Iterable[DeviceArray]) -> None:
        """Set the running statistics of batch norm to averages over ``batches`` of inputs.

        Means and unbiased variances are averaged over all micro-batches. The forward passes are in
        training mode, with the dropout masks of steps 0, 1, ... If the network has no batch norm,
        no batch is requested.
        """

    def predict(self, x: DeviceArray) -> NDArray[np.floating]:
        """Return logits (N, K) in evaluation mode.

        With ``regularizer.test_time_flip``, they are averaged over each image and its mirror image.
        """

    def layer_outputs(self, x: DeviceArray) -> dict[str, NDArray[np.floating]]:
        """Return copies of the output of every layer, (N, D) or (N, C, H, W), in evaluation mode.

        The layers are in the order of the architecture, and include layers in residual layers.
        """

    def gradient_arrays(self) -> dict[str, NDArray[np.floating]]:
        """Return copies of the last step's gradient of every parameter, by full name.

        The gradients include penalties and are clipped. They are zero before the first step.
        """


class Backend(Protocol):
    """The functions in the package of a backend."""

    def check_backend(self, config: Config) -> list[str]:
        """Return all reasons why this machine cannot use ``config.backend``, one line each."""

    def device_errors(self) -> AbstractContextManager[None]:
        """Return a context manager that converts errors raised by a device.

        A lack of memory becomes MemoryError. A missing deterministic kernel becomes TrainingError.
        """

    def default_threads(self) -> int:
        """Return the default number of threads of the backend's matrix library."""

    def build_network(self, architecture: Architecture, config: Config) -> Network:
        """Return a network without weights; ``Network.load`` sets them."""

    def build_loader(self, part: Part, normalization: Normalization, config: Config) -> Loader:
        """Return the loader of the batches of one part of a dataset."""

    def try_components(self, architecture: Architecture, config: Config) -> None:
        """Compute each configured component of a plug-in once.

        Raises ConfigError if a component fails or returns a wrong shape.
        """
