"""Current paths of the data of a sweep whose folder was moved together with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH_KEYS = {"data": ("root", "cache"), "dataset": ("train", "test")}
"""Group -> its keys whose values are paths."""


@dataclass(frozen=True)
class Move:
    """The absolute path of a sweep's folder when ``sweep.json`` was written, and its path now."""

    before: str
    after: str

    def path(self, path: str) -> str:
        """Return the current path of a file or folder, given its stored path.

        If the stored path exists, it is returned. Otherwise the file is looked up at the same
        position relative to the sweep's folder. If it does not exist there either, as a cache that
        is not written yet, its parent folder decides.
        """
        if self.before == self.after or not os.path.isabs(path) or os.path.lexists(path):
            return path
        now = os.path.normpath(os.path.join(self.after, os.path.relpath(path, self.before)))
        above, above_now = os.path.dirname(path), os.path.dirname(now)
        is_above_moved = os.path.isdir(above_now) and not os.path.isdir(above)
        return now if is_above_moved or os.path.lexists(now) else path

    def config(self, container: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with the current paths of its data."""
        moved = dict(container)
        for group, keys in PATH_KEYS.items():
            if isinstance(values := moved.get(group), dict):
                moved[group] = {
                    key: self.path(value) if key in keys and isinstance(value, str) else value
                    for key, value in values.items()
                }
        return moved
