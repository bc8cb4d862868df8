"""``summary.json``: written with a checksum, and validated when it is read.

The checksum depends on the values, not on the bytes, so a reformatted file is accepted. A file
without a checksum is accepted too: an older version of nnopt wrote it, or the user has edited the
file and deleted the checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nnopt.errors import DataError
from nnopt.io.atomic_files import shown, strict, write_json
from nnopt.io.own_files import SUMMARY
from nnopt.io.received_files import SUMMARY_BYTES, open_received, parse_json
from nnopt.io.safe_text import shortened, visible
from nnopt.results.metrics import METRICS
from nnopt.schema import new_override, with_new_keys

CHECKSUM, FILES = "sha256", "files"
"""Keys of a summary: its own checksum, and the checksums of the other files of the run."""

RENAMED = {"found_lr": "suggested_lr"}
"""Keys of earlier versions -> current keys."""

STATUSES = ("running", "done", "pruned", "interrupted", "failed", "diverged", "timeout")

MAX_LEVELS, MAX_VALUES, MAX_CHARACTERS = 50, 100_000, 100_000
"""Limits of a summary: levels of nesting, number of values, and characters of one text."""

MAX_INTEGER = 2**64

RUN_KEYS = ("status", "seed", "config", "overrides", "data", "error")
"""Keys of every summary. If a summary lacks one, it is damaged, and its point runs again."""

MAX_QUOTED_CHARACTERS = 60
"""Maximum length of a wrong value in an error message."""


class UnusableSummaryError(DataError):
    """Error: a ``summary.json`` cannot be used.

    Attributes:
        reason: The reason as a predicate whose subject is the file, such as "was changed".
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{shown(path)} {reason}{remedy}")
        self.reason = reason


@dataclass(frozen=True)
class Summary:
    """The values of a ``summary.json``, and the time of its last change in ns since 1970."""

    values: Mapping[str, Any]
    written_ns: int


def write_summary(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the ``summary.json`` of a folder with its checksum. Raises OutputError."""
    rest = strict({key: value for key, value in values.items() if key != CHECKSUM})
    write_json(folder / SUMMARY, {CHECKSUM: _digest(rest), **rest})


def read_summary(folder: Path) -> Summary:
    """Read the ``summary.json`` of a folder. Raises UnusableSummaryError."""
    path = folder / SUMMARY
    try:
        with open_received(path, folder, SUMMARY_BYTES) as file:
            written_ns = os.fstat(file.fileno()).st_mtime_ns
            data = file.read(SUMMARY_BYTES)
    except OSError as error:
        raise UnusableSummaryError(path, f"cannot be read: {error.strerror}", "") from error
    try:
        values = parse_json(data)
        check_tree(values)
    except ValueError as error:
        raise _damaged(folder, f"it is no JSON that nnopt writes ({error})") from error
    if reason := _wrong(values):
        raise _damaged(folder, reason)
    if CHECKSUM in values:
        rest = {key: value for key, value in values.items() if key != CHECKSUM}
        if values[CHECKSUM] != _digest(rest):
            raise UnusableSummaryError(
                path,
                "was changed after nnopt wrote it: its checksum does not match",
                f'. The run is left out. Run it again; or delete the line "{CHECKSUM}" from the '
                "file to accept it as it is",
            )
    return Summary(_with_new_names(values), written_ns)


def _with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the old names of keys and of the configuration in a summary."""
    summary = {RENAMED.get(key, key): value for key, value in values.items()}
    summary["config"] = with_new_keys(values["config"])
    summary["overrides"] = [new_override(override) for override in values["overrides"]]
    return summary


def _damaged(folder: Path, reason: str) -> UnusableSummaryError:
    """Return the error for a summary that nnopt cannot have written."""
    return UnusableSummaryError(
        folder / SUMMARY,
        f"is damaged: {reason}",
        "; the run is left out. Run it again, or delete its folder",
    )


def file_checksums(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 of those files that exist, by name. Raises OSError."""
    paths = [folder / name for name in names]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def _digest(rest: Mapping[str, Any]) -> str:
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# the schema ---------------------------------------------------------------------------------------


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _maps_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_data(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name", ""))
        and _maps_texts(value.get("sources", {}))
        and isinstance(samples := value.get("samples", {}), dict)
        and all(map(_is_whole_number, samples.values()))
    )


@dataclass(frozen=True)
class _Rule:
    """A check of the value of a key, and the expected kind of value as text for messages."""

    is_valid: Callable[[Any], bool]
    expected: str
    can_be_null: bool = False


# bool is a subclass of int, so stopped_early is a number.
_NUMBER = _Rule(lambda value: isinstance(value, int | float), "a number", can_be_null=True)
_MAP = _Rule(lambda value: isinstance(value, dict), "a map")
_MAP_OR_NULL = replace(_MAP, can_be_null=True)

_RULES: dict[str, _Rule] = {
    "status": _Rule(STATUSES.__contains__, f"one of {', '.join(STATUSES)}"),
    "seed": _Rule(_is_whole_number, "a whole number"),
    "config": _MAP,
    "overrides": _Rule(_is_texts, "a list of texts"),
    "data": _Rule(_is_data, "a map of name, sources and samples", can_be_null=True),
    "error": _Rule(_is_text, "a text", can_be_null=True),
    **dict.fromkeys((*METRICS, *RENAMED), _NUMBER),
    "started": _Rule(_is_time, "a time", can_be_null=True),
    "finished": _Rule(_is_time, "a time", can_be_null=True),
    "git": _MAP_OR_NULL,
    "threads": _MAP_OR_NULL,
    FILES: _Rule(_maps_texts, "a map of texts", can_be_null=True),
    CHECKSUM: _Rule(_is_text, "a text"),
    "versions": _Rule(_maps_texts, "a map of texts"),
    "machine": _MAP,
    "id": _Rule(_is_text, "a text"),
    "name": _Rule(_is_text, "a text"),
}


def _wrong(values: Any) -> str | None:
    """Describe the first violation of the rules; return None if there is none."""
    if not isinstance(values, dict):
        return "it is not a map"
    if missing := [key for key in RUN_KEYS if key not in values]:
        return f"it has no {', '.join(map(repr, missing))}"
    for key, rule in _RULES.items():
        if key not in values or (rule.can_be_null and values[key] is None):
            continue
        if not rule.is_valid(values[key]):
            found = visible(json.dumps(values[key], ensure_ascii=False))
            return f"{key} is {shortened(found, MAX_QUOTED_CHARACTERS)}, expected {rule.expected}"
    return None


def check_tree(values: Any) -> None:
    """Raise ValueError if JSON values exceed a limit or a number is not finite."""
    level, count = [values], 0
    for _ in range(MAX_LEVELS):
        children: list[Any] = []
        for value in level:
            kind = type(value)  # JSON has exact types, no subclasses
            if kind is str:
                if len(value) > MAX_CHARACTERS:
                    raise ValueError(f"a text has more than {MAX_CHARACTERS:,} characters")
            elif kind is dict:
                children += value
                children += value.values()
            elif kind is list:
                children += value
            elif kind is int:
                if abs(value) > MAX_INTEGER:
                    raise ValueError("a whole number is above 2^64")
            elif kind is float and not math.isfinite(value):
                raise ValueError("a number is too large for float64")
        count += len(children)
        if count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if not children:
            return
        level = children
    raise ValueError(f"it is nested more than {MAX_LEVELS} levels deep")
