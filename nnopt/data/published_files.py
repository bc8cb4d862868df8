"""Finds and verifies the files of the published datasets on this disk."""

from __future__ import annotations

from pathlib import Path

from nnopt.data import cifar10, cinic10, idx
from nnopt.data.cache import damaged
from nnopt.data.locations import Location
from nnopt.data.published import PUBLISHED, Published
from nnopt.data.source import Source
from nnopt.errors import DataError

READERS = {
    "mnist": (idx.locate, idx.candidates),
    "fashion_mnist": (idx.locate, idx.candidates),
    "cifar10": (cifar10.locate, cifar10.candidates),
    "cinic10": (cinic10.locate, cinic10.candidates),
}
"""Name of a dataset -> the functions that find its files."""


def locate_published(name: str, root: Path) -> Source[Published]:
    """Find the files of a published dataset under ``root``. Raises DataError if missing."""
    locate, _ = READERS[name]
    return locate(PUBLISHED[name], root)


def candidate_locations(name: str, root: Path) -> list[Location]:
    """Return the folders that can contain a published dataset, the official one first."""
    _, candidates = READERS[name]
    return candidates(PUBLISHED[name], root)


def presence(published: Published, root: Path) -> tuple[bool, str]:
    """Return whether a dataset is complete, and its folder or missing files. No file is read."""
    try:
        return True, locate_published(published.name, root).location
    except DataError as error:
        return False, str(error).partition(";")[0]


def verify(published: Published, root: Path, cache: Path) -> list[str]:
    """Read all files of a dataset and its cache, and return the problems found.

    The images of CINIC-10 have no published SHA-256. They are verified by their number and by the
    CRC of each chunk of each file. Raises DataError for a file that is missing, damaged or part of
    another dataset.
    """
    decoded = locate_published(published.name, root).decode()
    stale = [f"{path} is damaged; delete its folder" for path in damaged(cache, published.name)]
    return [*decoded.notes, *stale]
