"""A YAML file of the user's, read and checked: everything in it must become a part of the
configuration, or is refused with the file and the line.
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
    MarkedYAMLError,
    Node,
    ScalarNode,
    SequenceNode,
    YAMLError,
)
from yaml.reader import ReaderError  # type: ignore[import-untyped]

from nnopt.errors import ConfigError
from nnopt.hydra_internals import get_yaml_loader

PRIMARY = "config"
"""The file that chooses one file of each group. The user's own adds to nnopt's."""

EXPERIMENTS = ("experiment", "ablation")
"""The groups whose files set keys of every group."""

ENGINE_GROUPS = ("hydra/sweeper", "hydra/launcher")
"""Which points a sweep has, and who runs them: groups whose files and keys are nnopt's own."""

HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode")
"""The settings of Hydra's that nnopt follows, besides the keys of sweepers and launchers."""

SUFFIXES = (".yaml", ".yml")
PACKAGE = re.compile(r"\s*#\s*@package\b[ \t]*(\S*)")
COMMENT = re.compile(r"\s*(#|$|---(\s|$)|%)")

LARGEST = 1_000_000
DEEPEST = 50
MOST_NODES = 3_000
MOST_DIGITS = 4_000
"""Bounds of a file in bytes, levels, values with those of aliases, and digits of a number."""

YAML = "tag:yaml.org,2002:"
KINDS = {f"{YAML}{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


@dataclass(frozen=True)
class ConfFile:
    """The contents of a file. package: the keys that they are put below; "": below none."""

    config: DictConfig
    package: str


def read_conf_file(path: Path, name: str, own_groups: Container[str] = ()) -> ConfFile:
    """Return the contents of a file. name: its path in the conf folder, as ``experiment/mine``.
    own_groups: those of nnopt; a file of another group may choose where its keys go.

    Raises ConfigError for a file that is no YAML map or that would set nothing.
    """
    text = _text_of(path)
    node, loader = _nodes_of(path, text)
    group = name.rpartition("/")[0]
    foreign = group.partition("/")[0] not in own_groups
    package = _package_of(path, text, group, foreign)
    if not isinstance(node, MappingNode):
        found = "empty" if node is None else f"{_kind(node)}, no map"
        raise ConfigError(
            f"{shown_path(path)} is {found}: it needs keys and their values, as key: value"
        )
    _Checker(path, dotted=name.startswith("hydra/")).check(node, ())
    _check_places(path, node, name, package, () if name == PRIMARY else own_groups)
    if all(_sets_nothing(key, value) for key, value in node.value):
        raise ConfigError(f"{shown_path(path)} sets no key; give it some, or leave it out")
    try:
        config = OmegaConf.create(loader.construct_document(node))
    except YAMLError as error:
        raise ConfigError(_syntax(path, error)) from None
    except OmegaConfBaseException as error:
        setting = setting_of(path, str(error.full_key or "").split("."))
        place = f", line {setting[0]}" if setting else ""
        told = " ".join(str(error).splitlines()[0].split())
        raise ConfigError(f"{shown_path(path)}{place}: {error.full_key or ''}: {told}") from None
    assert isinstance(config, DictConfig)
    return ConfFile(config, package)


def setting_of(path: Path, keys: Sequence[str]) -> tuple[int, Any] | None:
    """Return the line of a key of a file, counted from 1, and its value; None if the file does not
    set it. A key below one that has a plain value is set by that."""
    node, loader = _nodes_of(path, _text_of(path))
    line = None
    for key in keys:
        if line is not None and isinstance(node, ScalarNode):
            break
        pairs = node.value if isinstance(node, MappingNode) else []
        found = next(((k, v) for k, v in pairs if k.value == key), None)
        if found is None:
            return None
        line, node = _line(found[0]), found[1]
    is_plain = isinstance(node, ScalarNode)
    return (line, loader.construct_object(node) if is_plain else ...) if line else None


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{shown_path(path)}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ConfigError(f"{shown_path(path)}: is larger than {LARGEST:,} bytes; shorten it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{shown_path(path)}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def _nodes_of(path: Path, text: str) -> tuple[Node | None, Any]:
    """Return the tree of a document, and the loader that makes values of it."""
    try:
        loader = get_yaml_loader()(text)
        return loader.get_single_node(), loader
    except YAMLError as error:
        raise ConfigError(_syntax(path, error)) from None
    except RecursionError:
        raise ConfigError(_too_deep(path)) from None


def _syntax(path: Path, error: YAMLError) -> str:
    """Return the line about text that is no YAML."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        told = " ".join(x for x in (error.context, error.problem) if x)
        tab = "; indent with spaces" if "'\\t'" in told else ""
        return f"{shown_path(path)}{place}: {told}{tab}"
    if isinstance(error, ReaderError):
        return f"{shown_path(path)}: the character {error.character!r} is not allowed in YAML"
    return f"{shown_path(path)}: {' '.join(str(error).split())}"


def _package_of(path: Path, text: str, group: str, foreign: bool) -> str:
    """Return the keys that a file's own are put below. Raises ConfigError if these are not the
    group's."""
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


class _Checker:
    """Walks through the values of a file, and refuses those that YAML reads otherwise than they are
    meant, or that cannot be a part of a configuration."""

    def __init__(self, path: Path, dotted: bool) -> None:
        """dotted: keys may be whole names, such as optimizer.lr, as those of a sweep are."""
        self._path = path
        self._dotted = dotted
        self._sizes: dict[int, int] = {}

    def check(self, node: Node, keys: tuple[str, ...], above: frozenset[int] = frozenset()) -> int:
        """Return the number of values below a node, each alias counted with its values."""
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if id(node) in above:
            raise self._refused(node, "an alias refers to a value that it is part of")
        if len(above) > DEEPEST:
            raise ConfigError(_too_deep(self._path))
        if node.tag not in KINDS:
            tag = node.tag.replace(YAML, "!!")
            raise self._refused(node, f"the tag {tag!r} is not read; write plain values")
        above |= {id(node)}
        size = 1
        if isinstance(node, ScalarNode):
            self._check_scalar(node)
        elif isinstance(node, SequenceNode):
            size += sum(self.check(item, (*keys, "[]"), above) for item in node.value)
        elif isinstance(node, MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = self._key(key, keys, seen)
                size += self.check(value, (*keys, name), above)
        if size > MOST_NODES:
            raise ConfigError(
                f"{shown_path(self._path)} has more than {MOST_NODES:,} values, aliases included"
            )
        self._sizes[id(node)] = size
        return size

    def _key(self, key: Node, keys: tuple[str, ...], seen: set[str]) -> str:
        """Return the name of a key."""
        if key.tag == f"{YAML}merge":
            return "<<"
        if not isinstance(key, ScalarNode) or key.tag != f"{YAML}str":
            shown = f"{key.value!r} " if isinstance(key, ScalarNode) else ""
            raise self._refused(key, f"the key {shown}is {_kind(key)}, but keys are texts")
        name = str(key.value)
        if name in seen:
            raise self._refused(key, f"the key {name!r} is there twice")
        seen.add(name)
        if "." in name and keys[:1] != ("hydra",) and not self._dotted:
            first, _, rest = name.partition(".")
            raise self._refused(
                key, f"the key {name!r} is written as '{first}:' and, indented below it, '{rest}:'"
            )
        return name

    def _check_scalar(self, node: ScalarNode) -> None:
        text = node.value
        if node.tag in (f"{YAML}int", f"{YAML}float"):
            digits = text.lstrip("+-")
            if ":" in digits:
                raise self._refused(
                    node, f"YAML reads {text} to base 60; write a decimal number, or quote a text"
                )
            if re.fullmatch(r"0[0-7_]+", digits):
                raise self._refused(
                    node, f"YAML reads {text} as octal; write it without the 0, or quote a text"
                )
            if len(digits) > MOST_DIGITS:
                raise self._refused(
                    node, f"a number has {len(digits):,} digits, which are too many"
                )

    def _refused(self, node: Node, what: str) -> ConfigError:
        return ConfigError(f"{shown_path(self._path)}, line {_line(node)}: {what}")


def _check_places(
    path: Path, node: MappingNode, name: str, package: str, own_groups: Container[str]
) -> None:
    """Raise ConfigError for settings of Hydra's that nnopt would not follow."""
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
    """Yield the settings of Hydra's that nnopt does not follow, and their lines."""
    if not isinstance(node, MappingNode):
        yield _kind(node), _line(node)
        return
    for key, value in node.value:
        name = f"hydra.{key.value}"
        if name in ("hydra.run", "hydra.sweep") and isinstance(value, MappingNode):
            for inner, _ in value.value:
                if inner.value != "dir":
                    yield f"{name}.{inner.value}", _line(inner)
        elif name not in ("hydra.mode", "hydra.sweeper", "hydra.launcher"):
            yield name, _line(key)


def _default_problems(path: Path, node: Node, own_groups: Container[str]) -> Iterator[str]:
    """Yield what is wrong with the entries of a list of defaults. own_groups: those of which every
    configuration has a file already."""
    if not isinstance(node, SequenceNode):
        yield f"{shown_path(path)}, line {_line(node)}: defaults need a list, such as [none]"
        return
    for item in node.value:
        place = f"{shown_path(path)}, line {_line(item)}: "
        if isinstance(item, ScalarNode) and item.tag == f"{YAML}str":
            continue
        if not isinstance(item, MappingNode) or len(item.value) != 1:
            yield f"{place}an entry of defaults is a file or one 'group: file', got {_kind(item)}"
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
    node, _ = _nodes_of(path, _text_of(path))
    for key, value in node.value if isinstance(node, MappingNode) else []:
        for item in value.value if key.value == "defaults" else []:
            for name, file in item.value if isinstance(item, MappingNode) else [(item, item)]:
                yield str(name.value).split(" ")[-1].lstrip("/"), str(file.value), _line(item)


def _sets_nothing(key: Node, value: Node) -> bool:
    """Return whether an entry of a file is a list of defaults without a file."""
    return key.value == "defaults" and all(item.value == "_self_" for item in value.value)


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return f"a map of {len(node.value)} keys"
    kinds = {"int": "a number", "float": "a number", "bool": "true or false", "null": "null"}
    if isinstance(node, SequenceNode):
        return "a list"
    return kinds.get(node.tag.removeprefix(YAML), "a text")


def _too_deep(path: Path) -> str:
    return f"{shown_path(path)}: is nested more than {DEEPEST} levels deep"


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def shown_path(path: Path) -> str:
    """Return the path for a message, relative to the current folder where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
