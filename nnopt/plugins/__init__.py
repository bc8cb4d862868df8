"""The interface for plug-ins: Python files and packages that add components to nnopt.

A plug-in defines a function ``register(registry)``, which receives a ``Registry`` and calls a
method for each component. ``docs/plugins.md`` is the guide. This module imports no PyTorch.
"""

from nnopt.architecture.activations import Elementwise as Activation
from nnopt.architecture.inference import Shape as Shape
from nnopt.architecture.plugins import PluginLayer as Layer
from nnopt.data.plugins import Samples as Samples
from nnopt.plugins.registry import Registry as Registry
from nnopt.random import generator as generator
from nnopt.schema.dataset import DatasetConfig as DatasetConfig
from nnopt.schema.dataset import Validation as Validation
from nnopt.schema.optimizer import LearningRate as LearningRate
from nnopt.schema.optimizer import OptimizerConfig as OptimizerConfig
from nnopt.schema.range import Range as Range
from nnopt.schema.schedule import ScheduleConfig as ScheduleConfig

__all__ = [
    "Activation",
    "DatasetConfig",
    "Layer",
    "LearningRate",
    "OptimizerConfig",
    "Range",
    "Registry",
    "Samples",
    "ScheduleConfig",
    "Shape",
    "Validation",
    "generator",
]
