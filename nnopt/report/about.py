"""The head of a report: command, settings, data, time and machine."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from nnopt.analysis.number_format import format_duration
from nnopt.io.own_files import SUMMARY
from nnopt.report.points import Point, open_log, read_plan
from nnopt.results.collect import setting_text
from nnopt.schema import new_override

MAX_VALUES = 12  # limit of the listed values of a key, and of the lines of a fact
Fact = tuple[str, list[str]]  # a label and its lines of text


def about(points: Sequence[Point], keys: Sequence[str], sweep: Path | None) -> list[Fact]:
    """Return the known facts in the order of the page.

    keys: the keys that vary. sweep: the folder of the sweep if all points belong to one, else None.
    """
    arguments = _arguments(sweep) if sweep else []
    flag = [] if any(argument.startswith("ablation=") for argument in arguments) else ["-m"]
    command = [shlex.join(["nnopt", "run", *flag, *arguments])] if arguments else []
    if len(points) == 1 and not sweep and points[0].summary:
        command = [shlex.join(["nnopt", "run", *_shared(points)])]
    facts = [
        ("Command", command),
        ("Overrides", [] if command else [shlex.join(_shared(points))]),
        ("Varied", _varied(points, keys)),
        ("Fixed", _fixed(points, keys)),
        ("Data", _distinct(points, _data)),
        ("Time", _times(points)),
        ("Machine", _distinct(points, _machine)),
        ("Versions", _distinct(points, _versions)),
        ("Code", _distinct(points, _code)),
    ]
    return [(label, lines) for label, lines in facts if any(lines)]


def _arguments(sweep: Path) -> list[str]:
    """Return the arguments of the sweep's command line; renamed keys have their new names."""
    arguments = read_plan(sweep).get("words")
    if isinstance(arguments, list) and all(isinstance(text, str) for text in arguments):
        return list(map(new_override, arguments))
    return []


def _shared(points: Sequence[Point]) -> list[str]:
    """Return the overrides that all points share."""
    lists = [point.summary["overrides"] for point in points if point.summary]
    return [text for text in lists[0] if all(text in other for other in lists)] if lists else []


def _varied(points: Sequence[Point], keys: Sequence[str]) -> list[str]:
    texts = {}
    for key in keys:
        values = dict.fromkeys(setting_text(p.settings[key]) for p in points if key in p.settings)
        texts[key] = _in_order(values)
    seeds = sorted({point.seed for point in points if point.seed is not None})
    if len(seeds) > 1:
        texts["seed"] = list(map(str, seeds))
    return [f"{key}: {_listed(values)}" for key, values in texts.items()]


def _in_order(values: Iterable[str]) -> list[str]:
    """Return the numbers in ascending order, followed by the other values in the given order."""

    def rank(text: str) -> tuple[bool, float]:
        with suppress(ValueError):
            return False, float(text)
        return True, 0.0

    return sorted(values, key=rank)


def _listed(values: Sequence[str]) -> str:
    if len(values) <= MAX_VALUES:
        return ", ".join(values)
    return f"{', '.join(values[: MAX_VALUES - 2])}, … {values[-1]} ({len(values)} values)"


def _fixed(points: Sequence[Point], keys: Sequence[str]) -> list[str]:
    """Return the choices of config groups and the top-level keys that all points share."""
    known = [point for point in points if point.folder and point.settings]
    if not known:
        return []
    shared = [
        f"{key}={setting_text(value)}"
        for key, value in known[0].settings.items()
        if "." not in key and key not in keys and key != "seed" and value is not None
        if all(point.settings.get(key) == value for point in known)
    ]
    return [" ".join(shared)]


# If the summary lacks a value, the following functions raise KeyError or TypeError.


def _data(point: Point) -> str:
    data = point.summary["data"]
    digests = [digest[:8] for digest in data["sources"].values()]
    if not digests:
        return f"{data['name']}, generated from a seed"
    more = ", …" if len(digests) > 4 else ""
    return f"{data['name']}, SHA-256 of its files: {', '.join(digests[:4])}{more}"


def _machine(point: Point) -> str:
    machine, threads = point.summary["machine"], point.summary.get("threads") or {}
    parts = [str(machine["cpu"]), f"{machine['usable_cores']} of {machine['logical_cores']} cores"]
    if machine.get("memory_mb"):
        parts.append(f"{machine['memory_mb'] / 1024:.0f} GiB")
    if count := threads.get("used", threads.get("blas")):
        parts.append(f"{count} thread{'s' if count > 1 else ''}")
    if accelerator := machine.get("accelerator"):
        parts.insert(0, str(accelerator.get("name", accelerator["device"])))
    return ", ".join([*parts, str(machine["platform"])])


def _versions(point: Point) -> str:
    return ", ".join(f"{name} {version}" for name, version in point.summary["versions"].items())


def _code(point: Point) -> str:
    git = point.summary["git"]
    return f"commit {git['commit'][:12]}{', with changes' if git['dirty'] else ''}"


def _distinct(points: Sequence[Point], describe: Any) -> list[str]:
    """Return each distinct description once, with its number of points if descriptions differ."""
    counts: Counter[str] = Counter()
    for point in points:
        # The summary of another version may lack values.
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            if text := describe(point):
                counts[text] += 1
    if len(counts) == 1:
        return list(counts)
    lines = [f"{text} ({count} points)" for text, count in counts.most_common(MAX_VALUES)]
    return [*lines, f"… and {len(counts) - MAX_VALUES} more"] if len(counts) > MAX_VALUES else lines


def _times(points: Sequence[Point]) -> list[str]:
    """Return the first start and the last end of the points, and the sum of their durations."""
    starts, ends = filter(None, map(_start, points)), filter(None, map(_end, points))
    lines = []
    if first := min(starts, default=None):
        last = max(ends, default=None)
        lines.append(f"{first:%Y-%m-%d %H:%M}" + (f" to {last:%Y-%m-%d %H:%M}" if last else ""))
    if seconds := [p.metrics["total_seconds"] for p in points if "total_seconds" in p.metrics]:
        mean = f", {format_duration(sum(seconds) / len(seconds))} on average"
        total = f"{format_duration(sum(seconds))} in all"
        lines.append(total + (mean if len(seconds) > 1 else ""))
    return lines


INVALID_TIME = (KeyError, TypeError, ValueError, OverflowError)
"""Errors for a missing or invalid time, or one that is out of range in the local time zone."""


def _start(point: Point) -> datetime | None:
    """Return the start time in the summary, or else in the first line of the log."""
    with suppress(*INVALID_TIME):
        return _local(point.summary["started"])
    if point.folder:
        with suppress(OSError, *INVALID_TIME), open_log(point.folder) as log:
            return _local(log.read(19).decode("ascii"))
    return None


def _end(point: Point) -> datetime | None:
    """Return the end time in the summary, or else the time when the summary was last changed."""
    with suppress(*INVALID_TIME):
        return _local(point.summary["finished"])
    if point.folder:
        with suppress(OSError, *INVALID_TIME):
            return datetime.fromtimestamp((point.folder / SUMMARY).stat().st_mtime)
    return None


def _local(time: str) -> datetime:
    """Convert a time to the local time zone, and remove the zone."""
    return datetime.fromisoformat(time).astimezone().replace(tzinfo=None)
