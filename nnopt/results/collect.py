"""The runs below some folders: every ``summary.json``, read into a record that can be compared."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.received_files import TABLE_BYTES, read_received
from nnopt.results.metrics import METRICS
from nnopt.results.summary import FILES, read_summary
from nnopt.schema import WITHOUT_EFFECT, new_override, with_new_keys

Value = bool | int | float | str | tuple[Any, ...] | None
"""What a key is set to; a list is a tuple of such values."""


@dataclass(frozen=True)
class Run:
    """What one ``summary.json`` tells.

    settings: the seed, and every key of the resolved configuration that can change a result, by
    its dotted name; which file of a group was chosen stands under the group's own name
    (``optimizer`` beside ``optimizer.lr``). Of a group whose keys hold no name, such as
    ``regularizer``, that is known only if the command line chose it.
    metrics: the numbers of the summary; one that is null is not there.
    sources: SHA-256 of the data files, none for made data. written: when the run ended, in seconds
    since 1970; if the summary has no such time, when its file was written. checksums: SHA-256 of
    the run's own files, by name, as far as the summary has them. named_files: SHA-256 of the files
    that ``dataset.train`` and ``dataset.test`` name, by these keys, as far as known. summary: all
    its values; empty unless they were asked for.
    """

    folder: Path
    seed: int
    status: str
    error: str | None
    settings: Mapping[str, Value]
    metrics: Mapping[str, float]
    sources: frozenset[str]
    written: float
    checksums: Mapping[str, str] = field(default_factory=dict)
    named_files: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def test_file(self) -> str | None:
        """Return the SHA-256 of the file that holds all test samples and no others, if any."""
        return self.named_files.get("dataset.test")

    @property
    def test_sources(self) -> frozenset[str]:
        """Return the SHA-256 of the files on which the test samples depend."""
        return self.sources if self.test_file is None else frozenset({self.test_file})


@dataclass
class RunIndex:
    """The contents of some folders.

    runs: those that have ended, in any way. unfinished: folders of runs that have not ended or that
    were killed (``nnopt.io.locks.is_held`` tells them apart). sweeps: folders of sweeps.
    pending: the number of their points that have not begun. absent: of those that have, the number
    whose folder is not there, or is a link. damaged: a line for each summary or
    folder that cannot be read; ``damaged_folders`` has the lines by the folders of the runs.
    """

    runs: list[Run] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    sweeps: list[Path] = field(default_factory=list)
    pending: int = 0
    absent: int = 0
    damaged: list[str] = field(default_factory=list)
    damaged_folders: dict[Path, str] = field(default_factory=dict)


def find_runs(directories: Sequence[Path], with_summaries: bool = False) -> RunIndex:
    """Read every run in and below the directories, each once. Links inside them are not followed.

    with_summaries: keep all values of the summaries, which need memory. Raises ConfigError, with
    every problem, if a directory does not exist or there is no run.
    """
    if missing := [path for path in directories if not path.is_dir()]:
        raise ConfigError(
            [f"{shown(path)} is no folder; name folders of runs or sweeps" for path in missing]
        )
    found = RunIndex()
    seen: set[str] = set()
    for directory in directories:
        for folder, files in _folders(directory, found.damaged):
            if (real := os.path.realpath(folder)) in seen:
                continue
            seen.add(real)
            if "summary.json" not in files:
                if "run.log" in files:
                    found.unfinished.append(folder)
                elif "results.csv" in files:
                    found.sweeps.append(folder)
                    statuses = [row.get("status") for row in _without_folder(folder)]
                    pending = statuses.count("pending")
                    found.pending += pending
                    found.absent += len(statuses) - pending
                continue
            try:
                run = read_run(folder, with_summaries)
            except DataError as error:
                found.damaged.append(str(error))
                found.damaged_folders[folder] = str(error)
                continue
            if run.status == "running":
                found.unfinished.append(folder)
            else:
                found.runs.append(run)
    if not (found.runs or found.unfinished or found.damaged):
        places = ", ".join(map(shown, directories))
        raise ConfigError(f"no run in or below {places}: a run's folder holds a summary.json")
    return found


def _folders(directory: Path, problems: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files), in the order of the folders' names."""

    def note(error: OSError) -> None:
        problems.append(f"cannot read {shown(Path(error.filename))}: {error.strerror}")

    for folder, below, files in os.walk(directory, onerror=note):
        if "summary.json" in files or "run.log" in files:
            below.clear()  # plots and the like: nobody looks for a run inside a run
        yield Path(folder), files
        below[:] = sorted(name for name in below if not name.startswith("."))


def _without_folder(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's table whose points have no folder; none if it cannot be read."""
    return [row for row in read_table(folder) if not _is_folder(folder, row.get("id"))]


def _is_folder(folder: Path, name: str | None) -> bool:
    """Return whether a point's folder is there; a link to one does not count."""
    with suppress(OSError, ValueError):
        path = folder / str(name)
        return bool(name) and os.sep not in str(name) and path.is_dir() and not path.is_symlink()
    return False


def read_table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's ``results.csv``; none if nnopt cannot have written it."""
    path = folder / "results.csv"
    with suppress(OSError, ValueError, csv.Error):
        data = read_received(path, folder, TABLE_BYTES)
        header, *rows = csv.reader(io.StringIO(data.decode("utf-8"), newline=""))
        if len(set(header)) == len(header) and all(len(row) == len(header) for row in rows):
            names = _without_metrics(header)
            return [
                dict(_new_cell(*cell) for cell in zip(header, row, names, strict=True))
                for row in rows
            ]
    return []


def _without_metrics(header: Sequence[str]) -> list[bool]:
    """Return for each column whether it is a key. ``steps`` is a metric, and once was a key."""
    return [name not in METRICS or f"{name}_done" in header for name in header]


def _new_cell(name: str, cell: str, is_key: bool) -> tuple[str, str]:
    """Return the present names of a column and its value."""
    if not is_key:
        return name, cell
    new, _, value = new_override(f"{name}={cell}").partition("=")
    return new, value


def read_run(folder: Path, with_summary: bool = False) -> Run:
    """Return the record of one run. Raises DataError if nnopt cannot have written it."""
    found = read_summary(folder)
    summary = found.values
    written = found.stamp / 1e9
    if finished := summary.get("finished"):  # a copied file may be younger than a newer run's
        written = datetime.fromisoformat(finished).timestamp()
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
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "seed"
        },
        sources=frozenset(sources.values()),
        written=written,
        checksums=summary.get(FILES) or {},
        named_files=_named_files(sources, dataset) if isinstance(dataset, dict) else {},
        summary=summary if with_summary else {},
    )


def _named_files(sources: Mapping[str, str], dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of ``dataset.train`` and ``dataset.test``, without those of which it is not
    known which source they are.

    The names of sources are absolute or relative to the data folder; those of the configuration may
    be relative to the working directory or to the home directory, or lead through links.
    """
    train, test = (_named(sources, dataset.get(role)) for role in ("train", "test"))
    if not train and isinstance(dataset.get("train"), str) and dataset.get("test") is None:
        train = set(sources)
    found = {
        "dataset.train": train - test if len(train) > 1 else train,
        "dataset.test": test - train if len(test) > 1 else test,
    }
    return {key: sources[names.pop()] for key, names in found.items() if len(names) == 1}


def _named(sources: Mapping[str, str], name: Any) -> set[str]:
    """Return the sources that a name of the configuration may mean."""
    if not isinstance(name, str):
        return set()
    path = PurePath(name.removeprefix("~/"))
    return {source for source in sources if source == name or source.endswith(f"/{path}")}


def settings_of(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Value]:
    """What a resolved configuration sets, as in ``Run.settings``; overrides: the words of the
    command line that made it."""
    return dict(_settings(with_new_keys(config), _choices(map(new_override, overrides))))


def _choices(overrides: Iterable[str]) -> dict[str, str]:
    """What the command line sets without a dot in the key: files of groups, and top-level keys."""
    pairs = (word.lstrip("+").partition("=") for word in overrides)
    return {key: value for key, _, value in pairs if "." not in key}


def _settings(config: dict[str, Any], choices: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    """The dotted keys of a configuration in its order, each group's choice before its keys."""
    for key, value in config.items():
        if key in WITHOUT_EFFECT:
            continue
        if not isinstance(value, dict):
            yield key, _frozen(value)
            continue
        if "name" in value:
            yield key, _frozen(value["name"])
        elif key in choices:
            yield key, choices[key]
        yield from _leaves(value, key)


def _leaves(record: dict[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}.{key}")
        elif key != "name":
            yield f"{prefix}.{key}", _frozen(value)


def _frozen(value: Any) -> Value:
    """A value that can be a key of a dict: of a list a tuple, of an entry of one its text."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        pairs = (f"{key}: {setting_text(_frozen(item))}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return value  # type: ignore[no-any-return]  # JSON has nothing else


def setting_text(value: Value) -> str:
    """A value as the command line takes it: ``null``, ``true``, ``[64, 32]``, ``0.001``, and
    ``0`` for 0.0 too."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(setting_text, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
