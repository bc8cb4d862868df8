"""``sweep.json``: the description of a sweep, from which any process can resume it.

The file is written before the first point starts and when points are added. It does not depend on
the current folder: paths of data are absolute, and paths of points are relative to the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nnopt
from nnopt.config.compose import Plan
from nnopt.config.point import Point, with_plots_decided
from nnopt.config.validate import read_config, read_plugin
from nnopt.errors import ConfigError, OutputError, ResumeError
from nnopt.io.atomic_files import shown, write_bytes
from nnopt.io.locks import hold
from nnopt.io.paths import absolute_folder
from nnopt.io.received_files import TABLE_BYTES, parse_json, read_received
from nnopt.io.safe_text import visible
from nnopt.schema import (
    CsvConfig,
    LauncherConfig,
    SweeperConfig,
    new_override,
    with_added_keys,
    with_new_keys,
)
from nnopt.sweeps.manifest_check import check_entries, check_head, check_point

MANIFEST = "sweep.json"

FORMAT = 1
"""Version of the file format. A newer nnopt may write a higher version."""

_json = partial(json.dumps, ensure_ascii=False)

NEW_SWEEP = "run the sweep again, in a new folder"

PATH_KEYS = {"data": ("root", "cache"), "dataset": ("train", "test"), "initializer": ("from",)}
"""Group -> keys of this group whose values are paths."""


@dataclass(frozen=True)
class Move:
    """The absolute path of a sweep's folder when ``sweep.json`` was written, and its path now."""

    before: str
    after: str

    def path(self, path: str) -> str:
        """Return the current path of a file or folder, given its stored path.

        A stored path that exists is returned unchanged. Otherwise the path at the same position
        relative to the sweep's current folder is returned if it exists. If neither path exists, as
        for a cache that is not written yet, the path whose parent folder exists is returned.
        """
        if self.before == self.after or not os.path.isabs(path) or os.path.lexists(path):
            return path
        now = os.path.normpath(os.path.join(self.after, os.path.relpath(path, self.before)))
        above, above_now = os.path.dirname(path), os.path.dirname(now)
        is_above_moved = os.path.isdir(above_now) and not os.path.isdir(above)
        return now if is_above_moved or os.path.lexists(now) else path

    def config(self, container: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with the current paths of data files."""
        moved = dict(container)
        for group, keys in PATH_KEYS.items():
            if isinstance(values := moved.get(group), dict):
                given = [key for key in keys if isinstance(values.get(key), str)]
                moved[group] = {**values, **{key: self.path(values[key]) for key in given}}
        return moved


@dataclass(frozen=True)
class Sweep:
    """The content of ``sweep.json``, and the folder of the sweep."""

    folder: Path
    working_dir: str  # the working directory of the command that created the sweep
    overrides: tuple[str, ...]  # the overrides on the command line of ``nnopt run``
    config_dir: str | None  # the argument of --config-dir on this command line
    varied: tuple[str, ...]  # the keys that vary among the points, in the order of the command line
    sweeper: SweeperConfig
    launcher: LauncherConfig
    points: tuple[Point, ...]  # the number of a point is its index plus 1, and never changes
    move: Move = Move("", "")


def create_sweep(plan: Plan, folder: Path) -> Sweep:
    """Create a sweep in a folder, and write ``sweep.json``. Raises OutputError."""
    count = len(plan.points)
    points = tuple(with_plots_decided(with_absolute_paths(point), count) for point in plan.points)
    config_dir = plan.config_dir and absolute_folder(plan.config_dir, "--config-dir")
    plugins = plan.sweeper, plan.launcher
    sweep = Sweep(folder, os.getcwd(), plan.overrides, config_dir, plan.varied, *plugins, points)
    with hold(folder, wait=True):
        if (folder / MANIFEST).exists():
            raise OutputError(f"another process created a sweep in {shown(folder)}")
        write_sweep(sweep)
    return sweep


def extend_sweep(sweep: Sweep, points: Iterable[Point], varied: Iterable[str] = ()) -> Sweep:
    """Read the sweep again and add points to it. Raises ResumeError or OutputError."""
    with hold(sweep.folder, wait=True):
        return add_points(read_sweep(sweep.folder, sweep), points, varied)


def add_points(
    sweep: Sweep, points: Iterable[Point], varied: Iterable[str] = (), planned: int = 0
) -> Sweep:
    """Add the points that the sweep does not have yet, write ``sweep.json``, and return the sweep.

    ``planned`` is the final number of points, or 0 if it is unknown. Raises OutputError.
    """
    known = {point.id for point in sweep.points}
    new = [with_absolute_paths(point) for point in points if point.id not in known]
    if new:
        count = max(planned, len(sweep.points) + len(new))
        added = [with_plots_decided(point, count) for point in new]
        keys = tuple(dict.fromkeys((*sweep.varied, *varied)))
        sweep = replace(sweep, points=(*sweep.points, *added), varied=keys)
        write_sweep(sweep)
    return sweep


def write_sweep(sweep: Sweep) -> None:
    """Write ``sweep.json``, one line for each point. Raises OutputError."""
    head = {
        "format": FORMAT,
        "nnopt": nnopt.__version__,
        "folder": os.path.abspath(sweep.folder),
        "working": sweep.working_dir,
        "words": sweep.overrides,
        "config_dir": sweep.config_dir,
        "varied": sweep.varied,
        "sweeper": asdict(sweep.sweeper),
        "launcher": asdict(sweep.launcher),
    }
    points = [
        _json({"number": number, "id": p.id, "overrides": p.overrides, "config": p.container})
        for number, p in enumerate(sweep.points, start=1)
    ]
    lines = [f"{_json(key)}: {_json(value)}" for key, value in head.items()]
    lines.append('"points": [\n{}\n]'.format(",\n".join(points)))
    # A file name that is not UTF-8 contains surrogates. They are written as JSON escapes.
    body = ",\n".join(lines).encode("utf-8", errors="backslashreplace")
    digest = hashlib.sha256(body).hexdigest()
    write_bytes(sweep.folder / MANIFEST, b'{"sha256": "%s",\n%s}\n' % (digest.encode(), body))


def read_sweep(folder: Path, before: Sweep | None = None) -> Sweep:
    """Read the sweep in a folder. Raises ResumeError if it cannot be resumed.

    ``before`` is the result of an earlier call for this folder. Its points are not checked again.
    """
    path = folder / MANIFEST
    found = _read_json(folder)
    version = found["nnopt"]
    known = {point.id: point for point in before.points} if before else {}
    try:
        check_head(found)
        check_entries(found["points"])
        now = os.path.abspath(folder)
        move = Move(found.get("folder") or now, now)
        return Sweep(
            folder,
            move.path(found["working"]),
            tuple(map(new_override, found["words"])),
            found["config_dir"] and move.path(found["config_dir"]),
            tuple(map(new_override, found["varied"])),
            read_plugin("hydra.sweeper", _with_new_keys(found["sweeper"])),
            read_plugin("hydra.launcher", found["launcher"]),
            tuple(known.get(entry["id"]) or _point(entry, move) for entry in found["points"]),
            move,
        )
    except ValueError as error:
        raise ResumeError(f"{shown(path)} is no file of nnopt: {error}; {NEW_SWEEP}") from None
    except ConfigError as error:
        is_other = version != nnopt.__version__
        remedy = f"resume the sweep with nnopt {version}, which wrote it" if is_other else NEW_SWEEP
        raise ResumeError(
            f"{shown(path)} has a configuration that nnopt {nnopt.__version__} refuses: "
            f"{error.problems[0]}; {remedy}"
        ) from error


def _read_json(folder: Path) -> dict[str, Any]:
    """Read ``sweep.json``, and check the version of its format and its checksum."""
    path = folder / MANIFEST
    try:
        data = read_received(path, folder, TABLE_BYTES)
    except FileNotFoundError:
        raise ResumeError(_no_sweep(folder)) from None
    except OSError as error:
        raise ResumeError(f"cannot read {shown(path)}: {error.strerror}") from error
    head, _, body = data.partition(b",\n")
    digest = hashlib.sha256(body[: -len(b"}\n")]).hexdigest()
    damaged = ResumeError(f"{shown(path)} is damaged; {NEW_SWEEP}")
    try:
        found = parse_json(data)
        number, version = found["format"], visible(found["nnopt"][:50])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    if type(number) is int and number > FORMAT:
        raise ResumeError(
            f"{shown(path)} was made by nnopt {version}, and this is nnopt {nnopt.__version__}; "
            "resume the sweep with the newer version"
        )
    if type(number) is not int or head != f'{{"sha256": "{digest}"'.encode():
        raise damaged
    return {**found, "nnopt": version}


def _point(entry: Mapping[str, Any], move: Move) -> Point:
    container = move.config(with_added_keys(with_new_keys(entry["config"])))
    if container["plugins"]:
        from nnopt.config.plugins.load import stored_plugins  # not needed by most sweeps

        container = stored_plugins(container, Path(move.after))
    overrides = tuple(map(new_override, entry["overrides"]))
    point = Point(entry["id"], read_config(container), container, overrides)
    check_point(point)
    return point


def _with_new_keys(sweeper: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the old names of renamed keys in the settings of a sweeper."""
    params = {key: _new_params(sweeper[key]) for key in ("params", "grids") if key in sweeper}
    return {**sweeper, **params}


def _new_params(params: Any) -> Any:
    """Replace the old names in a map of overrides, or in a list of such maps."""
    if isinstance(params, list):
        return list(map(_new_params, params))
    if not isinstance(params, dict):
        return params
    pairs = ((new_override(f"{key}={x}").split("=", 1), x) for key, x in params.items())
    return {key: text if isinstance(value, str) else value for (key, text), value in pairs}


def with_absolute_paths(point: Point) -> Point:
    """Return the point with absolute paths instead of paths relative to the working directory."""
    data, csv = point.config.data, point.config.dataset
    root = absolute_folder(data.root, "data.root")
    cache = None if data.cache is None else absolute_folder(data.cache, "data.cache")
    point = with_values(point, "data", root=root, cache=cache)
    if isinstance(csv, CsvConfig):
        train, test = _csv_path(root, csv.train), csv.test and _csv_path(root, csv.test)
        point = with_values(point, "dataset", train=train, test=test)
    return point


def with_values(point: Point, group: str, **values: Any) -> Point:
    """Return the point with other values of a group. The values are not checked."""
    config = replace(point.config, **{group: replace(getattr(point.config, group), **values)})
    container = {**point.container, group: {**point.container[group], **values}}
    return replace(point, config=config, container=container)


def _csv_path(root: str, name: str) -> str:
    """Return a path by which ``nnopt.data.csv_file`` finds a file from any working directory."""
    name = os.path.expanduser(name)
    if os.path.exists(os.path.join(root, name)) or not os.path.exists(name):
        return name
    return os.path.abspath(name)


def _no_sweep(folder: Path) -> str:
    if not folder.is_dir():
        return f"{shown(folder)} is not a folder; name the folder of a run or sweep"
    files = ("summary.json", "run.log")
    if (folder.parent / MANIFEST).exists() and any((folder / x).exists() for x in files):
        return f"{shown(folder)} is a point; resume its sweep, {shown(folder.parent)}"
    return (
        f"{shown(folder)} has no summary.json and no {MANIFEST}; name the folder of a run or sweep"
    )
