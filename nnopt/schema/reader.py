"""Conversion of plain values to the dataclasses of the configuration, with checks."""

from __future__ import annotations

import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from nnopt.errors import ConfigError, Problem, nearest, refused_value, suggest
from nnopt.schema.config import PLUGINS, VARIANTS, Config
from nnopt.schema.range import Entries, Names, Text
from nnopt.schema.renamed_keys import renamed_key
from nnopt.schema.tables import table

BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "below": ("below", operator.lt),
}
"""Attribute of ``Range`` -> the words for it in messages, and the comparison."""

NO_BOUNDS: Mapping[str, Any] = types.MappingProxyType({})

UNIONS = (types.UnionType, typing.Union)
"""The types of ``A | B``. The second type occurs if A or B is not a class."""

SWITCHES = {"off": False, "on": True}
"""Choices that YAML reads as boolean values unless they are quoted."""

QUOTE = "; quote the word"
"""The remedy for a boolean value of a key that needs a text."""


def unknown_key(key: str, known: Iterable[str]) -> Problem:
    """Return the problem of an unknown dotted key. ``known`` are the keys of the configuration.

    The message has the first hint that applies: the new name of a renamed key, the choices of the
    group that have the key, a similar key of the group, a key with the same name in another group,
    or the most similar key.
    """
    if message := renamed_key(key):
        return Problem(message, key)
    known = list(known)
    group, _, leaf = key.rpartition(".")
    owners = [
        f"{group.replace('hydra.', 'hydra/')}={name}"
        for name, record in variants_of(group).items()
        if leaf in types_of(record)
    ]
    if owners:
        return Problem(f"unknown key {key!r} here; it belongs to {', '.join(owners)}", key)
    siblings = [name for name in known if name.rpartition(".")[0] == group]
    leaves = {name.rpartition(".")[2]: name for name in siblings}
    close = leaves.get(nearest(leaf, leaves) or "")
    close = close or next((name for name in known if name.rpartition(".")[2] == leaf), None)
    if not close and not siblings:
        close = nearest(key, known)
    hint = f"did you mean {close!r}?" if close else f"known here: {', '.join(siblings or known)}"
    return Problem(f"unknown key {key!r}; {hint}", key)


def variants_of(group: str) -> Mapping[str, type]:
    """Return name -> dataclass of a group, or {} if all files of the group have the same keys."""
    return VARIANTS.get(group) or PLUGINS.get(group) or {}


@cache
def types_of(record: type[Any]) -> dict[str, Any]:
    """Return key -> annotated type of each field. The key of a field ``from_`` is ``from``."""
    hints = typing.get_type_hints(record, include_extras=True)
    return {f.name.rstrip("_"): hints[f.name] for f in fields(record)}


class Reader:
    """A reader of dataclasses and values. Results are valid only if ``problems`` stays empty."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read_record(self, record: type, container: Any, where: str) -> Any:
        """Convert the map at the dotted key ``where`` to ``record``. Return None if this fails."""
        prefix = f"{where}." if where else ""
        if not isinstance(container, Mapping):
            return self.refuse(
                where, container, f"needs a group of keys, such as {', '.join(types_of(record))}"
            )
        known = types_of(record)
        for key in container:
            if key not in known:
                all_keys = [prefix + name for name in known]
                self.problems.append(unknown_key(f"{prefix}{key}", all_keys))
        values = {}
        for spec in fields(record):
            name = spec.name.rstrip("_")
            key = prefix + name
            if name not in container and spec.default is not MISSING:
                values[spec.name] = spec.default  # a user's file of an earlier version
                continue
            if name not in container or container[name] == "???":
                self.problems.append(f"the key {key!r} is missing; set it with {key}=...")
                continue
            value = container[name]
            if record is Config and name in VARIANTS:
                values[spec.name] = self.read_variant(name, value)
            else:
                values[spec.name] = self.read_value(known[name], value, key)
        return record(**values) if len(values) == len(known) else None

    def read_variant(self, group: str, container: Any) -> Any:
        """Convert a group to the dataclass that its ``name`` selects. Return None if this fails."""
        variants = variants_of(group)
        name = container.get("name") if isinstance(container, Mapping) else container
        if not isinstance(name, str) or name not in variants:
            return self.refuse(f"{group}.name", name, suggest(name, variants))
        return self.read_record(variants[name], container, group)

    def read_value(
        self,
        kind: Any,
        value: Any,
        key: str,
        bounds: Mapping[str, Any] = NO_BOUNDS,
    ) -> Any:
        """Convert a value to ``kind``. Return None if it has another type or is out of range.

        ``bounds`` maps attributes of ``Range`` to the bounds of a number.
        """
        if isinstance(kind, type) and is_dataclass(kind):
            return self.read_record(kind, value, key)
        if get_origin(kind) is Annotated:
            kind, within = get_args(kind)
            if isinstance(within, Entries):
                return self._read_entries(within, value, key)
            if isinstance(within, Names):
                return self._read_names(kind, within, value, key)
            if isinstance(within, Text):
                text = self.read_value(kind, value, key)
                self._check_texts(within, text, key)
                return text
            bounds = {name: b for name, b in vars(within).items() if b is not None}
        members = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
        optional = type(None) in members
        if kind is Any or (optional and value is None):
            return value
        choices = [x for k in members if get_origin(k) is Literal for x in get_args(k)]
        kinds = tuple(k for k in members if k is not type(None) and get_origin(k) is not Literal)
        if not kinds:
            return self._read_choice(choices, value, key, optional)
        if get_origin(kinds[0]) is tuple:
            return self._read_list(get_args(kinds[0])[0], value, key, bounds)
        if value in choices:
            return value
        others = [*choices, "null"] if optional else choices
        return self._read_plain(kinds, value, key, bounds, others)

    def _check_texts(self, text: Text, value: Any, key: str) -> None:
        """Report a text, or a text in a list, that does not match the pattern."""
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str) and not re.fullmatch(text.pattern, item):
                self.refuse(key, item, f"needs {text.allowed}")

    def _read_entries(self, entries: Entries, container: Any, key: str) -> Any:
        """Check and return a map whose values must be texts, whole numbers or true."""
        if not isinstance(container, Mapping):
            example = f"{{{min(entries.keys)}: VALUE}}"
            return self.refuse(key, container, f"needs a map, such as {example}")
        for name, value in container.items():
            where = f"{key}.{name}"
            is_huge = isinstance(value, int) and abs(value) >= 2**63
            if str(name).replace("_", "-") not in entries.keys:
                self.problems.append(f"{where!r}: {suggest(name, sorted(entries.keys))}")
            elif value is False or not isinstance(value, str | int) or is_huge:
                quote = QUOTE if isinstance(value, bool) else ""
                self.refuse(where, value, f"needs a text, a whole number or true{quote}")
            else:
                self._check_texts(entries.text, value, where)
        return container

    def _read_names(self, kind: Any, names: Names, value: Any, key: str) -> Any:
        """Return a name, or a list of names, from a ``Literal`` and from a table."""
        if get_origin(kind) is not tuple:
            choices = list(dict.fromkeys([*get_args(kind), *table(names.table)]))
            return self._read_choice(choices, value, key, optional=False)
        if not isinstance(value, list | tuple):
            return self._read_list(str, value, key, NO_BOUNDS)
        choices = list(table(names.table))
        return tuple(
            self._read_choice(choices, item, f"{key}[{index}]", optional=False)
            for index, item in enumerate(value)
        )

    def _read_choice(self, choices: Sequence[Any], value: Any, key: str, optional: bool) -> Any:
        if isinstance(value, bool):
            value = next((word for word in choices if SWITCHES.get(word) is value), value)
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        names = [*map(str, choices), *(["null"] if optional else [])]
        remedy = "; write none" if value is False and "none" in names else ""
        return self.refuse(key, value, f"{suggest(value, names)}{remedy}")

    def _read_list(self, kind: Any, value: Any, key: str, bounds: Mapping[str, Any]) -> Any:
        if not isinstance(value, list | tuple):
            example = "" if value is None else f", such as [{value}]"
            return self.refuse(key, value, f"needs a list{example}")
        return tuple(
            self.read_value(kind, item, f"{key}[{index}]", bounds)
            for index, item in enumerate(value)
        )

    def _read_plain(
        self,
        kinds: tuple[Any, ...],
        value: Any,
        key: str,
        bounds: Mapping[str, Any],
        others: Sequence[str],
    ) -> Any:
        """Return a text, number or boolean. ``others`` are other allowed values, for messages."""
        if isinstance(value, bool) and bool not in kinds:
            matched = None
        elif float in kinds and isinstance(value, int | float):
            matched = _as_float(value)
        else:
            matched = value if isinstance(value, kinds) else None
        if matched is None:
            names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
            needed = " or ".join([*[names[k] for k in kinds], *others])
            hint = QUOTE if isinstance(value, bool) and str in kinds else ""
            if isinstance(value, float) and value.is_integer():
                hint = f"; write {int(value)}"
            return self.refuse(key, value, f"needs {needed}{hint}")
        if isinstance(matched, int | float) and not isinstance(matched, bool):
            allowed = " and ".join(f"{BOUNDS[name][0]} {bound}" for name, bound in bounds.items())
            if isinstance(matched, float) and not math.isfinite(matched):
                return self.refuse(key, matched, f"needs a finite number, {allowed}")
            if not all(BOUNDS[name][1](matched, bound) for name, bound in bounds.items()):
                return self.refuse(key, matched, f"needs to be {allowed}")
        return matched

    def checked(self, values: Any) -> Any:
        """Return ``values``. Raises ConfigError if this reader has found problems."""
        if values is None or self.problems:
            raise ConfigError(self.problems)
        return values

    def refuse(self, key: str, value: Any, reason: str) -> None:
        """Add the problem ``KEY = VALUE: REASON``."""
        self.problems.append(refused_value(key, value, reason))


def _as_float(value: float) -> float:
    """Return a number as a float. A number that is too large becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
