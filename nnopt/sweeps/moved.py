"""Paths of a sweep whose folder was moved together with its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH_KEYS = {"data": ("root", "cache"), "dataset": ("train", "test")}
"""Group -> its keys whose values are paths."""


@dataclass(frozen=True)
class Move:
    """The absolute path of a sweep's folder when ``sweep.json`` was written, and now."""

    before: str
    after: str

    def path(self, path: str) -> str:
        """Return the present path of a file or folder.

        An existing path does not change. Otherwise the path relative to the sweep's folder stays
        the same. A folder that does not exist yet, such as a cache, follows its parent folder.
        """
        if self.before == self.after or not os.path.isabs(path) or os.path.lexists(path):
            return path
        now = os.path.normpath(os.path.join(self.after, os.path.relpath(path, self.before)))
        if os.path.lexists(now):
            return now
        above_before, above_now = os.path.dirname(path), os.path.dirname(now)
        has_moved = os.path.isdir(above_now) and not os.path.isdir(above_before)
        return now if has_moved else path

    def config(self, container: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with the present paths of its data."""
        moved = dict(container)
        for group, keys in PATH_KEYS.items():
            values = moved.get(group)
            if isinstance(values, dict):
                moved[group] = {
                    key: self.path(value) if key in keys and isinstance(value, str) else value
                    for key, value in values.items()
                }
        return moved

    def sources(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return the hashes of files by their present paths."""
        return {self.path(file): digest for file, digest in sources.items()}
