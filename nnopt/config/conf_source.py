"""The user's YAML files: those of the folder ``conf``, and those of ``--config-dir``."""

from __future__ import annotations

import difflib
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
    ENGINE_GROUPS,
    PRIMARY,
    SUFFIXES,
    defaults_of,
    read_conf_file,
    settings_of,
)
from nnopt.config.grammar import flat, functions, shown
from nnopt.config.yaml_file import shown_path
from nnopt.errors import ConfigError

SCHEME = "nnopt-user"

files_read: dict[Path, str] = {}
"""Each of the user's files that Hydra has read since ``composing`` began, and its package."""


class UserSource(ConfigSource):
    """A folder of the user's YAML files. Each is checked when it is read. Files end in .yaml or
    .yml. A group may have folders: ``experiment=paper/first`` is ``experiment/paper/first.yaml``.
    """

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
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
        found = [path for suffix in SUFFIXES if (path := Path(self.path, name + suffix)).is_file()]
        if len(found) > 1:
            raise ConfigError(
                f"{shown_path(found[0])} and {found[1].name} have one name; rename one of them"
            )
        return found[0] if found else None

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self.file_of(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of the groups or of the files in a folder and its inner folders."""
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
    """Return nnopt's ``config.yaml`` with the user's added, whose keys and choices of files win."""
    ours = OmegaConf.load(own_folder() / f"{PRIMARY}.yaml")
    assert isinstance(ours, DictConfig)
    theirs = {_group(entry): entry for entry in config.pop("defaults", [])}
    usual = {_group(entry): entry for entry in ours.pop("defaults")}
    added = [entry for group, entry in theirs.items() if group not in usual]
    defaults: list[Any] = []
    for group, entry in usual.items():
        if group == "experiment":  # must stay after all groups
            defaults += added
        if group in theirs and isinstance(entry, DictConfig):
            entry = {group: next(iter(theirs[group].values()))}
        defaults.append(entry)
    merged = OmegaConf.merge(ours, config)
    assert isinstance(merged, DictConfig)
    merged["defaults"] = defaults
    return merged


def _group(entry: Any) -> str:
    """Return the group of an entry of a list of defaults, or the file if it has no group."""
    key = next(iter(entry)) if isinstance(entry, DictConfig) else entry
    return str(key).split(" ")[-1].lstrip("/")


def place_of(key: str, accepts: Callable[[Any], bool], name: str = "") -> str:
    """Return " (FILE, line N)" for the place in the user's files that sets a key, or an empty text.

    accepts: whether the value there (... for a list or a map) is the value that the message is
    about. name: of the file, such as ``experiment/mine``; without it, any file.
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
"""Where a file sets keys to several values."""


def _place_of_swept(key: str, accepts: Callable[[Any], bool]) -> str:
    """Return the place as ``place_of`` does, also if a file sets the key for the points of a sweep.

    accepts: as for ``place_of``; there, a value is the text of several.
    """
    places = (place_of(f"{swept}.{key}", accepts) for swept in SWEPT)
    return place_of(key, accepts) or next(filter(None, places), "")


def with_place(problem: str) -> str:
    """Return a problem of a key with the place in the user's files that sets it to this value."""
    if unknown := re.match(r"unknown key '([\w.]+)'|([\w.]+) is now ", problem):
        key = unknown[1] or unknown[2]
        return _with_end(problem, _place_of_swept(key, lambda value: True))
    if not (found := re.match(r"([a-z_0-9]+(?:\.[a-z_0-9]+)*)[^ ]* = ", problem)):
        return problem

    told = problem.partition(" = ")[2]
    named = [told[: colon.start()] for colon in re.finditer(": ", told)]

    def is_named(value: Any) -> bool:
        if isinstance(value, str) and any(_is_among(text, found[1], value) for text in named):
            return True
        return value is ... or not {shown(value), *_forms(value)}.isdisjoint(named)

    def is_truth_value(value: Any) -> bool:
        return isinstance(value, bool) and is_named(value)

    place = _place_of_swept(found[1], is_named)
    if place and place == _place_of_swept(found[1], is_truth_value):
        problem = _with_truth_value(problem)
    return _with_end(problem, place)


def _forms(value: Any) -> Iterator[str]:
    """Yield how messages show a value: a whole number also as one in floating point."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _forms(item)
    value = value.text if isinstance(value, QuotedString) else value
    yield repr(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**308:
        yield repr(float(value))


def _is_among(text: str, key: str, swept: str) -> bool:
    """Return whether ``text`` is how a message shows one of the values that ``swept`` lists."""
    forms, bounds = _values_of(key, swept)
    try:
        return text in forms or bool(bounds and bounds[0] <= float(text) <= bounds[1])
    except ValueError:
        return False


@cache
def _values_of(key: str, swept: str) -> tuple[frozenset[str], tuple[float, float] | None]:
    """Return how messages show the values of a text such as ``range(3)``, and the bounds of an
    interval. A text that cannot be parsed is split at its commas."""
    try:
        override = OverridesParser(functions()).parse_override(f"{key}={swept}")
        value = override._value = flat(override._value)
    except (HydraException, ConfigError, RecursionError, ValueError):
        return frozenset(repr(text.strip()) for text in swept.split(",")), None
    if isinstance(value, IntervalSweep):
        start, end = value.start, value.end
        return frozenset(), (start, end) if start is not None and end is not None else None
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return frozenset(form for item in values for form in _forms(item)), None


def _with_truth_value(problem: str) -> str:
    """Return a problem of a truth value of a file with the words that YAML reads so, if the key
    takes words."""
    if not (found := re.search(r" = (True|False): .*(?:allowed|known|needs a text)[^;]*", problem)):
        return problem
    words = "yes and on" if found[1] == "True" else "no and off"
    reading = f"; YAML reads {words} without quotes as {found[1].lower()}, a truth value"
    return problem[: found.end()] + reading + problem[found.end() :]


def _with_end(problem: str, place: str) -> str:
    return problem if problem.endswith(place) else problem + place


def with_default_place(
    problem: str, groups: Collection[str], is_group: Callable[[str], bool]
) -> str:
    """Return a problem of a list of defaults, after the place of the entry that it names. An entry
    of a group that does not exist is refused with the nearest of the groups.

    is_group: whether there is a folder of a name such as ``dataset/sub``.
    """
    named = re.findall(r"'([^']+)'", problem)
    for path in reversed(files_read):
        for group, file, line in defaults_of(path):
            entries = (group, f"{group}/{file}")
            meant = [n for n in named if any(f"/{n}".endswith(f"/{entry}") for entry in entries)]
            if not meant:
                continue
            folders = (group, *(name.removesuffix(f"/{file}") for name in meant))
            if group != file and group not in ENGINE_GROUPS and not any(map(is_group, folders)):
                close = difflib.get_close_matches(group, groups, n=1)
                hint = (
                    f"did you mean {close[0]!r}?"
                    if close
                    else f"known: {', '.join(sorted(groups))}"
                )
                problem = f"unknown group {group!r} in the list of defaults; {hint}"
            return f"{shown_path(path)}, line {line}: {problem}"
    return problem
