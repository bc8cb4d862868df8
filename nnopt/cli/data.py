"""The published datasets on this disk: nnopt data list | fetch NAME... | verify [NAME...]."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnopt.config.arguments import Parser
from nnopt.data.published import PUBLISHED, Published
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.io.paths import DATA_FOLDER, absolute_folder, environment
from nnopt.terminal import console


def main(arguments: list[str]) -> int:
    """Run one of the three verbs; returns the exit code. Raises NnoptError."""
    options = _parser().parse_args(arguments)
    root = Path(absolute_folder(options.root, "--root"))
    if options.verb == "list":
        return _list(root)
    names = list(dict.fromkeys(options.names))
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise ConfigError(
            f"no dataset {unknown[0]!r} to {options.verb}; known: {', '.join(PUBLISHED)}"
        )
    if options.verb == "fetch":
        return _fetch(names, root)
    return _verify(names, root)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nnopt data", description=__doc__)
    shared = Parser(add_help=False)
    shared.add_argument(
        "--root",
        default=environment("NNOPT_DATA_DIR", DATA_FOLDER),
        help="the folder of the datasets (default: $NNOPT_DATA_DIR, else ./data)",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | fetch | verify")
    verbs.add_parser("list", parents=[shared], help="which datasets there are, and which are here")
    known = ", ".join(PUBLISHED)
    fetch = verbs.add_parser("fetch", parents=[shared], help="download datasets")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=known)
    verify = verbs.add_parser("verify", parents=[shared], help="read every byte, compare SHA-256")
    verify.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {known} here")
    return parser


def _list(root: Path) -> int:
    from nnopt.data.verify import presence

    header = ("name", "training", "validation", "test", "shape", "classes", "here", "where")
    rows = []
    for published in PUBLISHED.values():
        found = presence(published, root)
        sizes = [published.parts.get(part) for part in ("train", "valid", "test")]
        shape = "x".join(map(str, published.shape))
        rows.append(
            (
                published.name,
                *(f"{size:,}" if size else "" for size in sizes),
                shape,
                str(len(published.classes)),
                "yes" if found.is_here else "no",
                found.note,
            )
        )
    console.print_table(header, rows, align="lrrrlrll")
    return 0


def _fetch(names: list[str], root: Path) -> int:
    from nnopt.data.download import fetch

    for name in names:
        fetch(PUBLISHED[name], root, console.note)
    return 0


def _verify(names: list[str], root: Path) -> int:
    """Check every dataset before saying that one is damaged."""
    from nnopt.data.verify import presence, verify

    chosen: list[Published] = [PUBLISHED[name] for name in names]
    if not names:
        chosen = [one for one in PUBLISHED.values() if presence(one, root).is_here]
        if not chosen:
            raise DataError(f"no dataset in {shown(root)}; fetch one: nnopt data fetch mnist")
    all_problems = []
    for published in chosen:
        try:
            problems = verify(published, root, root / "cache")
        except DataError as error:
            problems = [str(error)]
        if not problems:
            console.note(f"{published.name}: {_good(published)}")
        all_problems += [f"{published.name}: {problem}" for problem in problems]
    if all_problems:
        raise DataError("\n".join(all_problems))
    return 0


def _good(published: Published) -> str:
    if published.sha256:
        return "all files have the published SHA-256"
    return "all images are there and whole (no SHA-256 of them was ever published)"
