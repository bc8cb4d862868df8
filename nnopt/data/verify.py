"""Checking a dataset's files against what was published, reading every byte of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnopt.data.cache import damaged
from nnopt.data.published import Published
from nnopt.data.published_files import locate_published
from nnopt.errors import DataError


@dataclass(frozen=True)
class Presence:
    """Is a dataset there? note says where, or what is missing."""

    is_here: bool
    note: str


def presence(published: Published, root: Path) -> Presence:
    """Look for a dataset's files without reading them."""
    try:
        return Presence(True, locate_published(published.name, root).place)
    except DataError as error:
        return Presence(False, str(error).partition(";")[0])


def verify(published: Published, root: Path, cache: Path) -> list[str]:
    """Read and hash all files of a dataset, and what is cached of it; returns the problems found.

    Raises DataError if a file is missing, damaged or another dataset's. CINIC-10 has no published
    SHA-256 for its images: it is complete if it has as many as published and all decode, the CRC of
    each chunk of each file included.
    """
    decoded = locate_published(published.name, root).decode()
    stale = [f"{path} is damaged; delete its folder" for path in damaged(cache, published.name)]
    return [*decoded.notes, *stale]
