"""The verb ``report``: one self-contained HTML page of a run, a sweep or a folder of many."""

from __future__ import annotations

import argparse

from nnopt.config.arguments import Parser
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown, write_text
from nnopt.io.paths import given_path
from nnopt.report.gather import gather
from nnopt.report.page import fill_page
from nnopt.results.collect import find_runs
from nnopt.terminal import console

EXAMPLES = """\
examples:
  nnopt report outputs/latest
  nnopt report outputs/sweeps --out sweeps.html --metric test_accuracy,test_loss

docs/report.md tells what stands on the page.
"""


def main(arguments: list[str]) -> int:
    """Write the page; returns the exit code, that of damaged data if a run could not be read.
    Raises ConfigError or OutputError."""
    options = parser().parse_intermixed_args(arguments)
    directory = given_path(options.directory, "DIR")
    found = find_runs([directory], with_summaries=True)
    for problem in found.damaged:
        console.error(problem)
    page = given_path(options.out, "--out") if options.out else directory / "report.html"
    if not page.absolute().parent.is_dir():
        raise ConfigError(f"--out {page}: its folder does not exist")
    names = ",".join(options.metric or ["test_accuracy"]).split(",")
    metrics = list(dict.fromkeys(name.strip() for name in names))
    text = fill_page(gather(directory, found, metrics, page))
    write_text(page, text)
    console.note(f"wrote {shown(page)}, {len(text) / 1e6:.1f} MB")
    return DataError.exit_code if found.damaged else 0


def parser() -> argparse.ArgumentParser:
    """The options of ``nnopt report``."""
    parser = Parser(
        prog="nnopt report",
        description="One HTML page that needs nothing else: what was run, the means over seeds, "
        "curves, and every point with its configuration, plots and log.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directory", metavar="DIR", help="a run, a sweep, or a folder of many")
    add(
        "--metric",
        action="append",
        metavar="NAME[,NAME]",
        help="a number of summary.json to compare by (default: test_accuracy)",
    )
    add("--out", metavar="FILE", help="the page (default: DIR/report.html)")
    return parser
