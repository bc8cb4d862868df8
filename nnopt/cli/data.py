"""``nnopt data``: list, download or verify the published datasets."""

from __future__ import annotations

from pathlib import Path

from nnopt.cli.parsers import data_parser
from nnopt.data.published import PUBLISHED, Published
from nnopt.errors import ConfigError, DataError, suggest
from nnopt.io.atomic_files import shown
from nnopt.io.paths import absolute_folder
from nnopt.terminal import console


def main(arguments: list[str]) -> int:
    """Run ``list``, ``fetch`` or ``verify``."""
    options = data_parser().parse_args(arguments)
    root = Path(absolute_folder(options.root, "--root"))
    if options.verb == "list":
        return _list(root)
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


def _list(root: Path) -> int:
    from nnopt.data.download import presence

    header = ("name", "training", "validation", "test", "shape", "classes", "here", "where")
    rows = []
    for published in PUBLISHED.values():
        is_present, where = presence(published, root)
        sizes = [published.parts.get(part) for part in ("train", "valid", "test")]
        counts = (f"{size:,}" if size else "" for size in sizes)
        shape, classes = "x".join(map(str, published.shape)), str(len(published.classes))
        here = "yes" if is_present else "no"
        rows.append((published.name, *counts, shape, classes, here, where))
    console.print_table(header, rows, align="lrrrlrll")
    return 0


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
