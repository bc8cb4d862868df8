"""``nnopt diff``: compares the configurations, metrics and weights of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from nnopt.analysis.number_format import MISSING, format_value
from nnopt.analysis.settings import known_keys
from nnopt.analysis.tabulate import DIGEST_CHARACTERS, short_text
from nnopt.cli.parsers import diff_parser
from nnopt.errors import ConfigError
from nnopt.io.atomic_files import output_error, shown
from nnopt.io.locks import is_held
from nnopt.io.own_files import WEIGHTS
from nnopt.io.paths import given_path
from nnopt.io.safe_text import shortened
from nnopt.recipe.trained_model import read_arrays
from nnopt.results.collect import Run, read_run, setting_text
from nnopt.results.weights import Arrays, array_differences
from nnopt.terminal import console

ENVIRONMENT_KEYS = ("data", "versions", "git", "machine", "threads")
"""Keys of ``summary.json``, other than the configuration, on which a result depends."""

MAX_VALUE_CHARACTERS = 200
MAX_FILE_NAME_CHARACTERS = 16
MAX_NAMED_ARRAYS = 10
"""Limits of the printed text. The last one is for arrays without a counterpart in the other run."""

NO_FURTHER_FILE = "no further file"
"""The table cell of a run whose data files have all been read by the other run too."""

Rows = list[tuple[str, ...]]


def main(arguments: list[str]) -> int:
    """Print the differences between two runs. With ``--out``, draw the differences of weights."""
    options = diff_parser().parse_args(arguments)
    a, b = given_path(options.a, "A"), given_path(options.b, "B")
    for folder in (a, b):
        if not (folder / "summary.json").is_file():
            raise ConfigError(
                f"{shown(folder)} is not the folder of a finished run: it has no summary.json"
            )
    one, other = (read_run(folder, with_summary=True) for folder in (a, b))
    for run in (one, other):
        if run.status == "running":
            state = "running" if is_held(run.folder) else "interrupted"
            raise ConfigError(f"{shown(run.folder)} is not a finished run: it is {state}")
    console.note(f"A: {shown(a)} ({one.status})")
    console.note(f"B: {shown(b)} ({other.status})")
    rows = [(x, _setting(one, x), _setting(other, x)) for x in known_keys([one, other])]
    different = [row for row in (*rows, *_environments(one, other)) if row[1] != row[2]]
    _section("key", different, "ll", "the configurations are the same")
    _section("metric", _metrics(one, other), "rrr", "neither run has a metric")

    file = WEIGHTS[options.weights]
    if not ((a / file).exists() and (b / file).exists()):
        if options.out:
            raise ConfigError(f"--out {options.out}: {file} is not in both folders")
        console.note(f"weights are not compared: {file} is not in both folders")
        return 0
    x, y = (read_arrays(folder, options.weights) for folder in (a, b))
    _print_weights(x, y, file)
    if options.out:
        _plot(x, y, (a.absolute().name, b.absolute().name), given_path(options.out, "--out"))
    return 0


def _section(title: str, rows: Rows, align: str, nothing: str) -> None:
    """Print a table, or the text ``nothing`` if ``rows`` is empty."""
    console.note("")
    if not rows:
        console.note(nothing)
        return
    header = (title, "A", "B", "B - A")[: len(align) + 1]
    console.print_table(header, rows, "l" + align)


def _setting(run: Run, key: str) -> str:
    if key not in run.settings:
        return MISSING
    return short_text(setting_text(run.settings[key]), MAX_VALUE_CHARACTERS)


def _environments(one: Run, other: Run) -> Rows:
    """Return a row for each key in the sections ENVIRONMENT_KEYS, with the values of both runs."""
    values = [dict(_environment(run.summary)) for run in (one, other)]
    files = [(run.summary.get("data") or {}).get("sources", {}) for run in (one, other)]
    a, b = _by_path_end(*files)
    values[0]["data.sources"], values[1]["data.sources"] = _files_text(a, b), _files_text(b, a)
    return [(key, *(x.get(key, MISSING) for x in values)) for key in {**values[0], **values[1]}]


def _by_path_end(*runs: Mapping[str, str]) -> list[dict[str, str]]:
    """Return, for each run, a map from the end of a file's path to the digest of the file.

    The ends of the paths are compared, because the runs may have read the files from different
    folders. The ends are as short as possible, but long enough to be distinct within each run.
    """
    longest = max((len(PurePath(path).parts) for files in runs for path in files), default=1)
    by_end: list[dict[str, str]] = []
    for parts in range(1, longest + 1):
        by_end = [
            {"/".join(PurePath(path).parts[-parts:]): digest for path, digest in files.items()}
            for files in runs
        ]
        if all(len(x) == len(files) for x, files in zip(by_end, runs, strict=True)):
            break
    return by_end


def _files_text(files: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return a text about the files of a run that differ from the files of the other run.

    The text has the name of one file, the first digits of its SHA-256, and the number of further
    files. If possible, it names a file whose content the other run has not read under any name.
    """
    own = [path for path, digest in files.items() if others.get(path) != digest]
    if not own:
        return NO_FURTHER_FILE if files else MISSING
    read = set(others.values())
    first = min(own, key=lambda path: (files[path] in read, path))
    most = MAX_FILE_NAME_CHARACTERS
    name = first if len(first) <= most else f"…{first[1 - most :]}"
    more = f" + {len(own) - 1:,}" if len(own) > 1 else ""
    return f"{name} #{files[first][:DIGEST_CHARACTERS]}{more}"


def _environment(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield dotted keys in the sections ENVIRONMENT_KEYS of a summary, and the values as text."""
    for key in ENVIRONMENT_KEYS:
        part = summary.get(key)
        if not isinstance(part, dict):
            continue
        for name, value in part.items():
            if (key, name) == ("data", "sources"):
                continue
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{key}.{name}", shortened(text, MAX_VALUE_CHARACTERS)


def _metrics(one: Run, other: Run) -> Rows:
    rows: Rows = []
    for name in {**one.metrics, **other.metrics}:
        x, y = one.metrics.get(name), other.metrics.get(name)
        change = None if x is None or y is None else y - x
        sign = "+" if change is not None and change > 0 else ""
        texts = [MISSING if v is None else format_value(v) for v in (x, y, change)]
        rows.append((name, *texts[:2], sign + texts[2]))
    return rows


def _print_weights(a: Arrays, b: Arrays, file: str) -> None:
    """Print the norms and the cosine of each pair of arrays, and the names of unmatched arrays."""
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
        named, rest = ", ".join(alone[:MAX_NAMED_ARRAYS]), len(alone) - MAX_NAMED_ARRAYS
        more = f" and {rest} more" if rest > 0 else ""
        console.note(f"arrays that differ in shape or are not in both files: {named}{more}")


def _plot(a: Arrays, b: Arrays, names: tuple[str, str], folder: Path) -> None:
    from nnopt.plots.run.weights import plot_weight_difference

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", folder, error) from error
    for suffix in ("png", "svg"):
        plot_weight_difference(a, b, names, folder / f"weights.{suffix}")
    console.note(f"wrote {shown(folder / 'weights.png')} and weights.svg")
