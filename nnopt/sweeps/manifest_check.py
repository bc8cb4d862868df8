"""Checks of the values in ``sweep.json``.

The file may be a download. Its checksum detects damage, but anyone can compute a valid checksum.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from nnopt.config.point import Point, point_id
from nnopt.io.safe_text import shortened, visible
from nnopt.results.summary import check_tree
from nnopt.schema import CsvConfig

ID = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+){3}-s[0-9]{1,20}-[0-9a-f]{10}")
"""Pattern of a point's id, which is also its folder's name: see ``nnopt.config.point.point_id``."""


def check_head(found: Mapping[str, Any]) -> None:
    """Raise ValueError if an entry of ``sweep.json``, apart from its points, is invalid."""
    for key in ("working", "folder", "config_dir"):  # older versions wrote no key "folder"
        if key == "working" or found.get(key) is not None:
            _check_path(found.get(key), key)
    for key in ("words", "varied"):
        _check_strings(found.get(key), key)
    for key in ("sweeper", "launcher"):
        _check_map(found.get(key), key)
    if not isinstance(found.get("points"), list):
        raise ValueError("'points' is not a list")
    if not found["points"] and found["sweeper"].get("name") == "grid":
        raise ValueError("'points' is empty")


def check_entries(entries: list[Any]) -> None:
    """Raise ValueError unless the points are numbered from 1 and have valid, distinct ids."""
    ids = set()
    for number, entry in enumerate(entries, start=1):
        where = f"point {number}"
        _check_map(entry, where)
        if entry.get("number") != number or isinstance(entry["number"], bool):
            raise ValueError(f"{where} in the list has the number {_short(entry.get('number'))}")
        identity = entry.get("id")
        if not (isinstance(identity, str) and ID.fullmatch(identity)):
            raise ValueError(f"{where} has the id {_short(identity)}, which is not valid")
        if identity in ids:
            raise ValueError(f"{where} has the id of another point, {identity}")
        ids.add(identity)
        _check_strings(entry.get("overrides"), f"{where}: overrides")
        if not isinstance(entry.get("config"), dict):
            raise ValueError(f"{where}: config is not a map")


def check_point(point: Point) -> None:
    """Raise ValueError unless the point's id matches its configuration and paths are absolute."""
    config = point.config
    own, given = point_id(config), point.id
    if isinstance(config.dataset, CsvConfig):  # the id depends on the original working directory
        own, given = own.rpartition("-")[0], given.rpartition("-")[0]
    if own != given:
        raise ValueError(f"the id of point {point.id} does not match its configuration")
    _check_path(config.data.root, "data.root")
    if config.data.cache is not None:
        _check_path(config.data.cache, "data.cache")


def _check_path(path: Any, key: str) -> None:
    try:
        is_path = isinstance(path, str) and os.path.isabs(path) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise ValueError(f"{key} = {_short(path)} is not an absolute path")


def _check_strings(values: Any, where: str) -> None:
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ValueError(f"{where} is not a list of texts")


def _check_map(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a map")
    try:
        check_tree(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _short(value: Any) -> str:
    return shortened(visible(repr(value)), 60)
