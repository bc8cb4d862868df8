"""``summary.json``: written with a checksum, and validated when it is read.

The checksum depends on the values, not on the bytes, so a reformatted file is accepted. A file
without a checksum is accepted, too: an older version wrote it, or the user removed the checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
"""Limits of a summary: levels of nesting, number of values, and characters in one text."""

MAX_INTEGER = 2**64

RUN_KEYS = ("status", "seed", "config", "overrides", "data", "error")
"""Keys of every summary. A summary that lacks one of them is damaged."""

MAX_QUOTED_CHARACTERS = 60
"""Maximum length of a wrong value in an error message."""


class UnusableSummaryError(DataError):
    """Error: a ``summary.json`` cannot be used.

    ``reason`` is a predicate whose subject is the file, such as "was changed".
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
    values = {CHECKSUM: None, **strict(values)}
    write_json(folder / SUMMARY, values | {CHECKSUM: values_digest(values)})


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
        reason = _violation(values)
    except ValueError as error:
        reason = f"it is no JSON that nnopt writes ({error})"
    if reason:
        remedy = "; repeat the run, or delete its folder"
        raise UnusableSummaryError(path, f"is damaged: {reason}", remedy)
    if CHECKSUM in values and values[CHECKSUM] != values_digest(values):
        raise UnusableSummaryError(
            path,
            "was changed after nnopt wrote it: its checksum does not match",
            f'; repeat the run, or accept the changed file: delete its line "{CHECKSUM}"',
        )
    summary = {RENAMED.get(key, key): value for key, value in values.items()}
    summary["config"] = with_new_keys(values["config"])
    summary["overrides"] = [new_override(override) for override in values["overrides"]]
    return Summary(summary, written_ns)


def file_checksums(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 of the files in ``names`` that exist, by name. Raises OSError."""
    paths = [folder / name for name in names]
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def values_digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all values except the checksum itself."""
    rest = {key: value for key, value in values.items() if key != CHECKSUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# the schema ---------------------------------------------------------------------------------------


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_map_of(kind: type, value: Any) -> bool:
    return isinstance(value, dict) and all(type(item) is kind for item in value.values())


def _is_data(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name", ""), str)
        and _is_map_of(str, value.get("sources", {}))
        and _is_map_of(int, value.get("samples", {}))
    )


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_STATUS = f"one of {', '.join(STATUSES)}"
_CHECKS: dict[str, Callable[[Any], bool]] = {
    _STATUS: STATUSES.__contains__,
    "a whole number": lambda value: type(value) is int,
    "a number": lambda value: isinstance(value, int | float),  # or a bool, such as stopped_early
    "a text": lambda value: isinstance(value, str),
    "a list of texts": _is_list_of_texts,
    "a time": _is_time,
    "a map": lambda value: isinstance(value, dict),
    "a map of texts": lambda value: _is_map_of(str, value),
    "a map of name, sources and samples": _is_data,
}
"""Kind of value -> function that checks it."""

_KINDS: dict[str, str] = {
    "status": _STATUS,
    "seed": "a whole number",
    "config": "a map",
    "overrides": "a list of texts",
    "data": "a map of name, sources and samples",
    "error": "a text",
    **dict.fromkeys((*METRICS, *RENAMED, "checkpoint_seconds"), "a number"),
    **dict.fromkeys(("interruptions", "steps_per_epoch"), "a whole number"),
    **dict.fromkeys(("started", "finished"), "a time"),
    **dict.fromkeys(("git", "threads"), "a map"),
    FILES: "a map of texts",
    CHECKSUM: "a text",
    "versions": "a map of texts",
    "machine": "a map",
    **dict.fromkeys(("id", "name"), "a text"),
}
"""Key of a summary -> kind of its value."""

_NULLABLE = {
    *("data", "error", *METRICS, *RENAMED, "steps_per_epoch", "started", "finished", "git"),
    *("threads", FILES),
}
"""Keys whose values can also be null."""


def _violation(values: Any) -> str | None:
    """Describe the first missing or wrong value of a summary; return None if there is none."""
    if not isinstance(values, dict):
        return "it is not a map"
    if missing := [key for key in RUN_KEYS if key not in values]:
        return f"it has no {', '.join(map(repr, missing))}"
    for key, kind in _KINDS.items():
        if key not in values or (values[key] is None and key in _NULLABLE):
            continue
        if not _CHECKS[kind](values[key]):
            found = visible(json.dumps(values[key], ensure_ascii=False))
            return f"{key} is {shortened(found, MAX_QUOTED_CHARACTERS)}, expected {kind}"
    return None


def check_summary(values: Any) -> None:
    """Raise ValueError if values are not those of a summary. Their checksum is not checked."""
    check_tree(values)
    if reason := _violation(values):
        raise ValueError(reason)


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
                    raise ValueError("the magnitude of a whole number is above 2^64")
            elif kind is float and not math.isfinite(value):
                raise ValueError("a number is too large for float64")
        count += len(children)
        if count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if not children:
            return
        level = children
    raise ValueError(f"it is nested more than {MAX_LEVELS} levels deep")
