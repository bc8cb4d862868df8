"""Parses a YAML file into nodes with line numbers. Refuses ambiguous and dangerous values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from yaml import MappingNode, MarkedYAMLError, Node, ScalarNode, SequenceNode, YAMLError
from yaml.reader import ReaderError

from nnopt.config.hydra_internals import get_yaml_loader
from nnopt.errors import ConfigError

MAX_FILE_BYTES = 1_000_000
MAX_LEVELS = 50
MAX_VALUES = 3_000
MAX_DIGITS = 4_000
"""Limits of a file: bytes, nested levels, values, and digits of one number.

The values of an alias count each time that the alias occurs.
"""

TOO_DEEP = f"is nested more than {MAX_LEVELS} levels deep"

YAML = "tag:yaml.org,2002:"
KINDS = {f"{YAML}{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map")}


def text_of(path: Path) -> str:
    """Return the text of a file. Raises ConfigError if it is unreadable, too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{shown_path(path)}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{shown_path(path)}: is larger than {MAX_FILE_BYTES:,} bytes; shorten it"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{shown_path(path)}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; "
            "save the file as UTF-8"
        ) from None


def nodes_of(path: Path, text: str) -> tuple[Node | None, Any]:
    """Return the root node of a document, and the loader of its values. Raises ConfigError."""
    try:
        loader = get_yaml_loader()(text)
        return loader.get_single_node(), loader
    except YAMLError as error:
        raise ConfigError(syntax_problem(path, error)) from None
    except RecursionError:
        raise ConfigError(f"{shown_path(path)}: {TOO_DEEP}") from None


def syntax_problem(path: Path, error: YAMLError) -> str:
    """Return the error message for text that is not YAML."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        location = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(x for x in (error.context, error.problem) if x)
        hint = "; indent with spaces" if "'\\t'" in reason else ""
        return f"{shown_path(path)}{location}: {reason}{hint}"
    if isinstance(error, ReaderError):
        return f"{shown_path(path)}: the character {error.character!r} is not allowed in YAML"
    return f"{shown_path(path)}: {' '.join(str(error).split())}"


class ValueChecker:
    """Refuses unsupported values, and values that YAML reads unexpectedly, such as 010."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes: dict[int, int] = {}

    def check(self, node: Node, dotted: bool, above: frozenset[int] = frozenset()) -> int:
        """Check a node and all nodes in it. Return their number, counting each use of an alias.

        Keys may contain dots if ``dotted`` is true. ``above`` has the ids of the enclosing nodes.
        """
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        if id(node) in above:
            raise self._refused(node, "an alias refers to a value that contains it")
        if len(above) > MAX_LEVELS:
            raise ConfigError(f"{shown_path(self._path)}: {TOO_DEEP}")
        if node.tag not in KINDS:
            tag = node.tag.replace(YAML, "!!")
            raise self._refused(node, f"the tag {tag!r} is not supported; write plain values")
        above |= {id(node)}
        size = 1
        if isinstance(node, ScalarNode):
            self._check_scalar(node)
        elif isinstance(node, SequenceNode):
            size += sum(self.check(item, dotted, above) for item in node.value)
        elif isinstance(node, MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = self._key(key, dotted, seen)
                is_hydra = name == "hydra" and len(above) == 1
                size += self.check(value, dotted or is_hydra, above)
        if size > MAX_VALUES:
            raise ConfigError(
                f"{shown_path(self._path)} has more than {MAX_VALUES:,} values, aliases included"
            )
        self._sizes[id(node)] = size
        return size

    def _key(self, key: Node, dotted: bool, seen: set[str]) -> str:
        """Return the name of a key. Raises ConfigError unless the key is a text and is unique."""
        if key.tag == f"{YAML}merge":
            return "<<"
        if not isinstance(key, ScalarNode) or key.tag != f"{YAML}str":
            shown = f"{key.value!r} " if isinstance(key, ScalarNode) else ""
            raise self._refused(key, f"the key {shown}is {kind_of(key)}, but keys are texts")
        name = str(key.value)
        if name in seen:
            raise self._refused(key, f"the key {name!r} occurs twice")
        seen.add(name)
        if "." in name and not dotted:
            first, _, rest = name.partition(".")
            nested = f"'{first}:' and, indented below it, '{rest}:'"
            raise self._refused(key, f"the key {name!r} must be nested: {nested}")
        return name

    def _check_scalar(self, node: ScalarNode) -> None:
        """Refuse numbers in base 60, octal numbers and numbers with too many digits."""
        if node.tag not in (f"{YAML}int", f"{YAML}float"):
            return
        text, digits = node.value, node.value.lstrip("+-")
        if ":" in digits:
            reason = f"YAML reads {text} in base 60; write a decimal number, or quote a text"
        elif re.fullmatch(r"0[0-7_]+", digits):
            reason = f"YAML reads {text} as octal; write it without the 0, or quote a text"
        elif len(digits) > MAX_DIGITS:
            reason = f"a number has {len(digits):,} digits; at most {MAX_DIGITS:,} are allowed"
        else:
            return
        raise self._refused(node, reason)

    def _refused(self, node: Node, reason: str) -> ConfigError:
        return ConfigError(f"{shown_path(self._path)}, line {line_of(node)}: {reason}")


def kind_of(node: Node) -> str:
    """Return the type of a value for messages."""
    if isinstance(node, MappingNode):
        return f"a map of {len(node.value)} keys"
    kinds = {"int": "a number", "float": "a number", "bool": "true or false", "null": "null"}
    if isinstance(node, SequenceNode):
        return "a list"
    return kinds.get(node.tag.removeprefix(YAML), "a text")


def line_of(node: Node) -> int:
    """Return the line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def shown_path(path: Path) -> str:
    """Return a path for messages. A path inside the current folder is relative to that folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
