"""Layer records out of the YAML list ``architecture.layers``.

In YAML a layer is its name, its name with its one main argument, or its name with all arguments:
``relu``, ``{dense: 64}``, ``{batch_norm: {momentum: 0.05}}``, ``{residual: [{dense: 64}, tanh]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from nnopt.architecture.layers import LAYERS, Layer, Residual
from nnopt.errors import ConfigError, suggest

NUMBERS: dict[str, tuple[str, Any]] = {
    "slope": ("in [0, 1)", lambda v: 0 <= v < 1),
    "rate": ("in [0, 1)", lambda v: 0 <= v < 1),
    "momentum": ("in (0, 1]", lambda v: 0 < v <= 1),
    "epsilon": ("above 0", lambda v: 0 < v < float("inf")),
}
"""Arguments that are any number in a range."""

LEAST = {
    "units": 1,
    "channels": 1,
    "kernel": 1,
    "size": 1,
    "stride": 1,
    "padding": 0,
    "groups": 1,
}
"""Arguments that are a whole number: the least one."""


def parse_layers(items: Sequence[Any], where: str = "architecture.layers") -> tuple[Layer, ...]:
    """Read a YAML list of layers.

    Raises ConfigError naming every item that is no layer, or has a wrong argument.
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


def _parse_layer(item: Any, where: str) -> Layer:
    name, arguments = item, None
    if isinstance(item, Mapping) and len(item) == 1:
        ((name, arguments),) = item.items()
    if not isinstance(name, str):
        raise ConfigError(f"{where}: {item!r} is no layer; write a name or {{name: arguments}}")
    if name not in LAYERS:
        raise ConfigError(f"{where}: unknown layer {name!r}; {suggest(name, LAYERS)}")
    return _make_layer(LAYERS[name], arguments, f"{where}.{name}")


def _make_layer(record: type[Layer], arguments: Any, where: str) -> Layer:
    """Build one record out of nothing, its main (first) argument, or a mapping of arguments."""
    known, kinds = {f.name: f for f in fields(record)}, get_type_hints(record)
    if arguments is None:
        arguments = {}
    elif not isinstance(arguments, Mapping):
        if not known:
            raise ConfigError(f"{where}: takes no argument, got {arguments!r}")
        arguments = {next(iter(known)): arguments}
    problems = []
    for key in arguments:
        if key not in known:
            allowed = ", ".join(known) or "none"
            problems.append(f"{where}: unknown argument {key!r}; allowed: {allowed}")
    for key, spec in known.items():
        if key in arguments:
            problems += _problems_of_argument(f"{where}.{key}", key, kinds[key], arguments[key])
        elif spec.default is MISSING:
            problems.append(f"{where}: the argument {key!r} is missing")
    if problems:
        raise ConfigError(problems)
    if record is Residual:
        branches = {key: parse_layers(items, f"{where}.{key}") for key, items in arguments.items()}
        return Residual(**branches)
    return record(**arguments)


def _problems_of_argument(where: str, key: str, kind: Any, value: Any) -> list[str]:
    """Type and range of one argument of a layer."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if key in ("layers", "shortcut"):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        if is_list and (value or key == "shortcut"):
            return []
        allowed = "a list of layers" if key == "shortcut" else "a list of at least one layer"
    elif key in ("bias", "frozen"):
        if isinstance(value, bool):
            return []
        allowed = "true or false"
    elif key in LEAST:
        words = _words(kind)
        if (is_whole and value >= LEAST[key]) or value in words:
            return []
        allowed = f"a whole number of at least {LEAST[key]}"
        allowed += "".join(f", or {'null' if word is None else repr(word)}" for word in words)
    else:
        interval, holds = NUMBERS[key]
        if (is_whole or isinstance(value, float)) and holds(value):
            return []
        allowed = f"a number {interval}"
    return [f"{where} = {value!r}: needs {allowed}"]


def _words(kind: Any) -> list[str | None]:
    """What may stand for a whole number: ``int | Literal["same"] | None`` -> "same", None."""
    words: list[str | None] = []
    for alternative in get_args(kind):
        if alternative is NoneType:
            words.append(None)
        words += get_args(alternative)
    return words
