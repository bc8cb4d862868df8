"""The parsers of the verbs' command lines."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nnopt.errors import ConfigError, OutputError
from nnopt.io.atomic_files import shown
from nnopt.io.paths import given_path
from nnopt.schema import RENAMED_FLAGS

COMPARE_EXAMPLES = """\
examples:
  nnopt compare outputs/latest
  nnopt compare outputs/sweeps --where dataset=mnist --where 'optimizer.lr<=0.1'
  nnopt compare outputs/latest --baseline optimizer=sgd --metric test_loss --sort test_loss
  nnopt compare outputs/latest --baseline optimizer=sgd --margin 0.002
  nnopt compare outputs/latest --pivot optimizer optimizer.lr --out table.tex
  nnopt compare outputs/latest --format json | jq '.settings[].results.test_accuracy.mean'
  nnopt compare outputs/sweeps --metric test_loss --plots pictures

docs/compare.md describes the columns and the statistical tests.
"""

REPORT_EXAMPLES = """\
examples:
  nnopt report outputs/latest
  nnopt report outputs/sweeps --out sweeps.html --metric test_accuracy,test_loss

docs/report.md describes the page.
"""

RESUME_EXAMPLES = """\
examples:
  nnopt resume outputs/latest                    continue a run; run a sweep's missing points
  nnopt resume outputs/latest epochs=200         train a run longer (with checkpoint.keep=true)
  nnopt resume outputs/latest --restart          run it again from the beginning
  nnopt resume outputs/latest --retry-failed     repeat points that failed, diverged or timed out
  nnopt resume outputs/latest 'seed=range(10)'   add values: run the new points
  nnopt resume outputs/latest hydra.sweeper.trials=60   run more trials of a search
"""

PICTURE_SUFFIXES = (".png", ".svg")

INFO_TOPICS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with the message of argparse."""
        for old, new in RENAMED_FLAGS.items():
            if old in message.split():
                message = f"{old} is now {new}"
        hint = ""
        if message.startswith("unrecognized arguments: --config-"):
            hint = "; --config-dir adds a folder with YAML files"
        elif message.startswith("unrecognized arguments: -") and "=" in message:
            hint = "; keys have no dash before them, as in epochs=3"
        raise ConfigError(f"{message}{hint}; `{self.prog} --help` lists the options")


def make_parser(verb: str, description: str, epilog: str | None = None) -> Parser:
    """Return the parser of a verb. The caller adds the arguments."""
    return Parser(
        f"nnopt {verb}",
        description=textwrap.fill(description, 90),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def overrides_parser(verb: str, description: str, epilog: str | None = None) -> Parser:
    """Return a parser of ``overrides`` and ``config_dir``, to which a verb adds its options."""
    parser = make_parser(verb, description, epilog)
    add_overrides(parser)
    return parser


def add_overrides(parser: Parser) -> None:
    """Add ``overrides`` and ``--config-dir`` to a parser."""
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="keys and groups, as for nnopt run",
    )
    _add_config_dir(parser)


def _add_config_dir(parser: Parser) -> None:
    explanation = "a folder with more YAML files"
    parser.add_argument(
        "--config-dir", "-cd", metavar="DIR", type=os.path.expanduser, help=explanation
    )


def add_format(parser: Parser) -> None:
    """Add ``--format`` to a parser, for a table or JSON."""
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="format of the output: a table (default), or JSON with all values in full precision",
    )


def positive_number(text: str) -> int:
    """Return the whole number that an option needs. Raises ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: needs a whole number, at least 1")
    return int(text)


def picture_path(text: str) -> Path:
    """Return the path of a picture, the value of ``--out``.

    Raises ConfigError if the suffix is not that of a supported format, and OutputError if the
    folder does not exist.
    """
    path = given_path(text, "--out")
    if path.suffix not in PICTURE_SUFFIXES:
        suffixes = " or ".join(PICTURE_SUFFIXES)
        raise ConfigError(f"--out = {text!r}: needs a file name that ends with {suffixes}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"--out = {text!r}: the folder {shown(path.parent)} does not exist")
    return path


def run_parser() -> Parser:
    """Return the parser of ``nnopt run``. The verb itself prints the help text."""
    parser = Parser("nnopt run", add_help=False)
    add = parser.add_argument
    add("overrides", nargs="*", help="key=value: set a key, or select a file of a group")
    add("--help", "-h", action="store_true", help="print the groups, keys and options")
    add("--multirun", "-m", action="store_true", help="run every point of a sweep")
    add(
        "--from",
        dest="base",
        metavar="RUN",
        help="repeat the configuration of this run; overrides change it",
    )
    add("--fail-fast", action="store_true", help="stop a sweep at the first failed point")
    add("--dry-run", action="store_true", help="list the points and their statuses, run nothing")
    _add_config_dir(parser)
    add(
        "--cfg",
        "-c",
        choices=("job", "hydra", "all"),
        help="print the resolved configuration instead of running it: job, hydra or all",
    )
    add("--package", "-p", help="with --cfg: print only the values of this key")
    add("--resolve", action="store_true", help="with --cfg: no effect, values are always resolved")
    add("--run", "-r", action="store_true", help="no effect: a single run is the default")
    add(
        "--info",
        "-i",
        nargs="?",
        const="all",
        choices=INFO_TOPICS,
        help=f"print information of Hydra: {', '.join(INFO_TOPICS)}",
    )
    return parser


def resume_parser() -> Parser:
    """Return the parser of ``nnopt resume``."""
    description = (
        "Resume a run from its checkpoint, or run the missing and interrupted points of a sweep. "
        "Finished points are kept."
    )
    parser = make_parser("resume", description, RESUME_EXAMPLES)
    add = parser.add_argument
    add("directory", metavar="DIR", help="the folder of a run or of a sweep")
    add(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="run: epochs, max_steps, max_time; sweep: more values of varied keys, hydra/launcher",
    )
    add("--restart", action="store_true", help="run: start over instead of continuing")
    add("--retry-failed", action="store_true", help="repeat failed, diverged and timed out points")
    add("--fail-fast", action="store_true", help="start no further point after a failure")
    return parser


def compare_parser() -> Parser:
    """Return the parser of ``nnopt compare``."""
    from nnopt.analysis.render import SUFFIXES  # not needed by the other verbs

    description = (
        "Print one table of runs and sweeps: a row for each setting, its mean over the seeds, and "
        "tests of the differences."
    )
    parser = make_parser("compare", description, COMPARE_EXAMPLES)
    add = parser.add_argument
    add("directories", nargs="+", metavar="DIR", help="a run, a sweep, or a folder of several")
    _add_metric(parser)
    _add_tests(parser)
    add(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only runs with KEY=VALUE, KEY=ONE,OTHER, KEY!=VALUE, KEY<NUMBER, <=, > or >=",
    )
    add("--sort", metavar="NAME", help="sort by a key, or by a metric with the best value first")
    add("--reverse", action="store_true", help="reverse the order")
    add(
        "--pivot",
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="table of means: a row for each value of the key ROW, a column for each of COLUMN",
    )
    add("--allow-mixed-data", action="store_true", help="allow runs on different datasets or files")
    add(
        "--format",
        choices=tuple(SUFFIXES.values()),
        help="format of the output (default: selected by the suffix of --out, or else table)",
    )
    add(
        "--keep-formulas",
        action="store_true",
        help="in CSV, do not put an apostrophe before texts that spreadsheets read as formulas",
    )
    add("--plots", metavar="FOLDER", help="draw plots of the settings into this folder")
    add("--out", metavar="FILE", help=f"write to a file: {', '.join(SUFFIXES)}")
    return parser


def _add_tests(parser: Parser) -> None:
    """Add the options of means and tests to the parser of ``nnopt compare``."""
    add = parser.add_argument
    add(
        "--baseline",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="test the differences to this setting; repeat the option for several keys",
    )
    add(
        "--margin",
        action="append",
        default=[],
        metavar="[METRIC=]NUMBER",
        help="with --baseline: test equivalence; smaller differences do not matter, as 0.002 for "
        "accuracies; repeat the option for several metrics",
    )
    add(
        "--estimate",
        choices=("mean", "iqm"),
        default="mean",
        help="mean over the seeds (default), or interquartile mean, with its 95 %% interval",
    )


def report_parser() -> Parser:
    """Return the parser of ``nnopt report``."""
    description = (
        "Write one self-contained HTML page: an overview, means over seeds, curves, and each point "
        "with its configuration, plots and log."
    )
    parser = make_parser("report", description, REPORT_EXAMPLES)
    parser.add_argument("directory", metavar="DIR", help="a run, a sweep, or a folder of several")
    _add_metric(parser)
    parser.add_argument("--out", metavar="FILE", help="the page (default: DIR/report.html)")
    return parser


def diff_parser() -> Parser:
    """Return the parser of ``nnopt diff``."""
    description = (
        "Compare two runs: the keys that differ (configuration, data, versions, machine), the "
        "metrics, and the weights of each layer."
    )
    parser = make_parser("diff", description)
    add = parser.add_argument
    add("a", metavar="A", help="the folder of a run")
    add("b", metavar="B", help="the folder of another run")
    add("--weights", choices=("best", "last"), default="best", help="compare weights of this epoch")
    add("--out", metavar="DIR", help="draw the weights: DIR/weights.png and DIR/weights.svg")
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "resume": resume_parser,
    "compare": compare_parser,
    "report": report_parser,
    "diff": diff_parser,
}
"""Verb -> the function that makes its parser, for the verbs whose arguments are folders."""


def _add_metric(parser: Parser) -> None:
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME[,NAME]",
        help="metrics from summary.json (default: test_accuracy)",
    )


def metric_names(options: argparse.Namespace) -> list[str]:
    """Return the names in all values of ``--metric``, without repetitions."""
    names = ",".join(options.metric or ["test_accuracy"]).split(",")
    return list(dict.fromkeys(name.strip() for name in names))
