"""Train neural networks in NumPy or in PyTorch from one YAML configuration.

The names in ``__all__`` are the interface for plug-ins (``docs/plugins.md``). They are imported
when they are first used, so that ``import nnopt`` is fast.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnopt.architecture.activations import Elementwise as Activation
    from nnopt.architecture.inference import Shape as Shape
    from nnopt.architecture.plugins import PluginLayer as Layer
    from nnopt.config.plugins.registry import Registry as Registry
    from nnopt.data.plugins import Samples as Samples
    from nnopt.random import generator as generator
    from nnopt.schema.dataset import DatasetConfig as DatasetConfig
    from nnopt.schema.dataset import Validation as Validation
    from nnopt.schema.optimizer import LearningRate as LearningRate
    from nnopt.schema.optimizer import OptimizerConfig as OptimizerConfig
    from nnopt.schema.range import Range as Range
    from nnopt.schema.schedule import ScheduleConfig as ScheduleConfig

__version__ = "0.1.0"

_PLACES = {
    "Activation": "architecture.activations.Elementwise",
    "DatasetConfig": "schema.dataset.DatasetConfig",
    "Layer": "architecture.plugins.PluginLayer",
    "LearningRate": "schema.optimizer.LearningRate",
    "OptimizerConfig": "schema.optimizer.OptimizerConfig",
    "Range": "schema.range.Range",
    "Registry": "config.plugins.registry.Registry",
    "Samples": "data.plugins.Samples",
    "ScheduleConfig": "schema.schedule.ScheduleConfig",
    "Shape": "architecture.inference.Shape",
    "Validation": "schema.dataset.Validation",
    "generator": "random.generator",
}
"""Public name -> its place in the package."""

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


def __getattr__(name: str) -> Any:
    """Import and return a public class or function."""
    if name not in _PLACES:
        raise AttributeError(f"module 'nnopt' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].rpartition(".")
    value = globals()[name] = getattr(import_module(f"nnopt.{module}"), attribute)
    return value


# OpenBLAS's worker threads wait for the next matrix product in a busy loop of up to 2^26 cycles.
# Meanwhile, they take a core from NumPy's other computations. This setting shortens the loop to
# 2^20 cycles (0.4 ms). In a small network, the next product follows within 0.4 ms, so the threads
# stay awake. Waking a thread may take 0.1 ms on a virtual machine, longer than a small product.
# OpenBLAS reads the setting once, when NumPy is first imported.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")


class _MovedModules:
    """An import finder that refuses the old name of a moved module, and reports the new name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise ImportError with the new name of a module that was moved."""
        if not name.startswith("nnopt."):
            return
        from nnopt.schema.moved_modules import MOVED_MODULES

        for old in (name, name.rpartition(".")[0]):
            if old in MOVED_MODULES:
                raise ImportError(f"{old} is now {MOVED_MODULES[old]}", name=name)


sys.meta_path.append(_MovedModules)
