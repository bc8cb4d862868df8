"""Paths of a sweep whose folder was moved, together with the folders that it reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FILES = {"data": ("root", "cache"), "dataset": ("train", "test")}
"""Keys of a configuration whose values are paths."""


@dataclass(frozen=True)
class Move:
    """The absolute paths of a sweep's folder, when it was written and now."""

    before: str
    after: str

    def path(self, path: str) -> str:
        """Return the present path of a file or folder.

        It is the path itself if that exists, or else the same place relative to the sweep's folder.
        A folder that does not exist yet, such as a cache, follows its parent folder.
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
        """Return a configuration with the paths of its data as they are now."""
        moved = dict(container)
        for group, keys in FILES.items():
            values = moved.get(group)
            if isinstance(values, dict):
                moved[group] = {
                    key: self.path(value) if key in keys and isinstance(value, str) else value
                    for key, value in values.items()
                }
        return moved

    def sources(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return the hashes of files by their paths as they are now."""
        return {self.path(file): digest for file, digest in sources.items()}
