"""The plots of a report: embedded in the page until it reaches a maximum size, then linked."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from nnopt.io.own_files import PLOT_SUFFIXES
from nnopt.io.received_files import open_received, read_received

MAX_PAGE_BYTES = 4_800_000  # limit of a page with its plots
MAX_SVG_BYTES = 600_000  # a larger SVG is replaced by the PNG of the same name if there is one
MAX_PLOT_BYTES, MAX_PLOT_PIXELS = 64_000_000, 40_000_000  # limits for reading and for decoding
WEBP_QUALITY = 82  # from 0 to 100; plots look the same as in PNG at a quarter of the size
DRAWN_BY_PAGE = ("schedule", "curves")  # names of plots that the page also draws; listed last

ACTIVE_CONTENT = re.compile(
    r"<\s*(\w+:)?(script|foreignobject|iframe|embed|object|handler|listener)\b|<!entity"
    r"|<\?xml-stylesheet|[\s\"'/]on\w+\s*=|javascript:|@import",
    re.IGNORECASE,
)
"""Parts of an SVG that run a program or load another file; matplotlib writes none of them."""

DAMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error, zlib.error)
"""Errors that Pillow raises for a damaged PNG."""


def plots_of(folder: Path) -> list[Path]:
    """Return the plots of a run or a sweep. Of a plot in both formats, the SVG replaces the PNG.

    A link to another folder, or an SVG with active content, is left out.
    """
    plots: dict[str, Path] = {}
    for path in sorted((folder / "plots").glob("*")):  # .png comes first, and .svg replaces it
        has_png = path.suffix == ".svg" and path.stem in plots
        limit = MAX_SVG_BYTES if has_png else MAX_PLOT_BYTES
        if path.suffix in PLOT_SUFFIXES and _is_safe(path, limit):
            plots[path.stem] = path
    return sorted(plots.values(), key=_rank)


def _is_safe(path: Path, limit: int) -> bool:
    """Return whether a plot is a file of at most ``limit`` bytes, without active content.

    A browser that opens an SVG runs its scripts.
    """
    try:
        if path.suffix != ".svg":
            open_received(path, path.parent.parent, limit).close()
            return True
        data = read_received(path, path.parent.parent, limit)
        return b"\0" not in data and not ACTIVE_CONTENT.search(data.decode("utf-8"))
    except (OSError, ValueError):
        return False


def _rank(path: Path) -> tuple[bool, str]:
    return path.stem in DRAWN_BY_PAGE, path.stem


def embed_or_link(
    sweeps: Sequence[Path], runs: Sequence[Path], page: Path, available_bytes: int
) -> dict[Path, str]:
    """Return the ``src`` attribute of each plot: a ``data:`` URL, or a link relative to ``page``.

    Plots of sweeps are embedded first, then plots of runs. For each name of a plot, the plots of
    all runs are embedded if enough of ``available_bytes`` is left; otherwise, they are all linked.
    """
    sources: dict[Path, str] = {}
    kinds: dict[str, list[Path]] = {str(path): [path] for path in sweeps}
    for path in sorted(runs, key=_rank):
        kinds.setdefault(path.stem, []).append(path)
    for paths in kinds.values():
        data = _embed(paths, available_bytes)
        if data is None:
            data = {path: _link(path, page) for path in paths}
        else:
            available_bytes -= sum(map(len, data.values()))
        sources |= data
    return sources


def _embed(paths: Sequence[Path], available_bytes: int) -> dict[Path, str] | None:
    """Return the readable plots as ``data:`` URLs; None if they exceed ``available_bytes``.

    The total size is first estimated from a sample, because encoding is slow.
    """
    sample = paths[:: max(1, len(paths) // 8)]
    with ThreadPoolExecutor() as pool:
        data = dict(zip(sample, pool.map(_data_url, sample), strict=True))
        if sum(map(len, data.values())) * len(paths) > 1.1 * available_bytes * len(sample):
            return None
        rest = [path for path in paths if path not in data]
        data |= zip(rest, pool.map(_data_url, rest), strict=True)
    data = {path: data[path] for path in paths if data[path]}
    return data if sum(map(len, data.values())) <= available_bytes else None


def _data_url(path: Path) -> str:
    """Return a plot as a ``data:`` URL, with PNG converted to WebP; empty if it is unreadable."""
    from PIL import Image

    kind = "svg+xml"
    try:
        data = read_received(path, path.parent.parent, MAX_PLOT_BYTES)
        if path.suffix != ".svg":
            kind, file = "webp", io.BytesIO()
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                if image.width * image.height > MAX_PLOT_PIXELS:
                    return ""
                image.convert("RGB").save(file, "webp", quality=WEBP_QUALITY, method=1)
            data = file.getvalue()
    except (*DAMAGE_ERRORS, Image.DecompressionBombError):  # the PNG is incomplete or damaged
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _link(path: Path, page: Path) -> str:
    """Return a URL relative to the page, so that page and plot can be moved together."""
    relative = os.path.relpath(path.resolve(), page.resolve().parent)
    return quote(relative.replace(os.sep, "/"), errors="surrogateescape")
