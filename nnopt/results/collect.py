"""Search for runs in folders. Each ``summary.json`` is read into a ``Run`` for comparisons."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import starmap
from pathlib import Path, PurePath
from typing import Any

from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.received_files import TABLE_BYTES, read_received
from nnopt.results.metrics import METRICS
from nnopt.results.summary import FILES, read_summary
from nnopt.schema import WITHOUT_EFFECT, new_override, with_added_keys
from nnopt.schema.values import flatten, format_value

Value = bool | int | float | str | tuple[Any, ...] | None  # value of a key; lists become tuples


@dataclass(frozen=True)
class Run:
    """One run, as read from its ``summary.json``.

    ``settings`` has the values of the seed and of every key that can affect a result, by dotted
    key. The entry of a group with a key ``name``, such as ``optimizer``, is the value of this key.
    For other groups, such as ``regularizer``, it is the file chosen on the command line, if any.
    """

    folder: Path
    seed: int
    status: str  # one of nnopt.results.summary.STATUSES
    error: str | None
    settings: Mapping[str, Value]
    metrics: Mapping[str, float]  # numbers in the summary, by name
    sources: frozenset[str]  # SHA-256 of each data file; empty for generated data
    ended: float  # seconds since 1970; if unknown, the time of the last change of the summary
    checksums: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of result files by name
    named_files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files of ``dataset.train`` and ``dataset.test``, by key, if known."""
    summary: Mapping[str, Any] = field(default_factory=dict, repr=False)  # empty unless requested

    @property
    def test_file(self) -> str | None:
        """The SHA-256 of the file that contains only the test samples, or None without one."""
        return self.named_files.get("dataset.test")

    @property
    def test_sources(self) -> frozenset[str]:
        """The SHA-256 of each file on which the test samples depend."""
        return self.sources if self.test_file is None else frozenset({self.test_file})


@dataclass
class RunIndex:
    """The runs and sweeps that were found in some folders and their subfolders."""

    runs: list[Run] = field(default_factory=list)  # ended, with any status
    unfinished: list[Path] = field(default_factory=list)  # running or killed; see io.locks.is_held
    sweeps: list[Path] = field(default_factory=list)
    pending: int = 0  # configurations of these sweeps that have not started
    missing: int = 0  # started runs of these sweeps whose folder is missing or is a link
    damaged: list[str] = field(default_factory=list)  # a message for each unreadable file or folder
    damaged_folders: dict[Path, str] = field(default_factory=dict)  # folder of a run -> message


def find_runs(directories: Sequence[Path], with_summaries: bool = False) -> RunIndex:
    """Read every run in the directories and their subdirectories once, without following links.

    With ``with_summaries``, the runs contain all values of their summaries. Raises ConfigError if a
    directory does not exist or no run is found.
    """
    if missing := [path for path in directories if not path.is_dir()]:
        raise ConfigError(
            [f"{shown(path)} is not a folder; give folders of runs or sweeps" for path in missing]
        )
    index = RunIndex()
    seen: set[str] = set()
    for directory in directories:
        for folder, files in _folders(directory, index.damaged):
            if (real := os.path.realpath(folder)) not in seen:
                seen.add(real)
                _add_folder(index, folder, files, with_summaries)
    if not (index.runs or index.unfinished or index.damaged):
        names = ", ".join(map(shown, directories))
        raise ConfigError(f"no run in or below {names}: the folder of a run has a summary.json")
    return index


def _add_folder(index: RunIndex, folder: Path, files: list[str], with_summaries: bool) -> None:
    if "summary.json" in files:
        try:
            run = read_run(folder, with_summaries)
        except DataError as error:
            index.damaged.append(str(error))
            index.damaged_folders[folder] = str(error)
            return
        if run.status == "running":
            index.unfinished.append(folder)
        else:
            index.runs.append(run)
    elif "run.log" in files:
        index.unfinished.append(folder)
    elif "results.csv" in files:
        index.sweeps.append(folder)
        rows = [row for row in read_table(folder) if not _is_folder(folder, row.get("id"))]
        pending = [row.get("status") for row in rows].count("pending")
        index.pending += pending
        index.missing += len(rows) - pending


def _folders(directory: Path, problems: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each visible folder and the names of its files. Add errors to ``problems``."""

    def note(error: OSError) -> None:
        problems.append(f"cannot read {shown(Path(error.filename))}: {error.strerror}")

    for folder, below, files in os.walk(directory, onerror=note):
        if "summary.json" in files or "run.log" in files:
            below.clear()  # a run contains no other runs
        yield Path(folder), files
        below[:] = sorted(name for name in below if not name.startswith("."))


def _is_folder(sweep: Path, name: str | None) -> bool:
    """Return whether a run's folder exists and is no link. name: its name in ``results.csv``."""
    with suppress(OSError, ValueError):
        path = sweep / str(name)
        return bool(name) and os.sep not in str(name) and path.is_dir() and not path.is_symlink()
    return False


def read_table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's ``results.csv``, or [] if the file is missing or invalid."""
    with suppress(OSError, ValueError, csv.Error):
        data = read_received(folder / "results.csv", folder, TABLE_BYTES)
        header, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
        # A column ``steps_done`` shows an old version, in which ``steps`` was a key, not a metric.
        metrics = {name for name in METRICS if f"{name}_done" not in header}

        def renamed(name: str, cell: str) -> tuple[str, str]:
            if name in metrics:
                return name, cell
            new, _, value = new_override(f"{name}={cell}").partition("=")
            return new, value

        if len(set(header)) == len(header):
            return [dict(starmap(renamed, zip(header, row, strict=True))) for row in rows]
    return []


def read_run(folder: Path, with_summary: bool = False) -> Run:
    """Read the summary of one run. Raises DataError if the summary is invalid."""
    read = read_summary(folder)
    summary, ended = read.values, read.written_ns / 1e9
    if finished := summary.get("finished"):  # preferred: the file's time may be that of a copy
        ended = datetime.fromisoformat(finished).timestamp()
    sources = (summary["data"] or {}).get("sources", {})
    dataset = summary["config"].get("dataset")
    return Run(
        folder=folder,
        seed=summary["seed"],
        status=summary["status"],
        error=summary["error"],
        settings=settings_of(summary["config"], summary["overrides"]),
        metrics={
            key: float(value)
            for key, value in summary.items()
            if type(value) in (int, float) and key != "seed"
        },
        sources=frozenset(sources.values()),
        ended=ended,
        checksums=summary.get(FILES) or {},
        named_files=_named_files(sources, dataset) if isinstance(dataset, dict) else {},
        summary=summary if with_summary else {},
    )


def _named_files(sources: Mapping[str, str], dataset: Mapping[str, Any]) -> dict[str, str]:
    """Map ``dataset.train`` and ``dataset.test`` to the SHA-256 of their files, where known.

    The paths in ``sources`` are absolute or relative to the data folder. The paths in the
    configuration may also be relative to the working or home directory, or contain links.
    """
    train, test = (_named(sources, dataset.get(role)) for role in ("train", "test"))
    if not train and isinstance(dataset.get("train"), str) and dataset.get("test") is None:
        train = set(sources)
    names = {
        "dataset.train": train - test if len(train) > 1 else train,
        "dataset.test": test - train if len(test) > 1 else test,
    }
    return {key: sources[found.pop()] for key, found in names.items() if len(found) == 1}


def _named(sources: Mapping[str, str], name: Any) -> set[str]:
    """Return the paths in ``sources`` that may mean the same file as the configured ``name``."""
    if not isinstance(name, str):
        return set()
    path = PurePath(name.removeprefix("~/"))
    return {source for source in sources if source == name or source.endswith(f"/{path}")}


def settings_of(config: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Value]:
    """Build ``Run.settings`` from a resolved configuration and the overrides that led to it.

    Keys already have their current names. Keys of later versions are added with their defaults, so
    that runs of all versions can be compared. The entry of a config group precedes those of its
    keys.
    """
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    choices = {key: value for key, _, value in pairs if "." not in key}
    settings: dict[str, Value] = {}
    for key, value in with_added_keys(config).items():
        if key in WITHOUT_EFFECT:
            continue
        if key == "plugins" and isinstance(value, list):
            value = [_plugin_name(entry) for entry in value]
        if not isinstance(value, dict):
            settings[key] = _frozen(value)
            continue
        if "name" in value:
            settings[key] = _frozen(value["name"])
        elif key in choices:
            settings[key] = choices[key]
        keys = flatten(value, f"{key}.")
        settings |= {name: _frozen(item) for name, item in keys if not name.endswith(".name")}
    return settings


def _plugin_name(entry: Any) -> Any:
    """Return the name and the first digits of the hash of a plug-in, but not its folder."""
    if not isinstance(entry, dict):
        return entry
    return f"{PurePath(str(entry.get('source'))).name} {str(entry.get('sha256'))[:10]}"


def _frozen(value: Any) -> Value:
    """Convert a value to a hashable value: a list to a tuple, a mapping to text."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return setting_text(value)
    return value  # type: ignore[no-any-return]  # other JSON values are scalars


def setting_text(value: Any) -> str:
    """Format a value in the syntax of overrides: ``null``, ``true``, ``[64, 32]``, ``0.001``.

    A float with an integer value is formatted like an int: ``0`` for 0.0.
    """
    return format_value(value, _scalar_text)


def _scalar_text(value: str | float) -> str:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if is_whole else str(value)
