"""A YAML file as a tree of nodes with their lines, and the values that it may not have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from yaml import (  # type: ignore[import-untyped]
    MappingNode,
    MarkedYAMLError,
    Node,
    ScalarNode,
    SequenceNode,
    YAMLError,
)
from yaml.reader import ReaderError  # type: ignore[import-untyped]

from nnopt.config.hydra_internals import get_yaml_loader
from nnopt.errors import ConfigError

LARGEST = 1_000_000
DEEPEST = 50
MOST_NODES = 3_000
MOST_DIGITS = 4_000
"""Bounds of a file in bytes, levels, values with those of aliases, and digits of a number."""

YAML = "tag:yaml.org,2002:"
KINDS = {f"{YAML}{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


def text_of(path: Path) -> str:
    """Return the text of a file. Raises ConfigError if it cannot be read, is too large, or is not
    UTF-8."""
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


def nodes_of(path: Path, text: str) -> tuple[Node | None, Any]:
    """Return the root node of a document, and the loader that converts nodes to values."""
    try:
        loader = get_yaml_loader()(text)
        return loader.get_single_node(), loader
    except YAMLError as error:
        raise ConfigError(syntax_problem(path, error)) from None
    except RecursionError:
        raise ConfigError(_too_deep(path)) from None


def syntax_problem(path: Path, error: YAMLError) -> str:
    """Return the error message for text that is not YAML."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        told = " ".join(x for x in (error.context, error.problem) if x)
        tab = "; indent with spaces" if "'\\t'" in told else ""
        return f"{shown_path(path)}{place}: {told}{tab}"
    if isinstance(error, ReaderError):
        return f"{shown_path(path)}: the character {error.character!r} is not allowed in YAML"
    return f"{shown_path(path)}: {' '.join(str(error).split())}"


class ValueChecker:
    """Refuses values that YAML reads in an unexpected way, such as 010 as octal, and those that
    cannot be a part of a configuration."""

    def __init__(self, path: Path, dotted: bool) -> None:
        """dotted: keys may contain dots, such as optimizer.lr in the parameters of a sweep."""
        self._path = path
        self._dotted = dotted
        self._sizes: dict[int, int] = {}

    def check(self, node: Node, keys: tuple[str, ...], above: frozenset[int] = frozenset()) -> int:
        """Check a node and all below it. Return their number; an alias counts with its values."""
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
        """Return the name of a key, which must be a text without dots that occurs once."""
        if key.tag == f"{YAML}merge":
            return "<<"
        if not isinstance(key, ScalarNode) or key.tag != f"{YAML}str":
            shown = f"{key.value!r} " if isinstance(key, ScalarNode) else ""
            raise self._refused(key, f"the key {shown}is {kind_of(key)}, but keys are texts")
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
        """Refuse numbers to base 60, octal numbers and numbers of too many digits."""
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
        return ConfigError(f"{shown_path(self._path)}, line {line_of(node)}: {what}")


def kind_of(node: Node) -> str:
    """Return the type of a node's value in words."""
    if isinstance(node, MappingNode):
        return f"a map of {len(node.value)} keys"
    kinds = {"int": "a number", "float": "a number", "bool": "true or false", "null": "null"}
    if isinstance(node, SequenceNode):
        return "a list"
    return kinds.get(node.tag.removeprefix(YAML), "a text")


def _too_deep(path: Path) -> str:
    return f"{shown_path(path)}: is nested more than {DEEPEST} levels deep"


def line_of(node: Node) -> int:
    """Return the line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def shown_path(path: Path) -> str:
    """Return the path for a message, relative to the current folder where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
