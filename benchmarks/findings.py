"""Record the runs of studies, and build docs/findings.md and its plots from these records.

    python benchmarks/findings.py record STUDY FOLDER [FOLDER ...]
    python benchmarks/findings.py build
    python benchmarks/findings.py check

``record`` writes the runs of finished sweeps to docs/findings/STUDY.csv. ``build`` writes the page
from its template, docs/findings/findings.md.jinja, and draws its plots. ``check`` exits with 1 if
the page differs from the template and the files, or if a mean ± standard deviation in the README,
in docs/ or in the header of a configuration file differs from the runs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import jinja2
from study_files import FOLDER, read_rows, read_runs, write_study

from nnopt.analysis.comparison import Comparison, compare_runs
from nnopt.analysis.number_format import format_difference, format_mean, format_rough_duration
from nnopt.analysis.render import to_markdown
from nnopt.analysis.settings import group_runs, known_keys, read_condition, varying_keys
from nnopt.analysis.statistics import paired_difference
from nnopt.analysis.tabulate import Table, tabulate
from nnopt.plots.sweep.by_key import plot_by_key
from nnopt.plots.sweep.groups import group_settings
from nnopt.plots.sweep.means import plot_means
from nnopt.results.collect import Run

REPOSITORY = FOLDER.parents[1]
TEMPLATE, PAGE = FOLDER / "findings.md.jinja", FOLDER.parent / "findings.md"
IMAGES = FOLDER.parent / "images" / "findings"

PERCENT = ("accuracy", "gap", "validation_before", "validation_pruned", "validation_retrained")
"""Ends of the names of metrics that the page shows in percent."""

EXPERIMENTS = "experiments"
"""The study with the runs of conf/experiment/, which the README and benchmarks.md cite."""


def _plot_by_key(comparison: Comparison, paths: Sequence[Path]) -> None:
    grouping = group_settings(comparison)
    if grouping is None:
        raise ValueError(f"no key of the study has two numeric values: {comparison.keys}")
    plot_by_key(comparison, grouping, paths)


PLOTS: dict[str, Callable[[Comparison, Sequence[Path]], None]] = {
    "means": plot_means,
    "by_key": _plot_by_key,
}
"""Kinds of plots that a page can show."""


def main() -> int:
    """Run the command line; return 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    record = verbs.add_parser("record", help="write the runs of finished sweeps to a file")
    record.add_argument("study")
    record.add_argument("folders", nargs="+", type=Path)
    verbs.add_parser("build", help="write the page and draw its plots")
    verbs.add_parser("check", help="compare all figures with the recorded runs")
    arguments = parser.parse_args()
    if arguments.verb == "record":
        print(write_study(arguments.study, arguments.folders))
        return 0
    if arguments.verb == "build":
        page = Page()
        PAGE.write_text(page.text(), "utf-8")
        page.draw()
        return 0
    problems = list(find_problems())
    print("\n".join(problems) or "all figures agree with the recorded runs")
    return bool(problems)


# studies ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """The runs of a study, and the texts about them for the template.

    ``where`` and the other conditions are texts in the syntax of ``nnopt compare --where``, such as
    ``"optimizer=adam, epochs=5"``. Accuracies are in percent in texts, and fractions in plots.
    """

    name: str
    plots: dict[Path, Callable[[], None]] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[Run]:
        return read_runs(self.name)

    def table(self, metric: str = "test_accuracy", where: str = "", baseline: str = "") -> str:
        """Return a table with a row for each setting."""
        return _table_text(tabulate(self._compare(metric, where, baseline)), metric)

    def grid(
        self,
        corner: str,
        rows: Mapping[str, str],
        columns: Mapping[str, str],
        baseline: str = "",
        metric: str = "test_accuracy",
    ) -> str:
        """Return a table of means; a label maps to the conditions of its row or column.

        Args:
            corner: Title of the column with the labels of the rows.
            rows: Conditions by label.
            columns: Conditions by label.
            baseline: Conditions of a setting. With it, the last column is the difference of the
                first column to this setting.
            metric: The metric of the means.
        """
        difference = [f"{next(iter(columns))} - baseline"] if baseline else []
        lines = [[corner, *columns, *difference], ["---:"] * (1 + len(columns) + len(difference))]
        for label, condition in rows.items():
            wheres = [", ".join(filter(None, (condition, x))) for x in columns.values()]
            cells = [self.mean(x, metric) if self._select(x) else "" for x in wheres]
            changes = [self.difference(wheres[0], baseline, metric)] if baseline else []
            lines.append([label, *cells, *changes])
        return _lines_text(lines)

    def metrics(self, corner: str, rows: Mapping[str, str], metrics: Mapping[str, str]) -> str:
        """Return a table of means with a column for each metric.

        Args:
            corner: Title of the column with the labels of the rows.
            rows: Conditions by label.
            metrics: Metric by label.
        """
        lines = [[corner, *metrics], ["---:"] * (1 + len(metrics))]
        for label, condition in rows.items():
            lines.append([label, *(self.mean(condition, metric) for metric in metrics.values())])
        return _lines_text(lines)

    def mean(self, where: str = "", metric: str = "test_accuracy") -> str:
        """Return the mean ± standard deviation over the seeds of one setting."""
        (row,) = self._compare(metric, where).rows
        found = row.outcomes[0].estimate
        if found is None or found.std is None or not metric.endswith(PERCENT):
            return format_mean(found)
        return f"{found.location:.2f} ± {found.std:.2f}"

    def difference(self, one: str, other: str, metric: str = "test_accuracy") -> str:
        """Return the mean of one setting minus another, paired by seed, with its 95 % interval.

        Percentages have two decimals.
        """
        (first,), (second,) = (self._compare(metric, where).rows for where in (one, other))
        values = first.setting.metric(metric), second.setting.metric(metric)
        difference = paired_difference(*values)
        change = difference.change
        if change is None or change.interval is None or not metric.endswith(PERCENT):
            return format_difference(difference)
        low, high = change.interval
        return f"{change.location:+.2f} [{low:.2f}, {high:.2f}]"

    def seconds(self, where: str = "") -> str:
        """Return the sum of the training times."""
        return format_rough_duration(sum(x.metrics["train_seconds"] for x in self._select(where)))

    def relative(self, one: str, other: str, metric: str = "test_accuracy") -> str:
        """Return the relative difference of the means of two settings, in percent."""
        (first,), (second,) = (self._compare(metric, where).rows for where in (one, other))
        results = first.outcomes[0].estimate, second.outcomes[0].estimate
        assert results[0] is not None, one
        assert results[1] is not None, other
        return f"{100 * (results[0].location / results[1].location - 1):+.0f} %"

    def plot(
        self,
        kind: str,
        alt: str,
        metric: str = "test_accuracy",
        where: str = "",
        without: Sequence[str] = (),
    ) -> str:
        """Return a link to a plot of the kind ``PLOTS[kind]``, which ``Page.draw`` draws.

        ``without`` are keys whose values follow from other keys, and that the plot does not show.
        """
        path = IMAGES / f"{self.name}_{kind}.png"
        comparison = self._compare(metric, where, in_percent=False, without=without)
        self.plots[path] = lambda: PLOTS[kind](comparison, [path])
        return f"![{alt}]({path.relative_to(PAGE.parent).as_posix()})"

    @property
    def machine(self) -> str:
        """The processors of the runs."""
        return " and ".join(sorted({row["cpu"] for row in read_rows(self.name)}))

    @property
    def file(self) -> str:
        """A link to the file of the runs."""
        return f"[{self.name}.csv](findings/{self.name}.csv)"

    def _select(self, where: str) -> list[Run]:
        conditions = [read_condition(x, [*known_keys(self.runs), "seed"]) for x in _split(where)]
        return [
            run
            for run in self.runs
            if all(x.holds({**run.settings, "seed": run.seed}) for x in conditions)
        ]

    def _compare(
        self,
        metric: str,
        where: str,
        baseline: str = "",
        in_percent: bool = True,
        without: Sequence[str] = (),
    ) -> Comparison:
        runs = self._select(where)
        if without:
            kept = [{k: v for k, v in run.settings.items() if k not in without} for run in runs]
            runs = [replace(run, settings=x) for run, x in zip(runs, kept, strict=True)]
        keys = varying_keys(runs)
        conditions = [read_condition(x, keys) for x in _split(baseline)]
        if in_percent:
            runs = [replace(run, metrics=dict(_with_percents(run))) for run in runs]
        return compare_runs(runs, [metric], conditions)


def _with_percents(run: Run) -> Iterator[tuple[str, float]]:
    for name, value in run.metrics.items():
        yield name, 100 * value if name.endswith(PERCENT) else value


def _split(conditions: str) -> list[str]:
    return [text.strip() for text in conditions.split(", ") if text]


def _lines_text(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table_text(table: Table, metric: str) -> str:
    unit = " in %" if metric.endswith(PERCENT) else ""
    title = f"{metric.replace('_', ' ').capitalize()}{unit}, mean ± standard deviation over seeds:"
    return to_markdown(replace(table, title=title)).strip()


# page ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """The page of findings. ``draw`` draws the plots that ``text`` links to."""

    plots: dict[Path, Callable[[], None]] = field(default_factory=dict)

    def text(self) -> str:
        """Return the page in Markdown."""
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
        )
        template = environment.from_string(TEMPLATE.read_text("utf-8"))
        return template.render(study=lambda name: Study(name, self.plots))

    def draw(self) -> None:
        """Draw all plots."""
        IMAGES.mkdir(parents=True, exist_ok=True)
        for draw in self.plots.values():
            draw()


# check --------------------------------------------------------------------------------------------

MEAN = re.compile(r"(?<![-\d])(\d+\.\d+|\d+) ± (\d+\.\d+|\d+)(?!\.?\d)")
"""A mean ± standard deviation in a text."""

HARD_CODED = re.compile(r"\d\.\d")
"""A figure in the template that is hard-coded instead of computed."""

NOT_MEASURED = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|`[^`]*`|^\*\*(?:Claim|Setting|Literature)\.\*\*.*?\n\n", re.S | re.M
)
"""Parts of the template that may contain hard-coded figures: expressions, code, and three
paragraphs."""


def find_problems() -> Iterator[str]:
    """Yield a message for each figure that differs from the recorded runs."""
    if PAGE.read_text("utf-8") != Page().text():
        yield f"{PAGE.name} differs from its template: run python benchmarks/findings.py build"
    rest = NOT_MEASURED.sub("", TEMPLATE.read_text("utf-8"))
    for x in HARD_CODED.finditer(rest):
        yield f"{TEMPLATE.name}: {x[0]!r} is hard-coded; replace it by an expression"
    for path, studies in documents():
        found = [pair for name in studies for pair in means_of(name)]
        for match in MEAN.finditer(path.read_text("utf-8")):
            if not any(agrees(match, *pair) for pair in found):
                place = path.relative_to(REPOSITORY)
                yield f"{place}: {match[0]} does not match any recorded setting"


def documents() -> Iterator[tuple[Path, list[str]]]:
    """Yield each document whose runs are recorded, with the studies that it may cite."""
    names = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if EXPERIMENTS in names:
        yield REPOSITORY / "README.md", names
        yield FOLDER.parent / "benchmarks.md", names
        for path in sorted((REPOSITORY / "conf" / "experiment").glob("*.yaml")):
            yield path, [EXPERIMENTS]
    for path in sorted((REPOSITORY / "conf" / "ablation").glob("*.yaml")):
        if path.stem in names:
            yield path, [path.stem]


def means_of(name: str) -> list[tuple[float, float]]:
    """Return mean and standard deviation of every metric of every setting of a study."""
    runs = read_runs(name)
    found = []
    for setting in group_runs(runs, varying_keys(runs)):
        for metric in dict.fromkeys(x for run in setting.runs.values() for x in run.metrics):
            values = list(setting.metric(metric).values())
            if len(values) > 1:
                found.append((statistics.mean(values), statistics.stdev(values)))
    return found


def agrees(text: re.Match[str], mean: float, std: float) -> bool:
    """Return whether mean and standard deviation, or 100 times both, round to the text."""

    def rounds_to(value: float, digits: str) -> bool:
        return f"{value:.{len(digits.partition('.')[2])}f}" == digits

    return any(rounds_to(k * mean, text[1]) and rounds_to(k * std, text[2]) for k in (1, 100))


if __name__ == "__main__":
    sys.exit(main())
