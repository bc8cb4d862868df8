"""The architecture and the initial arrays of a configuration, also for torchvision's models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnopt.architecture import initializers
from nnopt.architecture.builders import build
from nnopt.architecture.inference import Shape
from nnopt.architecture.network import Architecture, ModuleArchitecture
from nnopt.data.dataset import Dataset
from nnopt.schema import (
    ArchitectureVariant,
    InitializerConfig,
    RegularizerConfig,
    TorchvisionConfig,
)


def build_architecture(
    config: ArchitectureVariant, regularizer: RegularizerConfig, input_shape: Shape, classes: int
) -> Architecture:
    """Return the architecture for samples of shape ``input_shape``, (C, H, W) or (D,).

    Raises:
        ConfigError: A layer or a torchvision model does not accept its input; the message names it.
    """
    if isinstance(config, TorchvisionConfig):
        from nnopt.backends.torch.vision import describe_model  # imports PyTorch

        return describe_model(config, input_shape, classes)
    return build(config, regularizer, input_shape, classes)


def initial_arrays(
    architecture: Architecture, config: InitializerConfig, seed: int, dataset: Dataset | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the initial value of every parameter and running statistic by full name.

    Models of torchvision are initialized by torchvision or with pretrained weights of torchvision.
    ``config`` applies only to other models. ``initializer.input=whitening`` requires ``dataset``.

    Raises:
        DataError: The file of the pretrained weights is missing or damaged.
    """
    if isinstance(architecture, ModuleArchitecture):
        from nnopt.backends.torch import vision

        return vision.initial_arrays(architecture, seed)
    return initializers.initial_arrays(architecture, config, seed, dataset)
