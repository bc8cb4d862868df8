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
from dataclasses import dataclass
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
from nnopt.config.plugin_source import with_records
from nnopt.config.point import Point, point_id
from nnopt.config.set_aside import Composed
from nnopt.config.start_weights import with_start_weights
from nnopt.config.validate import known_keys, read_config
from nnopt.errors import ConfigError, Problems
from nnopt.schema.reader import unknown_key

log = logging.getLogger("nnopt")

REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
ENVIRONMENT = re.compile(r"\$\{(?:oc|nnopt)\.env:[^${}]*\}")


@dataclass(frozen=True)
class StoredConfig:
    """The resolved configuration of a run, and the overrides that led to it."""

    container: Mapping[str, Any]
    overrides: tuple[str, ...]

    def overrides_with(self, parsed: Sequence[Override]) -> tuple[str, ...]:
        """Return the stored overrides that ``parsed`` does not replace, and those of ``parsed``."""
        replaced = {override.key_or_group for override in parsed}
        kept = []
        for text in self.overrides:
            key = text.lstrip("+~").partition("=")[0]
            if not replaced & {key, key.partition(".")[0]}:
                kept.append(text)
        return (*kept, *map(override_text, parsed))


class ConfigResolver:
    """Resolves the points of a sweep. All calls must be within the same ``composing()``.

    By default, overrides change the values of the YAML files. With ``base``, they change the
    configuration of a run, and only chosen files of groups are read.
    """

    def __init__(self, base: StoredConfig | None = None) -> None:
        self._base = base
        self._by_choices: dict[tuple[str, ...], _ComposedFiles] = {}
        self._parsed: dict[str, Override] = {}
        self._printed_notes: set[str] = set()

    def remember(self, overrides: Sequence[Override], composed: Composed) -> None:
        """Store the merged files that overrides choose, so that they are not merged again."""
        config = composed.config
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        choices = _choices(overrides)
        self._by_choices[choices] = self._files_of(Composed(own, composed.set_aside), choices)

    def point(self, overrides: Sequence[str]) -> Point:
        """Return the point of overrides that have a single value each.

        Raises ConfigError with all problems. The error is a CombinationError if each value is
        allowed, but the combination is not.
        """
        parsed = [self._parse(text) for text in overrides]
        values = [o for o in parsed if o.key_or_group not in config_groups()]
        files = self._composed_files(parsed)
        container, problems = files.with_values(values)
        container = with_records(container)
        try:
            config = read_config(container)
        except ConfigError as error:
            if not problems:
                raise
            problems += error.problems
        problems.check()
        config, container = with_start_weights(config, container)
        given = {o.key_or_group for o in values}
        for values_aside in files.set_aside:
            note = values_aside.message(container[values_aside.group], given)
            if note and note not in self._printed_notes:
                self._printed_notes.add(note)
                log.warning(note)
        texts = tuple(map(override_text, parsed))
        if self._base is not None:
            texts = self._base.overrides_with(parsed)
        return Point(point_id(config), config, container, texts)

    def files(self, overrides: Sequence[str]) -> Mapping[str, Any]:
        """Return the values of the files that overrides choose. Raises ConfigError."""
        parsed = [self._parse(text) for text in overrides]
        return self._composed_files(parsed).with_values([])[0]

    def _composed_files(self, overrides: Sequence[Override]) -> _ComposedFiles:
        choices = _choices(overrides)
        if choices not in self._by_choices:
            needs_files = choices or self._base is None
            composed = compose_files(choices) if needs_files else Composed(OmegaConf.create(), ())
            self._by_choices[choices] = self._files_of(composed, choices)
        return self._by_choices[choices]

    def _files_of(self, composed: Composed, choices: Sequence[str]) -> _ComposedFiles:
        if self._base is None:
            return _ComposedFiles(composed)
        groups = [choice.lstrip("+").partition("=")[0] for choice in choices]
        return _StoredValues(composed, self._base.container, groups)

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


class _StoredValues(_ComposedFiles):
    """The values of a run, with other files for some groups."""

    def __init__(
        self, composed: Composed, container: Mapping[str, Any], groups: Sequence[str]
    ) -> None:
        super().__init__(Composed(composed.config, ()))
        self._stored, self._groups = container, groups

    def with_values(self, overrides: Sequence[Override]) -> tuple[Mapping[str, Any], Problems]:
        """Return the values of the run with the chosen files and the overrides."""
        for override in overrides:
            if any("${" in text for text in _texts(override.value())):
                text = override_text(override)
                raise ConfigError(f"{text!r} changes a stored run, and needs a plain value")
        container, problems = super().with_values(overrides)
        given = {override.key_or_group for override in overrides}
        if "name" not in given and self._stored.get("name") == _default_name(self._stored):
            container = {**container, "name": _default_name(container)}
        return container, problems

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        files = plain(self._composed) if self._groups else {}
        return {**self._stored, **{group: files[group] for group in self._groups}}

    def _affects_references(self, settings: Mapping[str, Any]) -> bool:
        return False


def _default_name(container: Mapping[str, Any]) -> str:
    """Return the value of the key ``name`` in ``config.yaml``."""
    names = [container.get(group) for group in ("dataset", "architecture")]
    return "_".join(str(x.get("name")) for x in names if isinstance(x, Mapping))


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
