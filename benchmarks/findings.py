"""Record the runs of studies, and build docs/findings.md and its plots from these records.

    python benchmarks/findings.py record STUDY FOLDER [FOLDER ...]
    python benchmarks/findings.py build
    python benchmarks/findings.py check

``record`` writes the runs of finished sweeps to docs/findings/STUDY.csv. A study is an ablation, or
``experiments``: runs of conf/experiment/, as experiments.py --folder leaves them. Rows of other
experiments are kept. ``build`` writes the page from its template, docs/findings/findings.md.jinja,
and draws its plots. ``check`` exits with 1 if the page differs from the template and the files, or
if a mean ± standard deviation in the README, in docs/benchmarks.md or in the header of a
configuration file differs from the runs. It lists the figures whose runs are not recorded.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from study_figures import unrecorded, wrong_figures, wrong_times
from study_files import FOLDER, read_rows, read_runs
from study_record import record

from nnopt.analysis.comparison import Comparison, Row, compare_runs
from nnopt.analysis.number_format import format_difference, format_mean, format_rough_duration
from nnopt.analysis.render import to_markdown
from nnopt.analysis.settings import known_keys, read_condition, varying_keys
from nnopt.analysis.statistics import paired_difference
from nnopt.analysis.tabulate import Table, tabulate
from nnopt.errors import ConfigError, NnoptError
from nnopt.plots.sweep.by_key import plot_by_key
from nnopt.plots.sweep.groups import group_settings
from nnopt.plots.sweep.means import plot_means
from nnopt.results.collect import Run

TEMPLATE, PAGE = FOLDER / "findings.md.jinja", FOLDER.parent / "findings.md"
IMAGES = FOLDER.parent / "images" / "findings"

PERCENT = ("accuracy", "gap", "validation_before", "validation_pruned", "validation_retrained")
"""Ends of the names of metrics that the page shows in percent."""


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
    """Run the command line; return 1 if a check fails, and nnopt's exit code after an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    recorder = verbs.add_parser("record", help="write the runs of finished sweeps to a file")
    recorder.add_argument("study")
    recorder.add_argument("folders", nargs="+", type=Path)
    verbs.add_parser("build", help="write the page and draw its plots")
    verbs.add_parser("check", help="compare all figures with the recorded runs")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "record":
            print(record(arguments.study, arguments.folders))
            return 0
        if arguments.verb == "build":
            build()
            return 0
        problems = list(find_problems())
    except NnoptError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except jinja2.TemplateError as error:
        print(f"error: {TEMPLATE.name}: {error}", file=sys.stderr)
        return 1
    print("\n".join([*unrecorded(), *(problems or ["all other figures agree with the runs"])]))
    return int(bool(problems))


def build() -> None:
    """Write the page and draw its plots."""
    page = Page()
    PAGE.write_text(page.text(), "utf-8")
    page.draw()


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
        """Return the mean ± standard deviation over the seeds of one setting.

        The runs without a result are named after it by their number and status, or instead of it if
        no run has a result.
        """
        runs = self._select(where)
        lost = Counter(run.status for run in runs if metric not in run.metrics)
        if runs and lost.total() == len(runs):
            return ", ".join(lost)
        found = self._row(where, metric).outcomes[0].estimate
        left_out = "".join(f" ({count} {status})" for status, count in lost.items())
        if found is None or found.std is None or not metric.endswith(PERCENT):
            return format_mean(found) + left_out
        return f"{found.location:.2f} ± {found.std:.2f}{left_out}"

    def difference(self, one: str, other: str, metric: str = "test_accuracy") -> str:
        """Return the mean of one setting minus another, paired by seed, with its 95 % interval.

        Percentages have two decimals.
        """
        first, second = (self._row(where, metric) for where in (one, other))
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
        first, second = (self._row(where, metric) for where in (one, other))
        results = first.outcomes[0].estimate, second.outcomes[0].estimate
        assert results[0] is not None, one
        assert results[1] is not None, other
        return f"{100 * (results[0].location / results[1].location - 1):+.0f} %"

    def equal_runs(self, other: Study, metrics: Sequence[str]) -> int:
        """Return the number of runs with the same metrics as in another study, digit for digit."""

        def results(study: Study) -> dict[tuple[Any, ...], list[float | None]]:
            return {
                (run.seed, *sorted(run.settings.items())): [run.metrics.get(x) for x in metrics]
                for run in study.runs
            }

        found = results(other)
        return sum(found.get(key) == values for key, values in results(self).items())

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

    def _row(self, where: str, metric: str) -> Row:
        """Return the row of the only setting that meets the conditions. Raises ConfigError."""
        rows = self._compare(metric, where).rows if self._select(where) else []
        if len(rows) != 1:
            raise ConfigError(f"{self.name}: {where!r} selects {len(rows)} settings, expected one")
        return rows[0]

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
    yield from wrong_figures()
    yield from wrong_times()


if __name__ == "__main__":
    sys.exit(main())
