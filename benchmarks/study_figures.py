"""Compare the figures of documents with the recorded runs.

A mean ± standard deviation in the README, in docs/benchmarks.md or in the header of a configuration
file must round from the runs in docs/findings/. A training time in such a document must equal the
time in docs/benchmarks.md, because times are measured on a machine without other programs, but
accuracies on any.
"""

from __future__ import annotations

import re
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from study_files import (
    DEFAULT,
    EXPERIMENTS,
    FOLDER,
    path_of,
    read_rows,
    read_runs,
    recorded_studies,
)
from study_record import changed_experiments, identity_of

from nnopt.analysis.settings import group_runs, varying_keys

REPOSITORY = FOLDER.parents[1]
README, BENCHMARKS = REPOSITORY / "README.md", FOLDER.parent / "benchmarks.md"
CONF = REPOSITORY / "conf"

MEAN = re.compile(r"(?<![-\d])(\d+\.\d+|\d+) ± (\d+\.\d+|\d+)(?!\.?\d)")
"""A mean ± standard deviation in a text."""

COMMAND = re.compile(r"`nnopt run -m ([^`]*)` \|$", re.M)
"""The command in the last cell of a row of a table with results of experiments."""

SECONDS = re.compile(r"\| ([\d.]+) s \|")
"""The training time in such a row."""

HEADER_SEEDS = re.compile(r"experiments\.py .*--seeds (\d+)")
HEADER_SECONDS = re.compile(r"[Tt]raining took ([\d.]+) s")

NOT_RECORDED: Mapping[str, Sequence[str]] = {
    "cifar10_mlp": ("51.48 ± 0.42",),
    "cifar10_three_layer_conv": ("65.74 ± 0.43", "66.41 ± 0.44"),
    "cifar10_vgg": ("82.86 ± 0.29", "82.64 ± 0.12"),
    "cinic10_six_classes": ("30.56 ± 1.00",),
    "fashion_mnist_conv": ("92.59 ± 0.06", "92.49 ± 0.10", "92.32 ± 0.37"),
    "mnist_conv": ("99.45 ± 0.05",),
    "docs/benchmarks.md": (
        *("98.20 ± 0.46", "98.13 ± 1.20", "96.82 ± 0.22", "96.82 ± 0.21", "85.85 ± 0.60"),
        *("85.82 ± 0.60", "47.61 ± 0.22", "47.60 ± 0.46"),
    ),
}
"""Experiment, or document -> figures whose runs are not recorded. Record the runs of an entry, and
remove it. Add no entries."""


@dataclass(frozen=True)
class Figure:
    """A mean ± standard deviation in a document, and the runs that it is about.

    ``experiment`` is None for a figure of a study. ``overrides`` or ``seeds`` is None if the
    document does not determine it.
    """

    path: Path
    text: str
    studies: Sequence[str] = ()
    experiment: str | None = None
    overrides: tuple[str, ...] | None = None
    seeds: int | None = None

    @property
    def source(self) -> str:
        """The key of the figure in ``NOT_RECORDED``."""
        return self.experiment or self.place

    @property
    def place(self) -> str:
        """The path of the document from the root of the repository."""
        return self.path.relative_to(REPOSITORY).as_posix()


@dataclass(frozen=True)
class Row:
    """A row of a table with the results of experiments, and the runs of its command."""

    experiment: str
    overrides: tuple[str, ...]
    seeds: int | None
    seconds: str | None


@dataclass(frozen=True)
class Setting:
    """Mean and standard deviation over the seeds of the test accuracy of an experiment."""

    experiment: str
    overrides: tuple[str, ...]
    seeds: int
    mean: float
    std: float


# figures ------------------------------------------------------------------------------------------


def figures() -> Iterator[Figure]:
    """Yield each mean ± standard deviation whose runs are or should be recorded."""
    names = recorded_studies()
    for path in (README, BENCHMARKS):
        for line in path.read_text("utf-8").splitlines():
            row = read_row(line)
            for text in _means_in(line):
                if row is None:
                    yield Figure(path, text, names)
                else:
                    found = row.experiment, row.overrides, row.seeds
                    yield Figure(path, text, (), *found)
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        content = path.read_text("utf-8")
        seeds = HEADER_SEEDS.search(content)
        for text in _means_in(content):
            yield Figure(path, text, (), path.stem, None, int(seeds[1]) if seeds else None)
    for path in sorted((CONF / "ablation").glob("*.yaml")):
        if path.stem in names:
            for text in _means_in(path.read_text("utf-8")):
                yield Figure(path, text, _variants(path.stem, names))


def _variants(study: str, names: Sequence[str]) -> list[str]:
    """Return a study and its variants with overrides, whose names start with that of the study."""
    return [name for name in names if name == study or name.startswith(study + "_")]


def _means_in(text: str) -> Iterator[str]:
    for match in MEAN.finditer(text):
        yield match[0]


def read_row(line: str) -> Row | None:
    """Return the row of a table that a line contains, or None."""
    command = COMMAND.search(line)
    if command is None:
        return None
    given = dict(word.split("=", 1) for word in shlex.split(command[1]))
    if "ablation" in given:
        return None
    experiment = given.pop("experiment", DEFAULT)
    seeds = re.fullmatch(r"range\((\d+)\)", given.pop("seed", ""))
    seconds = SECONDS.search(line)
    return Row(
        experiment,
        tuple(sorted(f"{key}={value}" for key, value in given.items())),
        int(seeds[1]) if seeds else None,
        seconds[1] if seconds else None,
    )


# comparison ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Means of the recorded runs, read once."""

    @cached_property
    def experiments(self) -> list[Setting]:
        if not path_of(EXPERIMENTS).exists():
            return []
        values: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        for row in read_rows(EXPERIMENTS):
            if row["test_accuracy"]:
                values.setdefault(identity_of(row), []).append(float(row["test_accuracy"]))
        return [
            Setting(*identity, len(x), statistics.mean(x), statistics.stdev(x))
            for identity, x in values.items()
            if len(x) > 1
        ]

    @cached_property
    def studies(self) -> dict[str, list[tuple[float, float]]]:
        return {name: means_of(name) for name in recorded_studies()}

    def settings(self, figure: Figure) -> list[Setting]:
        """Return the settings of the experiment that the figure may be about."""
        return [
            x
            for x in self.experiments
            if x.experiment == figure.experiment and figure.overrides in (None, x.overrides)
        ]

    def means(self, figure: Figure) -> list[tuple[float, float]]:
        """Return mean and standard deviation of all settings that the figure may be about."""
        if figure.experiment is None:
            return [pair for name in figure.studies for pair in self.studies[name]]
        settings = self.settings(figure)
        return [(x.mean, x.std) for x in settings if figure.seeds in (None, x.seeds)]


def means_of(name: str) -> list[tuple[float, float]]:
    """Return mean and standard deviation of every metric of every setting of a study."""
    runs = read_runs(name)
    found = []
    for setting in group_runs(runs, varying_keys(runs)):
        for metric in dict.fromkeys(x for run in setting.runs.values() for x in run.metrics):
            values = list(setting.metric(metric).values())
            if len(values) > 1 and metric != "train_seconds":
                found.append((statistics.mean(values), statistics.stdev(values)))
    return found


def agrees(text: str, mean: float, std: float) -> bool:
    """Return whether mean and standard deviation, or 100 times both, round to the text."""
    digits = text.split(" ± ")

    def rounds_to(value: float, digits: str) -> bool:
        return f"{value:.{len(digits.partition('.')[2])}f}" == digits

    return any(rounds_to(k * mean, digits[0]) and rounds_to(k * std, digits[1]) for k in (1, 100))


# problems -----------------------------------------------------------------------------------------


def wrong_figures() -> Iterator[str]:
    """Yield a message for each figure that differs from the runs, and for each that has none.

    A figure in ``NOT_RECORDED`` needs no runs. An entry that is no longer needed is a problem.
    """
    recorded = Recorded()
    unused = {(source, text) for source, texts in NOT_RECORDED.items() for text in texts}
    for figure in figures():
        if any(agrees(figure.text, *pair) for pair in recorded.means(figure)):
            continue
        unused.discard((figure.source, figure.text))
        if figure.text not in NOT_RECORDED.get(figure.source, ()):
            yield _problem(figure, recorded)
    for source, text in sorted(unused):
        yield f"NOT_RECORDED lists {text} of {source}, which is recorded or not cited; remove it"
    if path_of(EXPERIMENTS).exists():
        yield from changed_experiments(read_rows(EXPERIMENTS))


def _problem(figure: Figure, recorded: Recorded) -> str:
    what = f"{figure.place}: {figure.text}"
    if figure.experiment is None:
        return f"{what} does not match any recorded setting"
    settings = recorded.settings(figure)
    if not settings:
        text = " ".join([figure.experiment, *(figure.overrides or ())])
        return f"{what} of {text} is not recorded: python benchmarks/findings.py record experiments"
    means = " or ".join(f"{100 * x.mean:.2f} ± {100 * x.std:.2f}" for x in settings)
    counts = " or ".join(dict.fromkeys(str(x.seeds) for x in settings))
    return f"{what} differs from the runs of {figure.experiment}: {means} with {counts} seeds"


def wrong_times() -> Iterator[str]:
    """Yield a message for each training time that differs from the time in docs/benchmarks.md."""
    times = {(x.experiment, x.overrides): x.seconds for x in _rows_of(BENCHMARKS)}
    for row in _rows_of(README):
        expected = times.get((row.experiment, row.overrides))
        if row.seconds != expected:
            yield f"README.md: {row.experiment} takes {row.seconds} s, not {expected} s"
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        found = HEADER_SECONDS.search(path.read_text("utf-8"))
        expected = times.get((path.stem, ()))
        if found and expected and found[1] != expected:
            yield f"{path.relative_to(REPOSITORY)}: {found[1]} s differs from {expected} s"


def _rows_of(path: Path) -> list[Row]:
    rows = map(read_row, path.read_text("utf-8").splitlines())
    return [row for row in rows if row is not None]


def unrecorded() -> list[str]:
    """Return a line for each experiment or document with figures whose runs are not recorded."""
    return [f"not recorded: {source}: {', '.join(x)}" for source, x in NOT_RECORDED.items()]
