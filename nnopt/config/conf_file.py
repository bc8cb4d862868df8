"""A YAML file of the user. Every entry must become a part of the configuration. An entry that would
not is refused with the file and the line.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import (  # type: ignore[import-untyped]
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    YAMLError,
)

from nnopt.config.yaml_file import (
    YAML,
    ValueChecker,
    kind_of,
    line_of,
    nodes_of,
    shown_path,
    syntax_problem,
    text_of,
)
from nnopt.errors import ConfigError
from nnopt.io.safe_text import simplify_message

PRIMARY = "config"
"""The file that chooses one file of each group. The user's own adds to nnopt's."""

EXPERIMENTS = ("experiment", "ablation")
"""The groups whose files set keys of every group."""

ENGINE_GROUPS = ("hydra/sweeper", "hydra/launcher")
"""The groups of sweepers and launchers. nnopt has its own, in place of Hydra's."""

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode")
"""The settings of Hydra that nnopt follows, in addition to the keys of sweepers and launchers."""

SUFFIXES = (".yaml", ".yml")
PACKAGE = re.compile(r"\s*#\s*@package\b[ \t]*(\S*)")
COMMENT = re.compile(r"\s*(#|$|---(\s|$)|%)")


@dataclass(frozen=True)
class ConfFile:
    """The keys and values of a file. package: the dotted key that they belong to, or ""."""

    config: DictConfig
    package: str


def read_conf_file(path: Path, name: str, own_groups: Container[str] = ()) -> ConfFile:
    """Return the keys and values of a file.

    name: its path in the conf folder, such as ``experiment/mine``. own_groups: the groups of nnopt;
    a file of another group may name the key that its own keys belong to.

    Raises ConfigError for a file that is no YAML map or that would set nothing.
    """
    text = text_of(path)
    node, loader = nodes_of(path, text)
    group = name.rpartition("/")[0]
    foreign = group.partition("/")[0] not in own_groups
    package = _package_of(path, text, group, foreign)
    if not isinstance(node, MappingNode):
        found = "empty" if node is None else f"{kind_of(node)}, no map"
        raise ConfigError(
            f"{shown_path(path)} is {found}: it needs keys and their values, as key: value"
        )
    ValueChecker(path, dotted=name.startswith("hydra/")).check(node, ())
    _check_places(path, node, name, package, () if name == PRIMARY else own_groups)
    if all(_sets_nothing(key, value) for key, value in node.value):
        raise ConfigError(f"{shown_path(path)} sets no key; give it some, or leave it out")
    try:
        config = OmegaConf.create(loader.construct_document(node))
    except YAMLError as error:
        raise ConfigError(syntax_problem(path, error)) from None
    except OmegaConfBaseException as error:
        setting = next(settings_of(path, str(error.full_key or "").split(".")), None)
        place = f", line {setting[0]}" if setting else ""
        told = simplify_message(str(error).splitlines()[0])
        raise ConfigError(f"{shown_path(path)}{place}: {error.full_key or ''}: {told}") from None
    assert isinstance(config, DictConfig)
    return ConfFile(config, package)


def settings_of(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Yield the lines of a key of a file, counted from 1, and its values (... for a list or a map).

    A key is also set by a plain value of a key above it. Below ``hydra.sweeper`` a key of the file
    may be several of the keys joined by dots, and each map of a list may set the key.
    """
    node, loader = nodes_of(path, text_of(path))
    for line, found in _settings(node, list(keys), None):
        is_plain = isinstance(found, ScalarNode)
        yield line, loader.construct_object(found) if is_plain else ...


def _settings(
    node: Node | None, keys: Sequence[str], line: int | None
) -> Iterator[tuple[int, Node]]:
    if line is not None and node is not None and (not keys or isinstance(node, ScalarNode)):
        yield line, node
    elif isinstance(node, SequenceNode):
        for item in node.value:
            if isinstance(item, MappingNode):
                yield from _settings(item, keys, None)
    elif isinstance(node, MappingNode):
        joined = {".".join(keys[:count]): count for count in range(1, len(keys) + 1)}
        for key, value in node.value:
            if key.value in joined:
                yield from _settings(value, keys[joined[key.value] :], line_of(key))


def _package_of(path: Path, text: str, group: str, foreign: bool) -> str:
    """Return the dotted key that the keys of a file belong to. Raises ConfigError for a package of
    another group."""
    levels = group.split("/")
    usual = ".".join(levels[:2] if levels[0] == "hydra" else levels[:1])
    allowed = {"_group_": usual, usual: usual}
    if levels[0] in ("", *EXPERIMENTS):
        usual, allowed = "", {"_global_": ""}
    elif foreign:
        allowed["_global_"] = ""
    package, is_content = usual, False
    for number, line in enumerate(text.splitlines(), 1):
        is_content = is_content or not COMMENT.match(line)
        if not (found := PACKAGE.match(line)):
            continue
        known = foreign and not found[1].startswith("hydra")
        named = allowed.get(found[1], found[1] if known else None)
        if named is None or (is_content and named != package):
            what = "has to come before the first key" if is_content else "would set nothing"
            raise ConfigError(
                f"{shown_path(path)}, line {number}: '# @package {found[1]}' {what}; without the "
                f"line the keys belong to {usual or 'the whole configuration'}"
            )
        package = named
    return package


def _check_places(
    path: Path, node: MappingNode, name: str, package: str, own_groups: Container[str]
) -> None:
    """Raise ConfigError for a list of defaults or a setting of Hydra that nnopt does not follow."""
    problems = []
    if name.startswith("hydra/") and not name.startswith(tuple(f"{g}/" for g in ENGINE_GROUPS)):
        problems.append(f"{shown_path(path)}: nnopt follows no file of {name.rpartition('/')[0]}")
    for key, value in node.value:
        if key.value == "defaults":
            problems += _default_problems(path, value, own_groups if package == "" else ())
        elif key.value == "hydra" and package == "":
            problems += [
                f"{shown_path(path)}, line {line}: nnopt follows no setting of Hydra's but "
                f"{', '.join(HYDRA_KEYS)} and the keys of hydra.sweeper and hydra.launcher, "
                f"not {found}"
                for found, line in _hydra_keys(value)
                if not (name == PRIMARY and found.startswith("hydra.help"))
            ]
    if problems:
        raise ConfigError(problems)


def _hydra_keys(node: Node) -> Iterator[tuple[str, int]]:
    """Yield the settings of Hydra that nnopt does not follow, and their lines."""
    if not isinstance(node, MappingNode):
        yield kind_of(node), line_of(node)
        return
    for key, value in node.value:
        name = f"hydra.{key.value}"
        if name in ("hydra.run", "hydra.sweep") and isinstance(value, MappingNode):
            for inner, _ in value.value:
                if inner.value != "dir":
                    yield f"{name}.{inner.value}", line_of(inner)
        elif name not in ("hydra.mode", "hydra.sweeper", "hydra.launcher"):
            yield name, line_of(key)


def _default_problems(path: Path, node: Node, own_groups: Container[str]) -> Iterator[str]:
    """Yield the problems of a list of defaults. own_groups: the groups for which ``config.yaml``
    chooses a file already."""
    if not isinstance(node, SequenceNode):
        yield f"{shown_path(path)}, line {line_of(node)}: defaults need a list, such as [none]"
        return
    for item in node.value:
        place = f"{shown_path(path)}, line {line_of(item)}: "
        if isinstance(item, ScalarNode) and item.tag == f"{YAML}str":
            continue
        if not isinstance(item, MappingNode) or len(item.value) != 1:
            yield f"{place}an entry of defaults is a file or one 'group: file', got {kind_of(item)}"
            continue
        ((key, value),) = item.value
        names = value.value if isinstance(value, SequenceNode) else [value]
        if not all(name.tag in (f"{YAML}str", f"{YAML}null") for name in names):
            yield f"{place}{key.value!r} of defaults needs the name of a file, in quotes if need be"
        *words, name = str(key.value).split(" ")
        group = name.partition("@")[0].lstrip("/")
        if group in own_groups and not ("override" in words and name.startswith("/")):
            yield f"{place}write 'override /{group}: {value.value}': the group has a file already"
        if group.startswith("hydra/") and group not in ENGINE_GROUPS:
            yield f"{place}nnopt follows no file of Hydra's but of {', '.join(ENGINE_GROUPS)}"
        if "@" in str(key.value):
            yield f"{place}a group has one place; leave '@...' out of {key.value!r}"


def defaults_of(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the group, the file and the line of the entries of a list of defaults."""
    node, _ = nodes_of(path, text_of(path))
    for key, value in node.value if isinstance(node, MappingNode) else []:
        for item in value.value if key.value == "defaults" else []:
            for name, file in item.value if isinstance(item, MappingNode) else [(item, item)]:
                group = str(name.value).split(" ")[-1].lstrip("/")
                for one in file.value if isinstance(file, SequenceNode) else [file]:
                    yield group, str(one.value), line_of(item)


def _sets_nothing(key: Node, value: Node) -> bool:
    """Return whether an entry is a list of defaults that names no file."""
    return key.value == "defaults" and all(item.value == "_self_" for item in value.value)
