"""Reads layer records from the YAML list ``architecture.layers``.

In YAML, a layer is a name, a name with the main argument, or a name with several arguments:
``relu``, ``{dense: 64}``, ``{batch_norm: {momentum: 0.05}}``, ``{residual: [{dense: 64}, tanh]}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from nnopt.architecture.inference import Layer
from nnopt.architecture.layers import LAYERS, Conv2d, Dense, Residual
from nnopt.errors import ConfigError, refused_value, suggest
from nnopt.schema import ArchitectureVariant, LayersConfig, MlpConfig
from nnopt.schema.reader import Reader, types_of


def parse_layers(items: Sequence[Any], where: str = "architecture.layers") -> tuple[Layer, ...]:
    """Parse a YAML list of layers. ``where`` is the key of the list, for messages.

    Raises:
        ConfigError: A layer is unknown or an argument is invalid. The message lists all problems.
    """
    layers, problems = [], []
    for index, item in enumerate(items):
        try:
            layers.append(_parse_layer(item, f"{where}[{index}]"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tuple(layers)


def initializer_keys(architecture: ArchitectureVariant) -> tuple[str, ...]:
    """Return the keys of ``initializer`` that draw weights: output and, with hidden layers, hidden.

    Raises ConfigError if a layer of ``architecture.layers`` is invalid.
    """
    has_hidden = True
    if isinstance(architecture, MlpConfig):
        has_hidden = bool(architecture.hidden)
    elif isinstance(architecture, LayersConfig):
        has_hidden = _count_weights(parse_layers(architecture.layers)) > 1
    return ("hidden", "output") if has_hidden else ("output",)


def _count_weights(layers: Iterable[Layer]) -> int:
    """Return the number of dense and convolution layers, including those of residual layers."""
    return sum(
        _count_weights((*layer.layers, *layer.shortcut))
        if isinstance(layer, Residual)
        else isinstance(layer, Dense | Conv2d)
        for layer in layers
    )


def layer_items(layers: Iterable[Any], complete: bool = False) -> list[Any]:
    """Return the YAML list of layer records, from which ``parse_layers`` makes equal records.

    By default, arguments with their default value are left out. With ``complete``, the list has all
    arguments, so that it keeps its meaning if a later version changes a default.
    """
    return [_layer_item(layer, complete) for layer in layers]


def _layer_item(layer: Layer, complete: bool) -> Any:
    values = {
        field.name: layer_items(value, complete) if isinstance(value, tuple) else value
        for field in fields(layer)
        if (value := getattr(layer, field.name)) != field.default or complete
    }
    if not values:
        return layer.kind
    if complete:
        return {layer.kind: values}
    first = fields(layer)[0].name
    return {layer.kind: values[first] if [*values] == [first] else values}


def _parse_layer(item: Any, where: str) -> Layer:
    name, arguments = item, None
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, arguments),) = item.items()
    if not isinstance(name, str):
        raise ConfigError(
            refused_value(where, item, "needs a layer, as a name or {name: arguments}")
        )
    if name not in LAYERS:
        raise ConfigError(f"{where}: unknown layer {name!r}; {suggest(name, LAYERS)}")
    return _make_layer(LAYERS[name], arguments, f"{where}.{name}")


def _make_layer(record: type[Layer], arguments: Any, where: str) -> Layer:
    """Make a record from None, the main (first) argument, or a mapping of arguments."""
    types = types_of(record)  # type: ignore[arg-type]  # classes are hashable
    if arguments is None:
        arguments = {}
    elif not isinstance(arguments, Mapping):
        if not types:
            raise ConfigError(f"{where}: takes no argument, got {arguments!r}")
        arguments = {next(iter(types)): arguments}
    reader, values, allowed = Reader(), {}, ", ".join(types) or "none"
    unknown = [key for key in arguments if key not in types]
    reader.problems += [f"{where}: unknown argument {x!r}; allowed: {allowed}" for x in unknown]
    for argument in fields(record):
        key = argument.name
        is_required = argument.default is MISSING
        if key in arguments and record is Residual:
            try:
                values[key] = _parse_branch(arguments[key], f"{where}.{key}", is_required)
            except ConfigError as error:
                reader.problems += error.problems
        elif key in arguments:
            values[key] = reader.read_value(types[key], arguments[key], f"{where}.{key}")
        elif is_required:
            reader.problems.append(f"{where}: the argument {key!r} is missing")
    reader.checked(values)
    return record(**values)


def _parse_branch(items: Any, where: str, is_required: bool) -> tuple[Layer, ...]:
    is_list = isinstance(items, Sequence) and not isinstance(items, str)
    if not is_list or (is_required and not items):
        least = " with at least one layer" if is_required else ""
        raise ConfigError(refused_value(where, items, f"needs a list of layers{least}"))
    return parse_layers(items, where)
