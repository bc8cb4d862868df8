"""Results are comparable on the same data: which runs have read them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from nnopt.errors import ConfigError
from nnopt.results.collect import Run, Value, setting_text
from nnopt.results.files import shown

SAME_TEST_SET = {"dataset.subset", "dataset.normalization"}
"""Keys of a dataset that leave the samples of the test set what they are."""

VALIDATION = {"dataset.validation.source", "dataset.validation.fraction"}
"""These too, unless the validation samples are taken from the test set."""


def test_set(values: Mapping[str, Value]) -> Hashable:
    """Equal for settings that meet the same test set, as far as their values tell."""
    takes_from_test = values.get("dataset.validation.source") == "test"
    same = SAME_TEST_SET if takes_from_test else SAME_TEST_SET | VALIDATION
    return tuple(
        (key, value)
        for key, value in values.items()
        if key.partition(".")[0] == "dataset" and key not in same
    )


def check_same_data(runs: Iterable[Run], may_differ: bool = False) -> None:
    """Refuse runs on different datasets, unless they may differ, and on different files of one
    dataset. Raises ConfigError."""
    files = _files(runs)
    if len(files) > 1 and not may_differ:
        names = sorted(files)
        raise ConfigError(
            f"the runs are on different datasets, {', '.join(names)}: choose with "
            f"--where dataset={names[0]}, or compare them all with --mixed-data"
        )
    for name, by_sources in files.items():
        if len(by_sources) > 1:
            first, second, *_ = by_sources.values()
            raise ConfigError(
                f"the runs on {name} read different files: data.sources of summary.json differ in "
                f"{shown(first.folder)} and {shown(second.folder)}; compare one kind of them, with "
                f"--where dataset.files={_digest(first)}, or both with --mixed-data"
            )


def tell_files_apart(runs: Sequence[Run]) -> list[Run]:
    """The same runs; where those of one dataset read different files, a further key,
    ``dataset.files``, begins with the digest of these, so that they are different settings."""
    several = {name for name, by_sources in _files(runs).items() if len(by_sources) > 1}

    def told(run: Run) -> Run:
        if _dataset(run) not in several or run.status != "done":
            return run
        return replace(run, settings={**run.settings, "dataset.files": _digest(run)})

    return [told(run) for run in runs]


def _digest(run: Run) -> str:
    return hashlib.sha256("".join(sorted(run.sources)).encode()).hexdigest()[:8]


def _files(runs: Iterable[Run]) -> dict[str, dict[frozenset[str], Run]]:
    """By dataset and digests of its files, the first finished run that read them."""
    files: dict[str, dict[frozenset[str], Run]] = {}
    for run in runs:
        if run.status == "done":
            files.setdefault(_dataset(run), {}).setdefault(run.sources, run)
    return files


def _dataset(run: Run) -> str:
    return setting_text(run.settings.get("dataset"))
