"""Reads plain values into the dataclasses of the configuration, and checks types and ranges."""

from __future__ import annotations

import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from nnopt.errors import Problem, nearest, refused_value, suggest
from nnopt.schema.config import VARIANTS, Config
from nnopt.schema.launcher import LAUNCHERS
from nnopt.schema.range import Entries, Text
from nnopt.schema.renamed_keys import renamed_key
from nnopt.schema.sweeper import SWEEPERS

BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "below": ("below", operator.lt),
}
"""The bounds of a ``schema.Range`` -> how to say and how to check them."""

UNIONS = (types.UnionType, typing.Union)
"""What ``A | B`` is, and what it is if one of them is no class."""

NO_BOUNDS: Mapping[str, Any] = types.MappingProxyType({})

PLUGINS: Mapping[str, Mapping[str, type]] = {
    "hydra.sweeper": SWEEPERS,
    "hydra.launcher": LAUNCHERS,
}
"""Which points a sweep has, and who runs them: group -> value of its ``name`` -> the dataclass."""

SWITCHES = {"off": False, "on": True}
"""Choices that YAML reads as truth values, unless they are quoted."""


QUOTE = "; quote the word"
"""The remedy for a truth value in the place of a text."""


def unknown_key(key: str, known: Iterable[str]) -> Problem:
    """Return the message about an unknown key.

    It names the new key of a renamed one, the choices of the group that have the key, or the
    nearest known key: similar in the same group, of the same name in another group, or similar
    as a whole.

    Args:
        key: The dotted key.
        known: All dotted keys of the present choices.
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
    close = close or (None if siblings else nearest(key, known))
    if close:
        return Problem(f"unknown key {key!r}; did you mean {close!r}?", key)
    return Problem(f"unknown key {key!r}; known here: {', '.join(siblings or known)}", key)


def variants_of(group: str) -> Mapping[str, type]:
    """The dataclasses of a group by their ``name``; none if it has the same keys in every file."""
    return VARIANTS.get(group) or PLUGINS.get(group) or {}


def is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


@cache
def types_of(record: type[Any]) -> dict[str, Any]:
    """Field -> its type, ranges included."""
    hints = typing.get_type_hints(record, include_extras=True)
    return {f.name: hints[f.name] for f in fields(record)}


class Reader:
    """Reads records and values, and collects all problems.

    A returned value is valid only if ``problems`` is empty.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read_record(self, record: type, container: Any, where: str) -> Any:
        prefix = f"{where}." if where else ""
        if not is_map(container):
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
            key = prefix + spec.name
            if spec.name not in container or container[spec.name] == "???":
                self.problems.append(f"the key {key!r} is missing; set it with {key}=...")
                continue
            value = container[spec.name]
            if record is Config and spec.name in VARIANTS:
                values[spec.name] = self.read_variant(spec.name, value)
            else:
                values[spec.name] = self.read_value(known[spec.name], value, key)
        return record(**values) if set(values) == set(known) else None

    def read_variant(self, group: str, container: Any) -> Any:
        """A group whose dataclass is found by its ``name``."""
        variants = variants_of(group)
        name = container.get("name") if is_map(container) else container
        if not isinstance(name, str) or name not in variants:
            return self.refuse(f"{group}.name", name, suggest(name, variants))
        return self.read_record(variants[name], container, group)

    def read_value(
        self, kind: Any, value: Any, key: str, bounds: Mapping[str, Any] = NO_BOUNDS
    ) -> Any:
        """A value of the type ``kind``: a plain one, a choice, a list, a record, a word in the
        place of a number, or null."""
        if isinstance(kind, type) and is_dataclass(kind):
            return self.read_record(kind, value, key)
        if get_origin(kind) is Annotated:
            kind, within = get_args(kind)
            if isinstance(within, Entries):
                return self._read_entries(within, value, key)
            if isinstance(within, Text):
                found = self.read_value(kind, value, key)
                self._check_texts(within, found, key)
                return found
            bounds = {name: b for name in BOUNDS if (b := getattr(within, name)) is not None}
        origin, arguments = get_origin(kind), get_args(kind)
        optional = origin in UNIONS and type(None) in arguments
        if optional:
            if value is None:
                return None
            kind = typing.Union[tuple(x for x in arguments if x is not type(None))]  # noqa: UP007
            origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return self._read_choice(arguments, value, key, optional)
        if origin is tuple:
            return self._read_list(arguments[0], value, key, bounds)
        if kind is Any:
            return value
        kinds = arguments if origin in UNIONS else (kind,)
        words = [w for k in kinds if get_origin(k) is Literal for w in get_args(k)]
        if value in words:
            return value
        kinds = tuple(k for k in kinds if get_origin(k) is not Literal)
        others = [*words, "null"] if optional else words
        return self._read_plain(kinds, value, key, bounds, others)

    def _check_texts(self, text: Text, value: Any, key: str) -> None:
        """Note a text, or a text in a list, that does not have the pattern."""
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str) and not re.fullmatch(text.pattern, item):
                self.refuse(key, item, f"needs {text.allowed}")

    def _read_entries(self, entries: Entries, container: Any, key: str) -> Any:
        """A map whose values are texts, whole numbers or true."""
        if not is_map(container):
            example = f"{{{next(iter(sorted(entries.keys)))}: VALUE}}"
            return self.refuse(key, container, f"needs a map, such as {example}")
        for name, value in container.items():
            where = f"{key}.{name}"
            if str(name).replace("_", "-") not in entries.keys:
                known = sorted(entries.keys)
                self.problems.append(f"{where!r}: {suggest(name, known)}")
            elif value is False or not isinstance(value, str | int) or _is_huge(value):
                quote = QUOTE if isinstance(value, bool) else ""
                self.refuse(where, value, f"needs a text, a whole number or true{quote}")
            else:
                self._check_texts(entries.text, value, where)
        return container

    def _read_choice(self, choices: tuple[Any, ...], value: Any, key: str, optional: bool) -> Any:
        if isinstance(value, bool):
            value = next((word for word in choices if SWITCHES.get(word) is value), value)
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        names = [str(choice) for choice in choices] + (["null"] if optional else [])
        right = "; write none" if value is False and "none" in names else ""
        return self.refuse(key, value, f"{suggest(value, names)}{right}")

    def _read_list(self, kind: Any, value: Any, key: str, bounds: Mapping[str, Any]) -> Any:
        if not isinstance(value, list | tuple):
            return self.refuse(key, value, f"needs a list, such as [{value}]")
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
        """A text, a number or a truth value; ``others``: what else the key may be set to."""
        if isinstance(value, bool) and bool not in kinds:
            matched = None
        elif float in kinds and isinstance(value, int | float):
            matched = _as_float(value)
        else:
            matched = value if isinstance(value, kinds) else None
        if matched is None:
            names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
            wanted = " or ".join([*[names[k] for k in kinds], *others])
            hint = (
                f"; write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
            )
            if isinstance(value, bool) and str in kinds:
                hint = QUOTE
            return self.refuse(key, value, f"needs {wanted}{hint}")
        if isinstance(matched, int | float) and not isinstance(matched, bool):
            allowed = " and ".join(f"{BOUNDS[name][0]} {bound}" for name, bound in bounds.items())
            if isinstance(matched, float) and not math.isfinite(matched):
                return self.refuse(key, matched, f"needs a finite number, {allowed}")
            if not all(BOUNDS[name][1](matched, bound) for name, bound in bounds.items()):
                return self.refuse(key, matched, f"needs to be {allowed}")
        return matched

    def refuse(self, key: str, value: Any, reason: str) -> None:
        """Add the problem ``KEY = VALUE: REASON``."""
        self.problems.append(refused_value(key, value, reason))


def _is_huge(value: str | int) -> bool:
    return isinstance(value, int) and abs(value) >= 2**63


def _as_float(value: float) -> float:
    """The number in floating point; infinite where it is too large for that."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
