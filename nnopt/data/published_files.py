"""Finds and verifies the files of the published datasets on this disk."""

from __future__ import annotations

from pathlib import Path

from nnopt.data import cifar10, cinic10, idx
from nnopt.data.cache import damaged
from nnopt.data.published import PUBLISHED, Published
from nnopt.data.source import Source
from nnopt.errors import DataError

LOCATE = {
    "mnist": idx.locate,
    "fashion_mnist": idx.locate,
    "cifar10": cifar10.locate,
    "cinic10": cinic10.locate,
}


def locate_published(name: str, root: Path) -> Source[Published]:
    """Find the files of a published dataset under ``root``. Raises DataError if missing."""
    return LOCATE[name](PUBLISHED[name], root)


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
