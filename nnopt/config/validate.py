"""From the composed YAML to a ``Config``: every key, type, range and combination checked.

All problems are found in one pass and reported together; nothing is imported, loaded or written
before a configuration has passed.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from nnopt.config.rules import cross_field_problems
from nnopt.errors import CombinationError, ConfigError
from nnopt.schema import VARIANTS, Config
from nnopt.schema.reader import UNIONS, Reader, is_map, types_of

Record = TypeVar("Record")


def read_config(container: Mapping[str, Any]) -> Config:
    """The typed configuration of one point.

    container: the composed and resolved YAML, without Hydra's own part.
    Raises ConfigError with every problem found: CombinationError, if each value is allowed and only
    their combination is not.
    """
    reader = Reader()
    config = reader.read_record(Config, container, "")
    combined = []
    if config is not None:
        combined = cross_field_problems(config, incomplete=bool(reader.problems))
    if config is None or reader.problems:
        raise ConfigError(reader.problems + combined)
    if combined:
        raise CombinationError(combined)
    return typing.cast(Config, config)


def read_keys(record: type[Record], container: Mapping[str, Any], where: str) -> Record:
    """A record of keys that are no part of the configuration, such as a verb's own.

    where: what stands before the dot in their names. Raises ConfigError with every problem found.
    """
    reader = Reader()
    values = reader.read_record(record, container, where)
    if values is None or reader.problems:
        raise ConfigError(reader.problems)
    return typing.cast(Record, values)


def read_engine(group: str, container: Mapping[str, Any]) -> Any:
    """The settings of a sweeper or a launcher, the record of ``ENGINES[group]`` that its ``name``
    says. Raises ConfigError with every problem found."""
    reader = Reader()
    values = reader.read_variant(group, container)
    if values is None or reader.problems:
        raise ConfigError(reader.problems)
    return values


def known_keys(container: Mapping[str, Any]) -> list[str]:
    """Every dotted key that the schema allows, given the names chosen in ``container``."""
    return list(_keys_of(Config, container, ""))


def takes_whole_numbers(key: str, container: Mapping[str, Any]) -> bool:
    """Is the dotted key, of a group as chosen in ``container``, one of whole numbers alone?"""
    value: Any = container
    record: type = Config
    *groups, leaf = key.split(".")
    for name in groups:
        value = value.get(name) if is_map(value) else None
        inner = _record_at(record, name, value)
        if inner is None:
            return False
        record = inner
    kind = types_of(record).get(leaf)
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    kinds = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    return int in kinds and float not in kinds


def _keys_of(record: type, container: Any, prefix: str) -> Iterator[str]:
    for name in types_of(record):
        key = prefix + name
        yield key
        inner = _record_at(record, name, container.get(name) if is_map(container) else None)
        if inner is not None:
            nested = container.get(name, {}) if is_map(container) else {}
            yield from _keys_of(inner, nested, f"{key}.")


def _record_at(record: type, name: str, value: Any) -> type | None:
    """The dataclass that the field ``name`` holds, or None where it holds a plain value, or is
    none."""
    if record is Config and name in VARIANTS:
        variants = VARIANTS[name]
        chosen = value.get("name") if is_map(value) else None
        return variants.get(chosen) if isinstance(chosen, str) else None
    kind = types_of(record).get(name)
    return kind if isinstance(kind, type) and is_dataclass(kind) else None
