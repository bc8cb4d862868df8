"""From the overrides of one point to the point, many times over and quickly."""

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

from nnopt.config.hydra import compose_files, config_groups, one_line, parse_words, plain, word_of
from nnopt.config.point import Point, point_id
from nnopt.config.set_aside import Composed
from nnopt.config.validate import known_keys, read_config
from nnopt.errors import ConfigError
from nnopt.schema.reader import unknown_key

log = logging.getLogger("nnopt")

REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
ENVIRONMENT = re.compile(r"\$\{(?:oc|nnopt)\.env:[^${}]*\}")


class Composer:
    """Makes the points of a sweep, within one ``composing()``.

    Reading files and resolving interpolations is what takes the time, so what depends on the chosen
    files alone is done once for every choice of them.
    """

    def __init__(self) -> None:
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._parsed: dict[str, Override] = {}
        self._notes: set[str] = set()

    def remember(self, overrides: Sequence[Override], composed: Composed) -> None:
        """Keep the merged files that these overrides choose, so that they are not merged again."""
        choices = tuple(word_of(o) for o in overrides if o.key_or_group in config_groups())
        config = composed.config
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        self._bases[choices] = _Base(Composed(own, composed.set_aside))

    def point(self, words: Sequence[str]) -> Point:
        """The point that the overrides, of one value each, make. Raises ConfigError with all that
        is wrong with it, CombinationError if each value is allowed but not beside the others."""
        overrides = [self._parse(word) for word in words]
        groups = config_groups()
        values = [o for o in overrides if o.key_or_group not in groups]
        base = self._base(overrides)
        container, problems = base.with_values(values)
        try:
            config = read_config(container)
        except ConfigError as error:
            if not problems:
                raise
            raise ConfigError([*problems, *error.problems]) from None
        if problems:
            raise ConfigError(problems)
        self._note_values_set_aside(base, container, values)
        return Point(point_id(config), config, container, tuple(map(word_of, overrides)))

    def _note_values_set_aside(
        self, base: _Base, container: Mapping[str, Any], values: Sequence[Override]
    ) -> None:
        """Print a note, once, for each set of values that a file sets for another choice."""
        for values_aside in base.set_aside:
            section, given = container[values_aside.group], {o.key_or_group for o in values}
            message = values_aside.message(section, given)
            if message and message not in self._notes:
                self._notes.add(message)
                log.warning(message)

    def files(self, words: Sequence[str]) -> Mapping[str, Any]:
        """What the files compose to that the overrides choose, before keys are set. Raises
        ConfigError."""
        container, _ = self._base([self._parse(word) for word in words]).with_values([])
        return container

    def _base(self, overrides: Sequence[Override]) -> _Base:
        choices = tuple(word_of(o) for o in overrides if o.key_or_group in config_groups())
        if choices not in self._bases:
            self._bases[choices] = _Base(compose_files(choices))
        return self._bases[choices]

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            (self._parsed[word],) = parse_words([word])
        return self._parsed[word]


class _Base:
    """What some files compose to, before keys are set."""

    def __init__(self, composed: Composed) -> None:
        self._composed = composed.config
        self.set_aside = composed.set_aside

    def with_values(self, overrides: Sequence[Override]) -> tuple[Mapping[str, Any], list[str]]:
        """The resolved values with some keys set, and what is wrong with the keys. Raises
        ConfigError for what cannot be resolved."""
        try:
            known = self._known
            problems, settings = [], {}
            for override in overrides:
                key = override.key_or_group
                if key not in known:
                    problems.append(
                        unknown_key(key, [*known, *sorted(config_groups() - known.keys())])
                    )
                elif override.is_delete():
                    problems.append(f"{word_of(override)!r}: the key {key!r} cannot be left out")
                else:
                    settings[key] = override.value()
            if self._stands_alone(settings):
                return _with_all(self._resolved, settings), problems
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
        return dict.fromkeys(known_keys(self._resolved))  # in the order of the schema

    @cached_property
    def _references(self) -> frozenset[str] | None:
        """The keys that interpolations refer to; None if there are some that only OmegaConf can
        tell of."""
        found: set[str] = set()
        for text in _texts(OmegaConf.to_container(self._composed, resolve=False)):
            found.update(REFERENCE.findall(text))
            if "${" in REFERENCE.sub("", ENVIRONMENT.sub("", text)):
                return None
        return frozenset(found)

    def _stands_alone(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the values can be set without resolving other values again."""
        if self._references is None:
            return False
        return not any(
            key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.")
            for key in settings
            for name in self._references
        ) and not any("${" in text or text == "???" for text in _texts(settings))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _with_all(container: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the values set; what they leave alone is shared."""
    for key, value in settings.items():
        container = _with(container, key.split("."), value)
    return container


def _with(container: Any, keys: Sequence[str], value: Any) -> dict[str, Any]:
    before = container if isinstance(container, dict) else {}
    name, *rest = keys
    if rest:
        return {**before, name: _with(before.get(name), rest, value)}
    return {**before, name: _merged(before.get(name), value)}


def _merged(before: Any, value: Any) -> Any:
    """As OmegaConf merges: maps key by key, all else replaced."""
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **{key: _merged(before.get(key), item) for key, item in value.items()}}
    return value
