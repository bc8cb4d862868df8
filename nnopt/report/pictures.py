"""The plots of a report: within the page as far as its size allows, else links to their files."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

BUDGET = 2_600_000
"""Bytes of all pictures within a page, as base64: with data and scripts it stays under 5 MB."""

TYPES = {".svg": "image/svg+xml", ".png": "image/png"}

DRAWN_ANYWAY = ("schedule", "curves")
"""What the page shows in its own curves: the last to be taken in."""


@dataclass
class Pictures:
    """What becomes of each file: the ``src`` of its image. within, linked: how many."""

    sources: dict[Path, str] = field(default_factory=dict)
    within: int = 0
    linked: int = 0


def plots_of(folder: Path | None) -> list[Path]:
    """The plots in a run's or a sweep's ``plots/``, by name; of SVG and PNG of one name the SVG."""
    plots = {}
    try:
        names = sorted(os.listdir(folder / "plots")) if folder else []
    except OSError:
        return []
    for path in (folder / "plots" / name for name in names if folder):
        if path.suffix in TYPES and path.is_file():
            plots[path.stem] = path  # .png sorts before .svg
    return sorted(plots.values(), key=lambda path: (path.stem in DRAWN_ANYWAY, path.stem))


def place_pictures(sweeps: Iterable[Path], runs: Sequence[Path], page: Path) -> Pictures:
    """Decide for every plot. Those of sweeps come first, then those of runs kind by kind: all
    plots of one name are within the page if they fit, or else all of them are linked."""
    pictures, left = Pictures(), BUDGET
    kinds: dict[str, list[Path]] = {str(path): [path] for path in sweeps}
    ranked = sorted(runs, key=lambda path: (path.stem in DRAWN_ANYWAY, path.stem))
    for path in ranked:
        kinds.setdefault(path.stem, []).append(path)
    for paths in kinds.values():
        needed = sum(_encoded_size(path) for path in paths)
        if needed <= left:
            left -= needed
            pictures.sources |= {path: _within(path) for path in paths}
            pictures.within += len(paths)
        else:
            pictures.sources |= {path: _link(path, page) for path in paths}
            pictures.linked += len(paths)
    return pictures


def _encoded_size(path: Path) -> int:
    try:
        return -(-path.stat().st_size // 3) * 4 + 30
    except OSError:
        return 0


def _within(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{TYPES[path.suffix]};base64,{data}"


def _link(path: Path, page: Path) -> str:
    """Relative to the page, so that both can be moved together."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    return quote(relative.replace(os.sep, "/"), errors="surrogateescape")
