"""The keys that vary among runs, and settings: groups of runs that differ only in the seed."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from nnopt.errors import ConfigError, nearest, suggest
from nnopt.results.collect import Run, Value, setting_text
from nnopt.schema import renamed_key

Values = Mapping[str, Value]  # values by dotted key


class _WithSettings(Protocol):
    """A run, or a configuration that has not run."""

    @property
    def settings(self) -> Values: ...


INCOMPLETE = ("diverged", "pruned", "timeout")
"""Statuses of runs that were trained for a known time, but not to the end."""


@dataclass(frozen=True)
class Setting:
    """A group of runs that differ only in the seed."""

    values: Values  # values of the varying keys that these runs have
    runs: Mapping[int, Run]  # finished runs by seed
    left_out: Mapping[str, int]  # number of runs that are not done, by status
    repeated: int  # number of runs that a newer run with the same seed replaces
    incomplete: Mapping[int, Run] = field(default_factory=dict)
    """Runs with a status in ``INCOMPLETE`` by seed, without the seeds of finished runs."""

    def metric(self, name: str) -> dict[int, float]:
        """Return the values of a metric by seed, for the runs that have it."""
        return {s: run.metrics[name] for s, run in self.runs.items() if name in run.metrics}


def known_keys(runs: Iterable[_WithSettings]) -> list[str]:
    """Return the keys of all runs, ordered by config group. A group's name precedes its keys."""
    names = dict.fromkeys(key for run in runs for key in run.settings)
    groups = {name: n for n, name in enumerate(dict.fromkeys(map(_group_of, names)))}
    return sorted(names, key=lambda key: (groups[_group_of(key)], key != _group_of(key)))


def known_metrics(runs: Iterable[Run]) -> list[str]:
    """Return the metrics of the finished runs."""
    return list(dict.fromkeys(n for run in runs if run.status == "done" for n in run.metrics))


def varying_keys(runs: Sequence[_WithSettings]) -> list[str]:
    """Return the keys with at least two values, except the seed.

    A key of a config group is compared only among runs that chose the same file of the group. For
    example, the learning rate varies only if it varies among the runs with the same optimizer.
    """
    varying: list[str] = []
    names = known_keys(runs)
    groups = {_group_of(key) for key in names if "." in key}
    for key in names:
        having = [run for run in runs if key in run.settings]
        if key == "seed" or (key in groups and len(having) < len(runs)):
            continue  # the seed, or a group whose choice is unknown for some runs
        group = _group_of(key)
        given = group if group != key and group in varying else None
        pairs = {(run.settings[given] if given else None, run.settings[key]) for run in having}
        if len(pairs) > len({choice for choice, _ in pairs}):
            varying.append(key)
    return varying


def group_runs(runs: Sequence[Run], keys: Sequence[str]) -> list[Setting]:
    """Group the runs into settings, sorted by the values of the keys.

    Of the runs with the same setting and seed, which are not independent, only the newest is used.
    """
    members: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(sort_key(run.settings, key) for key in keys), []).append(run)
    return [_setting(members[values], keys) for values in sorted(members)]


def _setting(runs: list[Run], keys: Sequence[str]) -> Setting:
    ordered = sorted(runs, key=lambda run: run.ended)
    done = [run for run in ordered if run.status == "done"]
    newest = {run.seed: run for run in done}
    incomplete = [run for run in ordered if run.status in INCOMPLETE and run.seed not in newest]
    newest_incomplete = {run.seed: run for run in incomplete}
    older = [run for run in incomplete if newest_incomplete[run.seed] is not run]
    left_out = Counter(run.status for run in runs if run.status != "done")
    return Setting(
        values={key: runs[0].settings[key] for key in keys if key in runs[0].settings},
        runs=dict(sorted(newest.items())),
        left_out=left_out - Counter(run.status for run in older),
        repeated=len(done) - len(newest) + len(older),
        incomplete=dict(sorted(newest_incomplete.items())),
    )


def sort_key(values: Values, key: str) -> tuple[int, Any]:
    """Return a sort key: missing values are first, then null, numbers, lists and texts."""
    if key not in values:
        return (0, 0)
    match values[key]:
        case None:
            return (1, 0)
        case int() | float() as number:
            return (2, number)
        case tuple() as items:
            return (3, tuple(sort_key({"": item}, "") for item in items))
        case text:
            return (4, text)


# conditions ---------------------------------------------------------------------------------------

_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Condition:
    """A condition such as ``key=value``, ``key=one,other``, ``key!=value`` or ``key<number``."""

    key: str
    operator: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{','.join(self.values)}"

    def holds(self, values: Values) -> bool:
        """Return whether the values meet the condition. If the key is absent, only ``!=`` holds."""
        if self.key not in values:
            return self.operator == "!="
        value = values[self.key]
        if self.operator in ("=", "!="):
            return any(_is_text_of(text, value) for text in self.values) == (self.operator == "=")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False  # only numbers can be greater or less than a number
        return bool(_COMPARISONS[self.operator](value, float(self.values[0])))


def read_condition(
    text: str, known: Sequence[str], operators: Sequence[str] = ("=", "!=", *_COMPARISONS)
) -> Condition:
    """Parse a condition. Raises ConfigError if it is malformed or its key is unknown."""
    match = re.fullmatch(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", text, re.S)
    if not match or match[2] not in operators:
        others = f", or use {' '.join(operators[1:])} instead of =" if len(operators) > 1 else ""
        raise ConfigError(f"cannot read the condition {text!r}: write KEY=VALUE{others}")
    key, sign, value = match[1].strip(), match[2], match[3].strip()
    key = key.removesuffix(".name")  # optimizer.name and optimizer mean the same
    if key not in known:
        raise unknown_name("key", key, known)
    if sign not in _COMPARISONS:
        return Condition(key, sign, tuple(_alternatives(value)))
    if _number(value) is None:
        raise ConfigError(f"cannot read the condition {text!r}: {value!r} is no number")
    return Condition(key, sign, (value,))


def _alternatives(text: str) -> list[str]:
    """Split a text at the commas outside of lists and mappings."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def unknown_name(kind: str, name: str, known: Sequence[str]) -> ConfigError:
    """Return the error for a key or metric that no run has, with the nearest known name."""
    if kind == "key" and (message := renamed_key(name)):
        return ConfigError(message)
    same_end = [other for other in known if other.rpartition(".")[2] == name]
    if same_end and nearest(name, known) is None:  # such as "lr" for "optimizer.lr"
        hint = f"did you mean {' or '.join(map(repr, same_end))}?"
    else:
        hint = suggest(name, known)
    return ConfigError(f"unknown {kind} {name!r}; {hint}")


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _is_text_of(text: str, value: Value) -> bool:
    """Return whether a text from the user means the value, as ``1e-3`` means 0.001."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(text) == value
    if isinstance(value, str):
        return text == value
    return text.replace(" ", "").lower() == setting_text(value).replace(" ", "").lower()


def _group_of(key: str) -> str:
    return key.partition(".")[0]
