"""``nnopt data``: list, download or verify the published datasets, or show any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnopt.cli.data_parsers import data_parser
from nnopt.data.published import PUBLISHED, Published
from nnopt.errors import ConfigError, DataError, suggest
from nnopt.io.atomic_files import json_text, shown
from nnopt.io.paths import absolute_folder
from nnopt.terminal import console
from nnopt.terminal.safe_stream import standard_output


def main(arguments: list[str]) -> int:
    """Run ``list``, ``fetch``, ``verify`` or ``show``."""
    if arguments[:1] == ["show"]:
        from nnopt.cli.data_show import main as show  # imports modules that the others do not need

        return show(arguments[1:])
    options = data_parser().parse_args(arguments)
    root = Path(absolute_folder(options.root, "--root"))
    if options.verb == "list":
        return _list(root, options.format)
    names = list(dict.fromkeys(options.names))
    if unknown := [name for name in names if name not in PUBLISHED]:
        hint = suggest(unknown[0], PUBLISHED)
        raise ConfigError(f"no dataset {unknown[0]!r} to {options.verb}; {hint}")
    if options.verb == "verify":
        return _verify(names, root)
    from nnopt.data.download import fetch

    for name in names:
        fetch(PUBLISHED[name], root, console.note)
    return 0


def _list(root: Path, form: str) -> int:
    """Print the datasets as a table or as JSON."""
    from nnopt.data.download import presence

    found = {name: presence(published, root) for name, published in PUBLISHED.items()}
    if form == "json":
        entries = [_entry(published, *found[name]) for name, published in PUBLISHED.items()]
        standard_output().write(json_text({"root": str(root), "datasets": entries}))
        return 0
    header = ("name", "training", "validation", "test", "shape", "classes", "here", "where")
    rows = []
    for name, published in PUBLISHED.items():
        is_present, where = found[name]
        counts = (f"{size:,}" if size else "" for size in _sizes(published).values())
        shape, classes = "x".join(map(str, published.shape)), str(len(published.classes))
        here = "yes" if is_present else "no"
        rows.append((name, *counts, shape, classes, here, where))
    console.print_table(header, rows, align="lrrrlrll")
    return 0


def _sizes(published: Published) -> dict[str, int | None]:
    """Return the number of samples of each part, or None for a part that the dataset lacks."""
    parts = {"train": "train", "validation": "valid", "test": "test"}
    return {name: published.parts.get(part) for name, part in parts.items()}


def _entry(published: Published, is_present: bool, where: str) -> dict[str, Any]:
    """Return the JSON data of a dataset. ``where`` is its folder, or the reason of its absence."""
    return {
        "name": published.name,
        "samples": _sizes(published),
        "shape": published.shape,
        "classes": published.classes,
        "present": is_present,
        "folder": where if is_present else None,
        "problem": None if is_present else where,
    }


def _verify(names: list[str], root: Path) -> int:
    """Verify datasets, by default all present datasets. Raises DataError at the end."""
    from nnopt.data.download import presence, verify

    chosen: list[Published] = [PUBLISHED[name] for name in names]
    if not names:
        chosen = [one for one in PUBLISHED.values() if presence(one, root)[0]]
        if not chosen:
            raise DataError(f"no dataset in {shown(root)}; fetch one: nnopt data fetch mnist")
    all_problems = []
    for published in chosen:
        try:
            problems = verify(published, root, root / "cache")
        except DataError as error:
            problems = [str(error)]
        if not problems:
            success = "all files have the published SHA-256"
            if not published.sha256:
                success = "all images are present and complete (there is no published SHA-256)"
            console.note(f"{published.name}: {success}")
        all_problems += [f"{published.name}: {problem}" for problem in problems]
    if all_problems:
        raise DataError("\n".join(all_problems))
    return 0
