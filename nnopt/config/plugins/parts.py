"""The parts of the components of plug-ins, as the tables need them, and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from nnopt.architecture.inference import InferredLayer, Layer
from nnopt.architecture.plugins import PluginLayer
from nnopt.schema.reader import Reader, types_of
from nnopt.schema.tables import Component

Functions = tuple[Callable[..., Any], Callable[..., Any]]
"""The forward and the backward function of an operation in NumPy."""

Entry = tuple[str, Any, Any]
"""The name of a table, a key and a value."""


def check_defaults(component: Component, record: type) -> None:
    """Raise ConfigError if a type cannot be read, or a default is out of range."""
    assert is_dataclass(record)
    reader = Reader()
    with component.running(record.__name__):
        types = types_of(record)
        for field in fields(record):
            if field.default is not MISSING:
                key = field.name.rstrip("_")
                value = field.default
                plain = vars(value) if is_dataclass(value) else value
                reader.read_value(types[key], plain, key)
    if reader.problems:
        raise component.error(f"has a wrong default: {reader.problems[0]}")


def layer_parts(
    component: Component,
    record: type[Layer],
    numpy: Functions | None,
    torch: Callable[..., Any] | None,
    module: Callable[..., Any] | None,
) -> list[Entry]:
    """Return the entries of the two backends. PyTorch is imported when a network is built."""
    entries: list[Entry] = []
    if numpy is not None:
        from nnopt.backends.numpy.plugins import activation_operation, layer_operation

        is_layer = issubclass(record, PluginLayer)
        operation = layer_operation if is_layer else activation_operation
        entries.append(("layer/numpy", record, operation(component, *numpy)))
    if torch is not None or module is not None:

        def build(layer: InferredLayer) -> Any:
            from nnopt.backends.torch.plugins import FunctionLayer, module_layer

            if module is not None:
                return module_layer(component, module, layer)
            assert torch is not None
            return FunctionLayer(layer, torch)

        entries.append(("layer/torch", record, build))
    return entries


def lazy_loss(component: Component, function: Any, takes_targets: bool) -> Callable[[Any], Any]:
    """Return a factory of a loss, which imports PyTorch when it is called."""

    def build(config: Any) -> Any:
        from nnopt.backends.torch.plugins import build_loss

        return build_loss(config, function, takes_targets)

    return build


def lazy_evaluation(function: Any, takes_targets: bool) -> Callable[..., float]:
    """Return the evaluation of a loss, which imports PyTorch when it is called."""

    def evaluate(config: Any, logits: Any, labels: Any) -> float:
        from nnopt.backends.torch.plugins import evaluate_loss

        return evaluate_loss(function, takes_targets, logits, labels)

    return evaluate


def checked_factor(
    component: Component, factor: Callable[..., float]
) -> Callable[[Any, int, int, int], float]:
    """Return the function of a schedule, with a check of its results."""

    def checked(config: Any, step: int, steps: int, steps_per_epoch: int) -> float:
        with component.running("factor"):
            value = float(factor(config, step, steps, steps_per_epoch))
        if not (math.isfinite(value) and value >= 0):
            raise component.error(
                f"returns the factor {value} at step {step} of {steps}, expected a finite number "
                "of at least 0"
            )
        return value

    return checked
