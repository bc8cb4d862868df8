"""Reads a YAML file of the user, and refuses entries without effect on the configuration."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MappingNode, Node, ScalarNode, SequenceNode, YAMLError

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
from nnopt.errors import ConfigError, Problems
from nnopt.io.safe_text import simplify_message

PRIMARY = "config"
"""Name of the file that chooses a file of each group. A user's ``config.yaml`` extends nnopt's."""

EXPERIMENTS = ("experiment", "ablation", "debug")
"""The groups whose files may set keys of all groups."""

PLUGIN_GROUPS = ("hydra/sweeper", "hydra/launcher")
"""The groups of nnopt's sweepers and launchers, which replace Hydra's."""

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode")
"""The supported settings of Hydra, in addition to the keys of sweepers and launchers."""

SUFFIXES = (".yaml", ".yml")
PACKAGE = re.compile(r"\s*#\s*@package\b[ \t]*(\S*)")
COMMENT = re.compile(r"\s*(#|$|---(\s|$)|%)")


def read_conf_file(
    path: Path, name: str, own_groups: Container[str] = ()
) -> tuple[DictConfig, str]:
    """Return the keys and values of a YAML file, and the package of the file.

    The package is the dotted key under which Hydra inserts the keys, or "" for the top level.
    ``name`` consists of group and file, such as ``experiment/mine``. ``own_groups`` are nnopt's
    groups. In a file of a group that nnopt lacks, a comment ``# @package`` may set the package.
    Raises ConfigError if an entry has no effect.
    """
    text = text_of(path)
    node, loader = nodes_of(path, text)
    group = name.rpartition("/")[0]
    foreign = group.partition("/")[0] not in own_groups
    package = _package_of(path, text, group, foreign)
    if not isinstance(node, MappingNode):
        kind = "empty" if node is None else f"{kind_of(node)}, not a map"
        raise ConfigError(
            f"{shown_path(path)} is {kind}: it needs keys and their values, as key: value"
        )
    ValueChecker(path).check(node, dotted=name.startswith("hydra/"))
    _check_entries(path, node, name, package, () if name == PRIMARY else own_groups)
    if all(
        key.value == "defaults" and all(item.value == "_self_" for item in value.value)
        for key, value in node.value
    ):
        raise ConfigError(f"{shown_path(path)} sets no key; add one, or delete the file")
    try:
        config = OmegaConf.create(loader.construct_document(node))
    except YAMLError as error:
        raise ConfigError(syntax_problem(path, error)) from None
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key or ""), simplify_message(str(error).splitlines()[0])
        line = next((f", line {line}" for line, _ in settings_of(path, key.split("."))), "")
        raise ConfigError(f"{shown_path(path)}{line}: {key}: {reason}") from None
    assert isinstance(config, DictConfig)
    return config, package


def settings_of(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Find a key in a file. Yield the line number and the value of each setting of the key.

    ``keys`` are the parts of the dotted key. For a list or a map, the yielded value is ``...``. If
    a parent key has a scalar value, this setting is yielded too. In the file, a key may consist of
    several parts, such as ``optimizer.lr`` below ``params``. Maps in a list are searched too.
    """
    root, loader = nodes_of(path, text_of(path))
    for line, node in _settings(root, list(keys), None):
        yield line, loader.construct_object(node) if isinstance(node, ScalarNode) else ...


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
    """Return the package of a file. ``foreign`` means that nnopt does not have the group."""
    levels = group.split("/")
    default = ".".join(levels[:2] if levels[0] == "hydra" else levels[:1])
    allowed = {"_group_": default, default: default}
    if levels[0] in ("", *EXPERIMENTS):
        default, allowed = "", {"_global_": ""}
    elif foreign:
        allowed["_global_"] = ""
    package, is_content = default, False
    for number, line in enumerate(text.splitlines(), 1):
        is_content = is_content or not COMMENT.match(line)
        if not (match := PACKAGE.match(line)):
            continue
        is_allowed = foreign and not match[1].startswith("hydra")
        named = allowed.get(match[1], match[1] if is_allowed else None)
        if named is None or (is_content and named != package):
            fault = "is not supported in this file; "
            if named is not None:
                fault = "must come before the first key; move the line there, or "
            raise ConfigError(
                f"{shown_path(path)}, line {number}: '# @package {match[1]}' {fault}delete the "
                f"line, and the keys belong to {package or 'the whole configuration'}"
            )
        package = named
    return package


def _check_entries(
    path: Path, node: MappingNode, name: str, package: str, own_groups: Container[str]
) -> None:
    """Raise ConfigError for a wrong list of defaults, and for unsupported settings of Hydra."""
    problems = Problems()
    if name.startswith("hydra/") and not name.startswith(tuple(f"{g}/" for g in PLUGIN_GROUPS)):
        supported = ", ".join(PLUGIN_GROUPS)
        problems.append(f"{shown_path(path)}: unsupported group; supported: {supported}")
    for key, value in node.value:
        if key.value == "defaults":
            problems += _default_problems(path, value, own_groups if package == "" else ())
        elif key.value == "hydra" and package == "":
            problems += [
                f"{shown_path(path)}, line {line}: unsupported setting of Hydra: {key}; supported: "
                f"{', '.join(HYDRA_KEYS)} and the keys of hydra.sweeper and hydra.launcher"
                for key, line in _unsupported_hydra_keys(value)
                if not (name == PRIMARY and key.startswith("hydra.help"))
            ]
    problems.check()


def _unsupported_hydra_keys(node: Node) -> Iterator[tuple[str, int]]:
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
    """Yield the problems of a list of defaults, such as a missing word ``override``."""
    if not isinstance(node, SequenceNode):
        yield f"{shown_path(path)}, line {line_of(node)}: defaults must be a list, such as [none]"
        return
    for item in node.value:
        start = f"{shown_path(path)}, line {line_of(item)}: "
        if isinstance(item, ScalarNode) and item.tag == f"{YAML}str":
            continue
        if not isinstance(item, MappingNode) or len(item.value) != 1:
            yield f"{start}an entry of defaults is a file or one 'group: file', got {kind_of(item)}"
            continue
        ((key, value),) = item.value
        names = value.value if isinstance(value, SequenceNode) else [value]
        if not all(name.tag in (f"{YAML}str", f"{YAML}null") for name in names):
            yield f"{start}{key.value!r} in defaults needs the name of a file; quote the name"
        *keywords, name = str(key.value).split(" ")
        group = name.partition("@")[0].lstrip("/")
        if group in own_groups and not ("override" in keywords and name.startswith("/")):
            entry = f"override /{group}: {value.value}"
            yield f"{start}write '{entry}', because config.yaml already chooses a file of the group"
        if group.startswith("hydra/") and group not in PLUGIN_GROUPS:
            yield f"{start}unsupported file of Hydra; supported: {', '.join(PLUGIN_GROUPS)}"
        if "@" in str(key.value):
            yield f"{start}the package of a group is fixed; leave '@...' out of {key.value!r}"


def defaults_of(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the group, the file and the line of each entry in a YAML file's list of defaults."""
    node, _ = nodes_of(path, text_of(path))
    for key, value in node.value if isinstance(node, MappingNode) else []:
        for item in value.value if key.value == "defaults" else []:
            for name, file in item.value if isinstance(item, MappingNode) else [(item, item)]:
                group = str(name.value).split(" ")[-1].lstrip("/")
                for one in file.value if isinstance(file, SequenceNode) else [file]:
                    yield group, str(one.value), line_of(item)
