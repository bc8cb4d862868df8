"""The files of a published dataset on this disk."""

from __future__ import annotations

from pathlib import Path

from nnopt.data import cifar10, cinic10, idx
from nnopt.data.locations import Place
from nnopt.data.published import PUBLISHED, Published
from nnopt.data.source import Source


def locate_published(name: str, root: Path) -> Source[Published]:
    """Find the files of a published dataset under ``root``. Raises DataError if missing."""
    if name == "cifar10":
        return cifar10.locate(root)
    if name == "cinic10":
        return cinic10.locate(root)
    return idx.locate(PUBLISHED[name], root)


def published_places(name: str, root: Path) -> list[Place]:
    """Return the folders under ``root`` that may hold a published dataset, the usual one first."""
    if name == "cifar10":
        return cifar10.places(root)
    if name == "cinic10":
        return cinic10.places(root)
    return idx.places(PUBLISHED[name], root)
