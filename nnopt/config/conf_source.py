"""The user's YAML files, in the folder ``conf`` and the folder of ``--config-dir``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from nnopt.config.conf_file import (
    PLUGIN_GROUPS,
    PRIMARY,
    SUFFIXES,
    defaults_of,
    read_conf_file,
    settings_of,
)
from nnopt.config.grammar import flatten_sweeps, functions
from nnopt.config.yaml_file import shown_path
from nnopt.errors import ConfigError, Problem, suggest

SCHEME = "nnopt-user"

files_read: dict[Path, str] = {}
"""User's file that Hydra has read -> package: the dotted key under which Hydra inserts its keys."""


class UserSource(ConfigSource):
    """A folder of the user's YAML files. A group may have subfolders: ``experiment=paper/a``."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the folder's URL."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file. Raises ConfigError if the file is missing or has errors."""
        path, name = self.file_of(config_path), config_path.removesuffix(".yaml")
        if path is None:
            raise ConfigError(f"there is no file {shown_path(Path(self.path, name))}.yaml")
        config, package = read_conf_file(path, name, own_groups())
        files_read[path] = package
        if name == PRIMARY:
            config = _added_to_ours(config)
        is_usual = name.startswith(f"{package.replace('.', '/')}/")
        header = {"package": None if is_usual else package or "_global_"}
        return ConfigResult(self.provider, f"{SCHEME}://{self.path}", config, header)

    def file_of(self, config_path: str) -> Path | None:
        """Return the path of a file such as ``experiment/mine``, or None. Raises ConfigError."""
        name = config_path.removesuffix(".yaml")
        paths = [path for suffix in SUFFIXES if (path := Path(self.path, name + suffix)).is_file()]
        if len(paths) > 1:
            raise ConfigError(
                f"{shown_path(paths[0])} and {paths[1].name} differ in the suffix only; rename one"
            )
        return paths[0] if paths else None

    def available(self) -> bool:
        """Return whether the folder exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Return whether a folder with this name exists."""
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether a YAML file with this name exists."""
        return self.file_of(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return names of groups or files in a folder, and of files in subfolders: ``sub/a``."""
        folder = Path(self.path, config_path)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"{shown_path(folder)}: cannot be read: {error.strerror}") from None
        names = set()
        for entry in entries:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                if results_filter in (None, ObjectType.GROUP):
                    names.add(entry.name)
                if results_filter in (None, ObjectType.CONFIG) and config_path:
                    inner = self.list(f"{config_path}/{entry.name}", ObjectType.CONFIG)
                    names |= {f"{entry.name}/{name}" for name in inner}
            elif entry.suffix in SUFFIXES and results_filter in (None, ObjectType.CONFIG):
                names.add(entry.stem)
        return sorted(names)


def own_folder() -> Path:
    """Return the folder of nnopt's own YAML files."""
    return Path(str(files("nnopt.conf"))).resolve()


@cache
def own_groups() -> frozenset[str]:
    """Return the names of nnopt's own groups."""
    return frozenset(entry.name for entry in own_folder().iterdir() if entry.is_dir())


def _added_to_ours(config: DictConfig) -> DictConfig:
    """Return nnopt's ``config.yaml`` merged with the user's file, which takes precedence."""
    own = OmegaConf.load(own_folder() / f"{PRIMARY}.yaml")
    assert isinstance(own, DictConfig)
    chosen = {_group(entry): entry for entry in config.pop("defaults", [])}
    own_defaults = {_group(entry): entry for entry in own.pop("defaults")}
    defaults: list[Any] = []
    for group, entry in own_defaults.items():
        if group == "experiment":  # the experiment must come after all groups
            defaults += [x for added, x in chosen.items() if added not in own_defaults]
        if group in chosen and isinstance(entry, DictConfig):
            entry = {group: next(iter(chosen[group].values()))}
        defaults.append(entry)
    merged = OmegaConf.merge(own, config)
    assert isinstance(merged, DictConfig)
    merged["defaults"] = defaults
    return merged


def _group(entry: Any) -> str:
    """Return the group of an entry of a list of defaults, or the file of an entry without group."""
    key = next(iter(entry)) if isinstance(entry, DictConfig) else entry
    return str(key).split(" ")[-1].lstrip("/")


def location_of(key: str, accepts: Callable[[Any], bool], name: str = "") -> str:
    """Return where the user's files set a dotted key, as the text " (FILE, line N)", or "".

    ``accepts`` returns whether a value is the value to locate. It receives ``...`` for a list or a
    map. If ``name`` is given, such as ``experiment/mine``, only this file is searched.
    """
    for path, package in reversed(files_read.items()):
        if name and path.parts[-1 - name.count("/") :] != Path(name + path.suffix).parts:
            continue
        if package == key and accepts(...):
            return f" ({shown_path(path)})"
        inside = key.removeprefix(f"{package}.") if package else key
        if package and inside == key:
            continue
        for line, value in settings_of(path, inside.split(".")):
            if accepts(value):
                return f" ({shown_path(path)}, line {line})"
    return ""


SWEPT = ("", "hydra.sweeper.params.", "hydra.sweeper.grids.")
"""Prefixes that a key may have in a file. Swept keys are below ``params`` or ``grids``."""


def with_location(problem: str) -> str:
    """Add the location of the refused value to a problem, if a user's file sets the value."""
    if not isinstance(problem, Problem):
        return problem
    key, value = problem.key.partition("[")[0], problem.value

    def is_refused(setting: Any) -> bool:
        is_among = isinstance(setting, str) and _is_among(value, key, setting)
        return is_among or ... in (setting, value) or _is_same(setting, value)

    def find(accepts: Callable[[Any], bool]) -> str:
        return next(filter(None, (location_of(prefix + key, accepts) for prefix in SWEPT)), "")

    location, message = find(is_refused), str(problem)
    takes_texts = "allowed: " in message or "needs a text" in message
    may_be_text = takes_texts and isinstance(value, bool) and location
    if may_be_text and location == find(lambda x: isinstance(x, bool) and is_refused(x)):
        words = "yes and on" if value else "no and off"
        reading = f"YAML reads {words} without quotes as {str(value).lower()}, a truth value"
        reason, semicolon, remedy = message.partition(";")
        message = f"{reason}; {reading}{semicolon}{remedy}"
    return message if message.endswith(location) else message + location


def _is_same(setting: Any, value: Any) -> bool:
    """Return whether two values are equal. Booleans differ from numbers, and NaN equals NaN."""
    is_number = not (isinstance(setting, bool) or isinstance(value, bool))
    return repr(setting) == repr(value) or (is_number and setting == value)


def _is_among(value: Any, key: str, swept: str) -> bool:
    """Return whether a value is contained in ``swept``, the text of a sweep over ``key``."""
    values = _values_of(key, swept)
    if isinstance(values, IntervalSweep):
        start, end = values.start, values.end
        is_number = isinstance(value, int | float) and start is not None and end is not None
        return is_number and start <= value <= end
    return any(_is_same(item, value) for item in _flat(values))


@cache
def _values_of(key: str, swept: str) -> Any:
    """Return the parsed text of a sweep over ``key``: a list of values, an interval or a value.

    If the text cannot be parsed, return the parts between commas.
    """
    try:
        override = OverridesParser(functions()).parse_override(f"{key}={swept}")
        value = flatten_sweeps(override._value)
    except (HydraException, ConfigError, RecursionError, ValueError):
        return [text.strip() for text in swept.split(",")]
    return value.list if isinstance(value, ChoiceSweep) else value


def _flat(value: Any) -> Iterator[Any]:
    """Yield a value. If the value is a list, first yield its items. Unquote quoted texts."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    yield value.text if isinstance(value, QuotedString) else value


def with_defaults_location(
    problem: str, groups: Collection[str], is_group: Callable[[str], bool]
) -> str:
    """Add the file and the line to Hydra's message about an entry of a list of defaults.

    If ``is_group`` does not find the group of the entry, the message suggests the most similar
    name in ``groups``.
    """
    named = re.findall(r"'([^']+)'", problem)
    for path in reversed(files_read):
        for group, file, line in defaults_of(path):
            entries = (group, f"{group}/{file}")
            names = [n for n in named if any(f"/{n}".endswith(f"/{entry}") for entry in entries)]
            if not names:
                continue
            folders = (group, *(name.removesuffix(f"/{file}") for name in names))
            if group != file and group not in PLUGIN_GROUPS and not any(map(is_group, folders)):
                hint = suggest(group, sorted(groups))
                problem = f"unknown group {group!r} in the list of defaults; {hint}"
            return f"{shown_path(path)}, line {line}: {problem}"
    return problem
