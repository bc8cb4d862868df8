"""The plots of a report: within the page as far as its size allows, else shown from their files."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from nnopt.io.own_files import PICTURES
from nnopt.io.received_files import open_received, read_received

PAGE_BYTES = 4_800_000
"""The largest size of a page with all its parts."""

LARGEST_SVG = 600_000
"""Bytes; of more, the PNG of the same name is taken if there is one."""

PICTURE_BYTES, PICTURE_PIXELS = 64_000_000, 40_000_000
"""The largest picture that is read, and decoded."""

PROGRAM = re.compile(
    r"<\s*(\w+:)?(script|foreignobject|iframe|embed|object|handler|listener)\b|<!entity"
    r"|<\?xml-stylesheet|[\s\"'/]on\w+\s*=|javascript:|@import",
    re.IGNORECASE,
)
"""Parts of an SVG that run a program or load another file; matplotlib writes none of them."""

QUALITY = 82
"""Of WebP, 0 to 100: plots look the same as in their PNG, at a quarter of its size."""

DAMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error, zlib.error)
"""The errors of Pillow for a PNG with wrong bytes."""

DRAWN_ANYWAY = ("schedule", "curves")
"""Plots whose curves the page draws itself: the last ones to be included."""


@dataclass
class Pictures:
    """The ``src`` of each plot's image, and how many of them are within the page, or linked."""

    sources: dict[Path, str] = field(default_factory=dict)
    within: int = 0
    linked: int = 0


def plots_of(folder: Path) -> list[Path]:
    """Return the plots in the ``plots/`` of a run or a sweep; of SVG and PNG the SVG.

    A link out of the folder, and an SVG with a program in it, is left out.
    """
    try:
        paths = [folder / "plots" / name for name in sorted(os.listdir(folder / "plots"))]
    except OSError:
        return []
    plots: dict[str, Path] = {}
    for path in paths:  # .png comes before .svg
        if path.suffix not in PICTURES or not _is_drawing(path):
            continue
        is_too_large = path.suffix == ".svg" and path.stem in plots and _size(path) > LARGEST_SVG
        if not is_too_large:
            plots[path.stem] = path
    return sorted(plots.values(), key=_rank)


def _is_drawing(path: Path) -> bool:
    """Return whether a picture belongs to its folder and holds no program. A browser that opens an
    SVG by itself would run its scripts."""
    try:
        if path.suffix != ".svg":
            open_received(path, path.parent.parent, PICTURE_BYTES).close()
            return True
        data = read_received(path, path.parent.parent, PICTURE_BYTES)
        return b"\0" not in data and not PROGRAM.search(data.decode("utf-8"))
    except (OSError, ValueError):
        return False


def _rank(path: Path) -> tuple[bool, str]:
    return path.stem in DRAWN_ANYWAY, path.stem


def place_pictures(sweeps: Sequence[Path], runs: Sequence[Path], page: Path, room: int) -> Pictures:
    """Decide for every plot. Those of sweeps come first, then those of runs kind by kind: all plots
    of one name are within the page, if ``room`` bytes allow, or else all are linked."""
    pictures = Pictures()
    kinds: dict[str, list[Path]] = {str(path): [path] for path in sweeps}
    for path in sorted(runs, key=_rank):
        kinds.setdefault(path.stem, []).append(path)
    for paths in kinds.values():
        found = _all_within(paths, room)
        if found is None:
            pictures.sources |= {path: _link(path, page) for path in paths}
            pictures.linked += len(paths)
        else:
            room -= sum(map(len, found.values()))
            pictures.sources |= found
            pictures.within += len(found)
    return pictures


def _all_within(paths: Sequence[Path], room: int) -> dict[Path, str] | None:
    """The plots as data, less those that cannot be read; None if there is no room for them, which
    a few tell before all are made smaller."""
    sample = paths[:: max(1, len(paths) // 8)]
    with ThreadPoolExecutor() as pool:
        few = dict(zip(sample, pool.map(_as_data, sample), strict=True))
        if sum(map(len, few.values())) * len(paths) > 1.1 * room * len(sample):
            return None
        rest = [path for path in paths if path not in few]
        found = few | dict(zip(rest, pool.map(_as_data, rest), strict=True))
    found = {path: found[path] for path in paths if found[path]}
    return found if sum(map(len, found.values())) <= room else None


def _as_data(path: Path) -> str:
    """The picture as a ``data:`` address, a PNG as WebP; nothing if it cannot be read."""
    from PIL import Image

    kind = "svg+xml"
    try:
        if path.suffix == ".svg":
            picture = read_received(path, path.parent.parent, PICTURE_BYTES)
        else:
            kind, file = "webp", io.BytesIO()
            data = read_received(path, path.parent.parent, PICTURE_BYTES)
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                if image.width * image.height > PICTURE_PIXELS:
                    return ""
                image.convert("RGB").save(file, "webp", quality=QUALITY, method=1)
            picture = file.getvalue()
    except (*DAMAGE_ERRORS, Image.DecompressionBombError):  # being written, or damaged
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _link(path: Path, page: Path) -> str:
    """Relative to the page, so that both can be moved together."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    return quote(relative.replace(os.sep, "/"), errors="surrogateescape")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
