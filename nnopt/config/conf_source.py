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
from nnopt.config.grammar import flatten_sweeps, functions, shown
from nnopt.config.yaml_file import shown_path
from nnopt.errors import ConfigError, suggest

SCHEME = "nnopt-user"

files_read: dict[Path, str] = {}
"""The package of each file of the user that Hydra has read since ``composing`` was entered."""


class UserSource(ConfigSource):
    """A folder of YAML files, each of which is checked when it is read.

    Files end in .yaml or .yml. A group may have folders: ``experiment=paper/first`` is
    ``experiment/paper/first.yaml``.
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the folder's URL."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file. Raises ConfigError if it is missing or wrong."""
        path, name = self.file_of(config_path), config_path.removesuffix(".yaml")
        if path is None:
            raise ConfigError(f"there is no file {shown_path(Path(self.path, name))}.yaml")
        found = read_conf_file(path, name, own_groups())
        files_read[path] = found.package
        config = _added_to_ours(found.config) if name == PRIMARY else found.config
        is_usual = name.startswith(f"{found.package.replace('.', '/')}/")
        header = {"package": None if is_usual else found.package or "_global_"}
        return ConfigResult(self.provider, f"{SCHEME}://{self.path}", config, header)

    def file_of(self, config_path: str) -> Path | None:
        """Return the file of a name such as ``experiment/mine``, or None.

        Raises ConfigError if there are two.
        """
        name = config_path.removesuffix(".yaml")
        paths = [path for suffix in SUFFIXES if (path := Path(self.path, name + suffix)).is_file()]
        if len(paths) > 1:
            raise ConfigError(
                f"{shown_path(paths[0])} and {paths[1].name} have the same name; rename one of them"
            )
        return paths[0] if paths else None

    def available(self) -> bool:
        """Return whether the folder exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Return whether there is a folder of this name."""
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether there is a file of this name."""
        return self.file_of(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of the groups or files in a folder, including its inner folders."""
        folder = Path(self.path, config_path)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"{shown_path(folder)}: cannot be read: {error.strerror}") from None
        names = []
        for entry in entries:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                if results_filter in (None, ObjectType.GROUP):
                    names.append(entry.name)
                if results_filter in (None, ObjectType.CONFIG) and config_path:
                    inner = self.list(f"{config_path}/{entry.name}", ObjectType.CONFIG)
                    names += [f"{entry.name}/{name}" for name in inner]
            elif entry.suffix in SUFFIXES and results_filter in (None, ObjectType.CONFIG):
                names.append(entry.stem)
        return sorted(set(names))


def own_folder() -> Path:
    """Return the folder of nnopt's own YAML files."""
    return Path(str(files("nnopt.conf"))).resolve()


@cache
def own_groups() -> frozenset[str]:
    """Return the names of nnopt's own groups."""
    return frozenset(entry.name for entry in own_folder().iterdir() if entry.is_dir())


def _added_to_ours(config: DictConfig) -> DictConfig:
    """Return nnopt's ``config.yaml`` merged with the user's, which takes precedence."""
    own = OmegaConf.load(own_folder() / f"{PRIMARY}.yaml")
    assert isinstance(own, DictConfig)
    chosen = {_group(entry): entry for entry in config.pop("defaults", [])}
    own_defaults = {_group(entry): entry for entry in own.pop("defaults")}
    defaults: list[Any] = []
    for group, entry in own_defaults.items():
        if group == "experiment":  # must come after all groups
            defaults += [x for added, x in chosen.items() if added not in own_defaults]
        if group in chosen and isinstance(entry, DictConfig):
            entry = {group: next(iter(chosen[group].values()))}
        defaults.append(entry)
    merged = OmegaConf.merge(own, config)
    assert isinstance(merged, DictConfig)
    merged["defaults"] = defaults
    return merged


def _group(entry: Any) -> str:
    """Return the group of an entry of a list of defaults, or the file if it has no group."""
    key = next(iter(entry)) if isinstance(entry, DictConfig) else entry
    return str(key).split(" ")[-1].lstrip("/")


def location_of(key: str, accepts: Callable[[Any], bool], name: str = "") -> str:
    """Return " (FILE, line N)" of the line in the user's files that sets a key, or an empty text.

    Args:
        key: The dotted key.
        accepts: Returns whether the value on a line is the value of the message. A list or a map
            is passed as ``...``.
        name: The name of the file, such as ``experiment/mine``; empty: any file.
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


SWEPT = ("hydra.sweeper.params", "hydra.sweeper.grids")
"""The keys below which a file sets other keys to several values."""


def _location_of_swept(key: str, accepts: Callable[[Any], bool]) -> str:
    """Return the location of a key, also if a file sets it to several values of a sweep.

    ``accepts`` then gets the text of all values.
    """
    keys = (key, *(f"{swept}.{key}" for swept in SWEPT))
    return next(filter(None, (location_of(x, accepts) for x in keys)), "")


def with_location(problem: str) -> str:
    """Return a problem of a key with the line in the user's files that sets it to this value.

    The key and the value are read from the problem, ``KEY = VALUE: ...``.
    """
    if unknown := re.match(r"unknown key '([\w.]+)'|([\w.]+) is now ", problem):
        key = unknown[1] or unknown[2]
        return _with_end(problem, _location_of_swept(key, lambda value: True))
    if not (match := re.match(r"([a-z_0-9]+(?:\.[a-z_0-9]+)*)[^ ]* = ", problem)):
        return problem

    key, rest = match[1], problem.partition(" = ")[2]
    named = [rest[: colon.start()] for colon in re.finditer(": ", rest)]  # the value is one of them

    def is_named(value: Any) -> bool:
        if isinstance(value, str) and any(_is_among(text, key, value) for text in named):
            return True
        return value is ... or not {shown(value), *_forms(value)}.isdisjoint(named)

    def is_truth_value(value: Any) -> bool:
        return isinstance(value, bool) and is_named(value)

    location = _location_of_swept(key, is_named)
    if location and location == _location_of_swept(key, is_truth_value):
        problem = _with_truth_value(problem)
    return _with_end(problem, location)


def _forms(value: Any) -> Iterator[str]:
    """Yield the texts of a value in messages: whole numbers also in floating point."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _forms(item)
    value = value.text if isinstance(value, QuotedString) else value
    yield repr(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**308:
        yield repr(float(value))


def _is_among(text: str, key: str, swept: str) -> bool:
    """Return whether a text in a message is one of the values of a key that ``swept`` lists."""
    forms, bounds = _values_of(key, swept)
    try:
        return text in forms or bool(bounds and bounds[0] <= float(text) <= bounds[1])
    except ValueError:
        return False


@cache
def _values_of(key: str, swept: str) -> tuple[frozenset[str], tuple[float, float] | None]:
    """Return the texts of the values of, for example, ``range(3)``, and the bounds of an interval.

    A text that cannot be parsed is split at its commas.
    """
    try:
        override = OverridesParser(functions()).parse_override(f"{key}={swept}")
        value = override._value = flatten_sweeps(override._value)
    except (HydraException, ConfigError, RecursionError, ValueError):
        return frozenset(repr(text.strip()) for text in swept.split(",")), None
    if isinstance(value, IntervalSweep):
        start, end = value.start, value.end
        return frozenset(), (start, end) if start is not None and end is not None else None
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return frozenset(form for item in values for form in _forms(item)), None


def _with_truth_value(problem: str) -> str:
    """Return a problem of a truth value with the words that YAML reads as one."""
    if not (match := re.search(r" = (True|False): .*(?:allowed|needs a text)[^;]*", problem)):
        return problem
    words = "yes and on" if match[1] == "True" else "no and off"
    reading = f"; YAML reads {words} without quotes as {match[1].lower()}, a truth value"
    return problem[: match.end()] + reading + problem[match.end() :]


def _with_end(problem: str, location: str) -> str:
    return problem if problem.endswith(location) else problem + location


def with_defaults_location(
    problem: str, groups: Collection[str], is_group: Callable[[str], bool]
) -> str:
    """Return a problem of a list of defaults with the file and the line of its entry.

    Args:
        problem: The message of Hydra.
        groups: The names of the existing groups, to suggest the nearest one.
        is_group: Returns whether there is a folder of a name such as ``dataset/sub``.
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
