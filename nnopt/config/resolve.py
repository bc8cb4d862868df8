"""Resolves the configuration of each point from its overrides.

Hydra takes about 0.3 s to compose YAML files. This module therefore composes the files and resolves
interpolations only once for each choice of files, and sets the values of each point in plain dicts.
``benchmarks/sweep.py`` requires that a point takes at most 100 ms in addition to the training.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nnopt.config.hydra import (
    compose_files,
    config_groups,
    one_line,
    override_text,
    parse_overrides,
    plain,
)
from nnopt.config.point import Point, point_id
from nnopt.config.set_aside import Composed
from nnopt.config.validate import known_keys, read_config
from nnopt.errors import ConfigError, Problems
from nnopt.schema.reader import unknown_key

log = logging.getLogger("nnopt")

REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
ENVIRONMENT = re.compile(r"\$\{(?:oc|nnopt)\.env:[^${}]*\}")


class ConfigResolver:
    """Resolves the points of a sweep. All calls must be within the same ``composing()``."""

    def __init__(self) -> None:
        self._by_choices: dict[tuple[str, ...], _ComposedFiles] = {}
        self._parsed: dict[str, Override] = {}
        self._printed_notes: set[str] = set()

    def remember(self, overrides: Sequence[Override], composed: Composed) -> None:
        """Store the merged files that overrides choose, so that they are not merged again."""
        config = composed.config
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        files = _ComposedFiles(Composed(own, composed.set_aside))
        self._by_choices[_choices(overrides)] = files

    def point(self, overrides: Sequence[str]) -> Point:
        """Return the point of overrides that have a single value each.

        Raises ConfigError with all problems. The error is a CombinationError if each value is
        allowed, but the combination is not.
        """
        parsed = [self._parse(text) for text in overrides]
        values = [o for o in parsed if o.key_or_group not in config_groups()]
        files = self._composed_files(parsed)
        container, problems = files.with_values(values)
        try:
            config = read_config(container)
        except ConfigError as error:
            if not problems:
                raise
            problems += error.problems
        problems.check()
        given = {o.key_or_group for o in values}
        for values_aside in files.set_aside:
            note = values_aside.message(container[values_aside.group], given)
            if note and note not in self._printed_notes:
                self._printed_notes.add(note)
                log.warning(note)
        return Point(point_id(config), config, container, tuple(map(override_text, parsed)))

    def files(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        """Return the values of the files that overrides choose. Raises ConfigError."""
        parsed = [self._parse(text) for text in overrides]
        return self._composed_files(parsed).with_values([])[0]

    def _composed_files(self, overrides: Sequence[Override]) -> _ComposedFiles:
        choices = _choices(overrides)
        if choices not in self._by_choices:
            self._by_choices[choices] = _ComposedFiles(compose_files(choices))
        return self._by_choices[choices]

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            (self._parsed[text],) = parse_overrides([text])
        return self._parsed[text]


def _choices(overrides: Sequence[Override]) -> tuple[str, ...]:
    return tuple(override_text(o) for o in overrides if o.key_or_group in config_groups())


class _ComposedFiles:
    """The merged YAML files of one choice of files, without the values of a point."""

    def __init__(self, composed: Composed) -> None:
        self._composed = composed.config
        self.set_aside = composed.set_aside

    def with_values(self, overrides: Sequence[Override]) -> tuple[Mapping[str, Any], Problems]:
        """Return the resolved values, and the problems of refused keys. Raises ConfigError."""
        try:
            problems, settings = Problems(), {}
            for override in overrides:
                key = override.key_or_group
                if key not in self._known:
                    groups = sorted(config_groups() - self._known.keys())
                    problems.append(unknown_key(key, [*self._known, *groups]))
                elif override.is_delete():
                    text = override_text(override)
                    problems.append(f"{text!r}: the key {key!r} cannot be left out")
                else:
                    settings[key] = override.value()
            if not self._affects_references(settings):
                container = self._resolved
                for key, value in settings.items():
                    container = _with_value(container, key.split("."), value)
                return container, problems
            composed = copy.deepcopy(self._composed)
            OmegaConf.set_struct(composed, False)
            for key, value in settings.items():
                OmegaConf.update(composed, key, value, merge=True)
            return plain(composed), problems
        except OmegaConfBaseException as error:
            raise ConfigError(one_line(error)) from None

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        return plain(self._composed)

    @cached_property
    def _known(self) -> Mapping[str, None]:
        return dict.fromkeys(known_keys(self._resolved))  # keys in the order of the schema

    @cached_property
    def _references(self) -> frozenset[str] | None:
        """The keys to which interpolations refer, or None if only OmegaConf can find them."""
        keys: set[str] = set()
        for text in _texts(OmegaConf.to_container(self._composed, resolve=False)):
            keys.update(REFERENCE.findall(text))
            if "${" in REFERENCE.sub("", ENVIRONMENT.sub("", text)):
                return None
        return frozenset(keys)

    def _affects_references(self, settings: Mapping[str, Any]) -> bool:
        """Return whether interpolations must be resolved again after ``settings`` are applied."""
        if self._references is None or any("${" in x or x == "???" for x in _texts(settings)):
            return True
        pairs = ((f"{key}.", f"{name}.") for key in settings for name in self._references)
        return any(key.startswith(name) or name.startswith(key) for key, name in pairs)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _with_value(before: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a copy of a container with a value set at a path of keys. Maps are merged."""
    if keys:
        container = before if isinstance(before, dict) else {}
        name, *rest = keys
        return {**container, name: _with_value(container.get(name), rest, value)}
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **{key: _with_value(before.get(key), (), x) for key, x in value.items()}}
    return value
