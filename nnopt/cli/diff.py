"""The verb ``diff``: two runs side by side, their configurations, metrics and weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from nnopt.analysis.number_format import MISSING, format_value
from nnopt.analysis.settings import known_keys
from nnopt.analysis.tabulate import DIGEST, short_text
from nnopt.config.arguments import Parser
from nnopt.errors import ConfigError
from nnopt.io.atomic_files import output_error, shown
from nnopt.io.paths import given_path
from nnopt.io.safe_text import shortened
from nnopt.results.collect import Run, read_run, setting_text
from nnopt.results.weights import Arrays, array_differences, read_weights
from nnopt.terminal import console

CIRCUMSTANCES = ("data", "versions", "git", "machine", "threads")
"""Keys of ``summary.json`` other than the configuration, on which a result depends."""

LONGEST = 200
"""Characters of a value that are shown."""

LONGEST_NAME = 16
"""Characters of the name of a data file that are shown."""

NO_FURTHER_FILE = "no further file"
"""The cell of a run that has read only files of the other run, and not all of them."""

NAMED = 10
"""Arrays without a counterpart that are named."""

Rows = list[tuple[str, ...]]


def main(arguments: list[str]) -> int:
    """Print what differs; returns the exit code. Raises ConfigError, DataError or OutputError."""
    options = parser().parse_args(arguments)
    a, b = given_path(options.a, "A"), given_path(options.b, "B")
    for folder in (a, b):
        if not (folder / "summary.json").is_file():
            raise ConfigError(f"{shown(folder)} is no run that has ended: it has no summary.json")
    one, other = (read_run(folder, with_summary=True) for folder in (a, b))
    console.note(f"A: {shown(a)} ({one.status})")
    console.note(f"B: {shown(b)} ({other.status})")
    keys = [*_differing_keys(one, other), *_differing_circumstances(one, other)]
    _section("key", keys, "ll", "the configurations are the same")
    _section("metric", _metrics(one, other), "rrr", "neither run has a metric")

    file = f"model_{options.weights}.npz"
    if not ((a / file).exists() and (b / file).exists()):
        if options.out:
            raise ConfigError(f"--out {options.out}: {file} is not in both folders")
        console.note(f"no comparison of weights: {file} is not in both folders")
        return 0
    weights = (
        read_weights(a / file, one.metrics.get("parameters")),
        read_weights(b / file, other.metrics.get("parameters")),
    )
    _print_weights(*weights, file)
    if options.out:
        _plot(*weights, (a.absolute().name, b.absolute().name), given_path(options.out, "--out"))
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of ``nnopt diff``."""
    parser = Parser(
        prog="nnopt diff",
        description="Two runs side by side: the keys of the configuration that differ, what else "
        "the results depend on, the metrics, and the weights of each layer.",
    )
    parser.add_argument("a", metavar="A", help="the folder of a run")
    parser.add_argument("b", metavar="B", help="of another one")
    parser.add_argument(
        "--weights", choices=("best", "last"), default="best", help="which to compare"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="draw the weights: DIR/weights.png and DIR/weights.svg"
    )
    return parser


def _section(title: str, rows: Rows, align: str, nothing: str) -> None:
    """A table of what the two runs have, or that there is nothing to tell."""
    console.note("")
    if not rows:
        console.note(nothing)
        return
    header = (title, "A", "B", "B - A")[: len(align) + 1]
    console.print_table(header, rows, "l" + align)


def _differing_keys(one: Run, other: Run) -> Rows:
    """Keys of the configuration, the seed among them, with different values."""
    return [
        (key, _setting(one, key), _setting(other, key))
        for key in known_keys([one, other])
        if _setting(one, key) != _setting(other, key)
    ]


def _setting(run: Run, key: str) -> str:
    if key not in run.settings:
        return MISSING
    return short_text(setting_text(run.settings[key]), LONGEST)


def _differing_circumstances(one: Run, other: Run) -> Rows:
    found = [dict(_circumstances(run.summary)) for run in (one, other)]
    for mine, text in zip(found, _sources_texts(one, other), strict=True):
        mine["data.sources"] = text
    rows = [(key, *(x.get(key, MISSING) for x in found)) for key in {**found[0], **found[1]}]
    return [row for row in rows if row[1] != row[2]]


def _sources_texts(one: Run, other: Run) -> tuple[str, str]:
    """Return for each run the first of its data files that the other run has not read in the same
    place, with the beginning of its SHA-256, and the number of further ones.

    A place is the end of a path, as many parts of it as tell the files of each run apart. The
    folders before it may differ. Files with content that the other run has not read come first.
    """
    files = [(run.summary.get("data") or {}).get("sources", {}) for run in (one, other)]
    a, b = _by_place(*files)
    return _files_text(a, b), _files_text(b, a)


def _by_place(*runs: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the digests of the runs' files by the shortest ends of their paths that differ."""
    longest = max((len(PurePath(path).parts) for files in runs for path in files), default=1)
    places: list[dict[str, str]] = []
    for parts in range(1, longest + 1):
        places = [
            {"/".join(PurePath(path).parts[-parts:]): digest for path, digest in files.items()}
            for files in runs
        ]
        if all(len(x) == len(files) for x, files in zip(places, runs, strict=True)):
            break
    return places


def _files_text(files: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return a text of the files that are not among the others in the same place: MISSING if there
    are no files, NO_FURTHER_FILE if there are only such as the others have."""
    own = [place for place, digest in files.items() if others.get(place) != digest]
    if not own:
        return NO_FURTHER_FILE if files else MISSING
    read = set(others.values())
    first = min(own, key=lambda place: (files[place] in read, place))
    name = first if len(first) <= LONGEST_NAME else f"…{first[1 - LONGEST_NAME :]}"
    more = f" + {len(own) - 1:,}" if len(own) > 1 else ""
    return f"{name} #{files[first][:DIGEST]}{more}"


def _circumstances(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield dotted keys of the summary, and their values as text."""
    for key in CIRCUMSTANCES:
        part = summary.get(key)
        if not isinstance(part, dict):
            continue
        for name, value in part.items():
            if (key, name) == ("data", "sources"):
                continue
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{key}.{name}", shortened(text, LONGEST)


def _metrics(one: Run, other: Run) -> Rows:
    rows: Rows = []
    for name in {**one.metrics, **other.metrics}:
        x, y = one.metrics.get(name), other.metrics.get(name)
        change = MISSING if x is None or y is None else _signed(y - x)
        rows.append((name, *(MISSING if v is None else format_value(v) for v in (x, y)), change))
    return rows


def _signed(change: float) -> str:
    return f"{'+' if change > 0 else ''}{format_value(change)}"


def _print_weights(a: Arrays, b: Arrays, file: str) -> None:
    """Norms and angles of the arrays that both have, and which have no counterpart."""
    rows: Rows = [
        (
            row.name,
            "x".join(map(str, row.shape)) or "1",
            *(f"{norm:.4g}" for norm in (*row.norms, row.distance)),
            MISSING if row.cosine is None else f"{row.cosine:.4f}",
        )
        for row in array_differences(a, b)
    ]
    console.note("")
    if rows:
        header = (file, "shape", "‖A‖", "‖B‖", "‖B - A‖", "cosine")
        console.print_table(header, rows, "llrrrr")
    matched = {row[0] for row in rows}
    if alone := [name for name in {**a, **b} if name not in matched]:
        more = f" and {len(alone) - NAMED} more" if len(alone) > NAMED else ""
        console.note(f"not in both, or of different shapes: {', '.join(alone[:NAMED])}{more}")


def _plot(a: Arrays, b: Arrays, names: tuple[str, str], folder: Path) -> None:
    from nnopt.plots.run.weight_difference import plot_weight_difference

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", folder, error) from error
    for suffix in ("png", "svg"):
        plot_weight_difference(a, b, names, folder / f"weights.{suffix}")
    console.note(f"wrote {shown(folder / 'weights.png')} and weights.svg")
