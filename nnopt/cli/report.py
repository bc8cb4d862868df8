"""``nnopt report``: one self-contained HTML page of a run, a sweep, or a folder of several."""

from __future__ import annotations

from nnopt.cli.parsers import metric_names, report_parser
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown, write_text
from nnopt.io.paths import given_path
from nnopt.report.gather import gather
from nnopt.report.page import fill_page
from nnopt.results.collect import find_runs
from nnopt.terminal import console


def main(arguments: list[str]) -> int:
    """Write the page. Return the exit code."""
    options = report_parser().parse_intermixed_args(arguments)
    directory = given_path(options.directory, "DIR")
    found = find_runs([directory], with_summaries=True)
    for problem in found.damaged:
        console.error(problem)
    page = given_path(options.out, "--out") if options.out else directory / "report.html"
    if not page.absolute().parent.is_dir():
        raise ConfigError(f"--out {page}: its folder does not exist")
    text = fill_page(gather(directory, found, metric_names(options), page))
    write_text(page, text)
    console.note(f"wrote {shown(page)}, {len(text) / 1e6:.1f} MB")
    return DataError.exit_code if found.damaged else 0
