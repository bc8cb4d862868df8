"""Reads a composed configuration into a ``Config``: checks keys, types, ranges and combinations.

All problems are reported together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from nnopt.config.rules import cross_field_problems
from nnopt.errors import CombinationError, ConfigError, Problem
from nnopt.schema import VARIANTS, Config, changed_rule
from nnopt.schema.reader import UNIONS, Reader, types_of

Record = TypeVar("Record")


def read_config(container: Mapping[str, Any]) -> Config:
    """Return the typed configuration of one point, from its resolved values.

    Raises ConfigError with all problems. The error is a CombinationError if each value is allowed,
    but the combination is not.
    """
    if message := changed_rule(container):
        raise ConfigError([message])
    if container.get("plugins"):
        from nnopt.config.plugins.load import activate_records  # not needed by most configurations

        activate_records(container["plugins"])
    reader = Reader()
    config: Config | None = reader.read_record(Config, container, "")
    refused = [problem.key for problem in reader.problems if isinstance(problem, Problem)]
    incomplete = bool(reader.problems)
    combined = cross_field_problems(config, incomplete, refused) if config else []
    if combined and not reader.problems:
        raise CombinationError(combined)
    reader.problems += combined
    checked: Config = reader.checked(config)
    return checked


def read_keys(record: type[Record], container: Mapping[str, Any], group: str) -> Record:
    """Read the keys of ``group`` into an instance of ``record``. Raises ConfigError."""
    reader = Reader()
    values: Record = reader.checked(reader.read_record(record, container, group))
    return values


def read_plugin(group: str, container: Mapping[str, Any]) -> Any:
    """Return the settings of ``hydra.sweeper`` or ``hydra.launcher``. Raises ConfigError."""
    reader = Reader()
    return reader.checked(reader.read_variant(group, container))


def known_keys(container: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of the schema, given the variants that ``container`` selects."""
    return [key for key, _ in _fields_of(Config, container, "")]


def takes_whole_numbers(key: str, container: Mapping[str, Any]) -> bool:
    """Return whether a key of the variants that ``container`` selects needs a whole number."""
    kind = dict(_fields_of(Config, container, "")).get(key)
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    kinds = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    return int in kinds and float not in kinds


def _fields_of(record: type, container: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a dataclass and the types of the values."""
    for name, kind in types_of(record).items():
        yield prefix + name, kind
        value = container.get(name) if isinstance(container, Mapping) else None
        if record is Config and name in VARIANTS:
            chosen = value.get("name") if isinstance(value, Mapping) else None
            kind = VARIANTS[name].get(chosen) if isinstance(chosen, str) else None
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _fields_of(kind, value, f"{prefix}{name}.")
