"""Checks that compared runs use the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

from nnopt.analysis.settings import Condition, Setting
from nnopt.errors import ConfigError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import shortened
from nnopt.results.collect import Run, setting_text

# Keys that are ignored when test sets are compared. SAME_TEST_SET is always ignored. VALIDATION is
# ignored unless the validation samples are taken from the test set. PATHS are ignored if the test
# samples have their own file, because its SHA-256 is compared.
SAME_TEST_SET = {"dataset.subset", "dataset.normalization", "dataset.files"}
VALIDATION = {"dataset.validation.source", "dataset.validation.fraction"}
PATHS = {"dataset.train", "dataset.test"}


def test_set(setting: Setting) -> tuple[Hashable, ...]:
    """Return a hashable value that is equal for two settings with the same test set."""
    runs = (*setting.runs.values(), *setting.incomplete.values())
    values, run = setting.values, next(iter(runs), None)
    same = set(SAME_TEST_SET)
    if values.get("dataset.validation.source") != "test":
        same |= VALIDATION
    if run is not None and run.test_file is not None:
        same |= PATHS
    keys = [(k, v) for k, v in values.items() if k.partition(".")[0] == "dataset" and k not in same]
    return (run.test_sources if run else None, *keys)


def same_test_set(one: Setting, other: Setting) -> bool:
    """Return whether two settings have the same test set.

    The data files are compared only if both settings have a finished run.
    """
    first, second = test_set(one), test_set(other)
    has_files = bool(one.runs) and bool(other.runs)
    return first[1:] == second[1:] and (not has_files or first[0] == second[0])


def check_same_data(runs: Iterable[Run], may_differ: bool = False) -> None:
    """Raise ConfigError if finished runs on the same dataset were tested on different files.

    Unless ``may_differ`` is True, different datasets are an error, too.
    """
    files = _files(runs, lambda run: run.test_sources)
    if len(files) > 1 and not may_differ:
        names = sorted(files)
        raise ConfigError(
            f"the runs use different datasets ({', '.join(names)}); select one with "
            f"--where dataset={names[0]}, or compare all runs with --allow-mixed-data"
        )
    for name, by_sources in files.items():
        if len(by_sources) > 1:
            first, second, *_ = by_sources.values()
            raise ConfigError(
                f"the runs on {name} were tested on different files: data.sources in summary.json "
                f"differs between {shown(first.folder)} and {shown(second.folder)}; select the "
                f"runs with equal files, with --where dataset.files={_digest(first)}, or compare "
                "all runs with --allow-mixed-data"
            )


def notes_on_training_files(runs: Iterable[Run]) -> list[str]:
    """Return a note for each dataset whose runs share test samples but not training files."""
    by_test: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.status == "done" and run.test_file is not None:
            by_test.setdefault((_dataset(run), run.test_file), []).append(run)
    notes = []
    for (name, _), members in by_test.items():
        if len({run.sources for run in members}) > 1:
            names = dict.fromkeys(setting_text(x.settings.get("dataset.train")) for x in members)
            notes.append(
                f"the runs on {name} were trained on files of different content: "
                f"dataset.train={shortened(','.join(names), 200)}; the test file is the same"
            )
    return notes


def split_by_data_files(runs: Sequence[Run]) -> list[Run]:
    """Add a key ``dataset.files`` to the runs on each dataset that was read from different files.

    Its value is a digest of the files. So runs with different files belong to different settings.
    """
    several = {name for name, by_sources in _files(runs, _sources).items() if len(by_sources) > 1}
    return [
        replace(run, settings={**run.settings, "dataset.files": _digest(run)})
        if run.status == "done" and _dataset(run) in several
        else run
        for run in runs
    ]


def unify_file_names(runs: Sequence[Run]) -> list[Run]:
    """Replace the paths in ``dataset.train`` and ``dataset.test`` so that each file has one path.

    Files with equal names and contents count as one file, whose shortest path is used. If the
    content of a run's file is unknown, its path is replaced as in the other runs with this path,
    unless the new paths in these runs differ.
    """
    paths: dict[tuple[str, str, str], set[str]] = {}
    for run in runs:
        for key, digest in run.named_files.items():
            path = str(run.settings.get(key))
            paths.setdefault((key, digest, PurePath(path).name), set()).add(path)
    names: dict[tuple[str, str], dict[str, str]] = {}  # key and path -> SHA-256 -> shortest path
    for (key, digest, _), same in paths.items():
        shortest = min(same, key=lambda path: (len(path), path))
        for path in same:
            names.setdefault((key, path), {})[digest] = shortest

    def named(run: Run) -> Run:
        found = {}
        for key in PATHS & run.settings.keys():
            by_digest = names.get((key, str(run.settings[key])), {})
            digest = run.named_files.get(key)
            others = set(by_digest.values()) if digest is None else {by_digest[digest]}
            if len(others) == 1:
                (found[key],) = others
        return replace(run, settings={**run.settings, **found}) if found else run

    return [named(run) for run in runs]


def with_unified_file_names(
    condition: Condition, runs: Sequence[Run], named: Sequence[Run]
) -> Condition:
    """Replace the paths in a condition as ``unify_file_names`` does in the runs.

    ``named`` is the result of ``unify_file_names`` for ``runs``.
    """
    if condition.key not in PATHS:
        return condition
    names: dict[str, set[str]] = {}
    for before, after in zip(runs, named, strict=True):
        path, name = (str(run.settings.get(condition.key)) for run in (before, after))
        names.setdefault(path, set()).add(name)
    known = {name for several in names.values() for name in several}
    values = [
        name
        for value in condition.values
        for name in ([value] if value in known else sorted(names.get(value, {value})))
    ]
    return replace(condition, values=tuple(dict.fromkeys(values)))


def _digest(run: Run) -> str:
    return hashlib.sha256("".join(sorted(_sources(run))).encode()).hexdigest()[:8]


def _sources(run: Run) -> frozenset[str]:
    """Return the SHA-256 of each data file, and "test " + the SHA-256 of a separate test file."""
    return run.sources if run.test_file is None else run.sources | {f"test {run.test_file}"}


def _files(
    runs: Iterable[Run], sources_of: Callable[[Run], frozenset[str]]
) -> dict[str, dict[frozenset[str], Run]]:
    """Return dataset -> result of ``sources_of`` -> first finished run with this result."""
    files: dict[str, dict[frozenset[str], Run]] = {}
    for run in runs:
        if run.status == "done":
            files.setdefault(_dataset(run), {}).setdefault(sources_of(run), run)
    return files


def _dataset(run: Run) -> str:
    return setting_text(run.settings.get("dataset"))
