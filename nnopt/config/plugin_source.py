"""The plug-ins that overrides and the user's files name, and their choices in config groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from yaml import MappingNode, SequenceNode

from nnopt.config.conf_file import EXPERIMENTS, PRIMARY, defaults_of
from nnopt.config.conf_source import UserSource
from nnopt.config.grammar import flatten_sweeps, functions
from nnopt.config.yaml_file import line_of, nodes_of, shown_path, text_of
from nnopt.errors import ConfigError, Problems
from nnopt.schema.tables import COMPONENTS, table

KEY = "plugins"

SCHEME = "nnopt-plugins"

GROUPS = ("dataset", "optimizer", "schedule")
"""The config groups to which plug-ins add files."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "dataset": {
        "subset": None,
        "normalization": "standard",
        "validation": {"source": "train", "fraction": 0.2},
    },
    "schedule": {"warmup_epochs": 0},
}
"""Group -> defaults of the keys of all its choices, for classes that set no other default."""


class PluginSource(ConfigSource):
    """The choices of the active plug-ins, as if each were a YAML file with the default values."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the source's URL."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the default values of a choice. A key without default is ``???``."""
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        config = OmegaConf.create(default_values(group, name))
        return ConfigResult(self.provider, f"{SCHEME}://{self.path}", config, {"package": None})

    def available(self) -> bool:
        """Return True."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return whether a plug-in adds a choice to the group."""
        return bool(self.list(config_path, None)) if config_path in GROUPS else not config_path

    def is_config(self, config_path: str) -> bool:
        """Return whether a plug-in has the choice."""
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        return group in GROUPS and (group, name) in COMPONENTS

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the choices in a group, or the groups."""
        if results_filter is not ObjectType.CONFIG and not config_path:
            return sorted({kind for kind, _ in COMPONENTS if kind in GROUPS})
        if results_filter is ObjectType.GROUP:
            return []
        return sorted(name for kind, name in COMPONENTS if kind == config_path)


def default_values(group: str, name: str) -> dict[str, Any]:
    """Return the default values of the keys of a choice, such as an optimizer."""
    values: dict[str, Any] = {}
    for field in fields(table(group)[name]):
        value = DEFAULTS.get(group, {}).get(field.name, "???")
        if field.default is not MISSING:
            value = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        values[field.name.rstrip("_")] = list(value) if isinstance(value, tuple) else value
    return values | {"name": name}


def with_records(container: Mapping[str, Any]) -> Mapping[str, Any]:
    """Activate the plug-ins of a resolved configuration, and record their hashes in it."""
    entries = container.get(KEY)
    if not entries or not isinstance(entries, list):
        return container
    from nnopt.config.plugins.load import activate  # not needed by most configurations

    return {**container, KEY: activate(entries)}


def activate_named(overrides: Sequence[str], sources: Sequence[ConfigSource]) -> None:
    """Activate the plug-ins that overrides and the user's files name, and no others."""
    named = named_plugins(overrides, sources)
    if not (named or COMPONENTS):
        return
    from nnopt.config.plugins.load import (  # not needed by most command lines
        activate,
        deactivate,
        load,
    )

    deactivate()
    problems = Problems()
    for entry, location in named:
        try:
            load(entry)
        except ConfigError as error:
            problems += (f"{problem}{location}" for problem in error.problems)
    problems.check()
    activate(entry for entry, _ in named)


def without_plugins(overrides: Sequence[str]) -> list[str]:
    """Load the plug-ins of a command line, and return the other overrides.

    A stored configuration then uses these plug-ins, if they have the recorded hashes, and not the
    recorded paths. Raises ConfigError.
    """
    if named := named_plugins(overrides, ()):
        from nnopt.config.plugins.load import activate  # not needed by most command lines

        activate(entry for entry, _ in named)
    return [text for text in overrides if text.lstrip("+").partition("=")[0] != KEY]


def named_plugins(
    overrides: Sequence[str], sources: Sequence[ConfigSource]
) -> list[tuple[Any, str]]:
    """Return the plug-ins of a command line or else, of the files that it chooses.

    These files are ``config.yaml`` and the chosen experiment, ablation and debug file, with the
    files in their lists of defaults. Each plug-in has a location in a file, for messages. Overrides
    that cannot be parsed are ignored.
    """
    names, given = [PRIMARY], None
    for override in _parsed(overrides):
        values = _values(override)
        if override.key_or_group == KEY:
            lists = (x if isinstance(x, list) else [x] for x in values)
            given = [(entry, "") for entries in lists for entry in entries]
        else:
            names += [f"{override.key_or_group}/{value}" for value in values]
    if given is not None:
        return given
    users = [source for source in sources if isinstance(source, UserSource)]
    return [entry for path in _files(names, users) for entry in _entries(path)]


def _parsed(overrides: Iterable[str]) -> Iterator[Override]:
    parser = OverridesParser(functions())
    for text in overrides:
        if text.lstrip("+").partition("=")[0] in (KEY, *EXPERIMENTS):
            with suppress(HydraException, ConfigError, RecursionError, ValueError):
                override = parser.parse_override(text.lstrip("+"))
                override._value = flatten_sweeps(override._value)
                yield override


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return list(override.sweep_iterator())
    return [override.value()]


def _files(names: Sequence[str], sources: Sequence[UserSource]) -> Iterator[Path]:
    """Yield the user's files with these names, and the files in their lists of defaults."""
    waiting, seen = list(names), set[Path]()
    while waiting and sources:
        name = waiting.pop(0)
        for source in sources:
            path = source.file_of(name)
            if path is None or path in seen:
                continue
            seen.add(path)
            yield path
            folder = name.rpartition("/")[0]
            for group, file, _ in defaults_of(path):
                waiting.append(f"{folder}/{file}" if group == file and folder else file)
                if group in EXPERIMENTS:
                    waiting.append(f"{group}/{file}")


def _entries(path: Path) -> Iterator[tuple[Any, str]]:
    """Yield the entries of the key ``plugins`` of a file, and their locations."""
    text = text_of(path)
    if KEY not in text:
        return
    root, loader = nodes_of(path, text)
    for key, value in root.value if isinstance(root, MappingNode) else ():
        for item in value.value if key.value == KEY and isinstance(value, SequenceNode) else ():
            location = f" ({shown_path(path)}, line {line_of(item)})"
            yield loader.construct_object(item, deep=True), location
