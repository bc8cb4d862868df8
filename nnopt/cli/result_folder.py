"""The folder of a command's results: its checks and its creation."""

from __future__ import annotations

import time
from pathlib import Path

from nnopt.config.compose import Plan
from nnopt.errors import OutputError
from nnopt.io.atomic_files import fresh_folder, link_latest, output_error, shown
from nnopt.io.own_files import CHECKPOINTS, SUMMARY, check_writable
from nnopt.io.paths import given_path
from nnopt.sweeps.manifest import MANIFEST

OUTPUTS = Path("outputs")
"""The folder of results, unless hydra.run.dir or hydra.sweep.dir names another folder."""


def check_directory(plan: Plan, kind: str) -> None:
    """Raise OutputError if the folder of results is not empty, or cannot be made or written.

    The folder is not made, because later checks may fail.
    """
    directory = given_directory(plan)
    if directory is not None:
        check_empty(directory)
    directory = directory or OUTPUTS / kind
    try:
        check_writable(directory)
    except OSError as error:
        raise output_error("make the folder", directory, error) from error


def given_directory(plan: Plan) -> Path | None:
    """Return the folder that hydra.run.dir or hydra.sweep.dir names, or None."""
    key = "hydra.sweep.dir" if plan.is_sweep else "hydra.run.dir"
    return None if plan.directory is None else given_path(plan.directory, key)


def check_empty(directory: Path) -> None:
    """Raise OutputError unless the folder is empty or missing."""
    try:
        is_empty = not any(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error("make the folder", directory, error) from error
    if not is_empty:
        raise OutputError(
            f"the folder {shown(directory)} is not empty, and results are never overwritten; name "
            "another folder"
        )


def make_directory(plan: Plan, kind: str) -> Path:
    """Make the folder of the results, and return its absolute path.

    The folder is the one that the plan names, or else a new one in ``outputs/KIND``. The name of a
    new folder contains the time and the value of the key ``name``. Raises OutputError if the folder
    cannot be made, or is not empty.
    """
    directory = given_directory(plan)
    if directory is None:
        stamp, name = time.strftime("%Y-%m-%d_%H-%M-%S"), plan.points[0].config.name
        directory = fresh_folder(OUTPUTS / kind, f"{stamp}_{name}")
        link_latest(OUTPUTS, directory)
        return directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error("make the folder", directory, error) from error
    check_empty(directory)  # another process may have started to write there
    if OUTPUTS.is_dir():
        link_latest(OUTPUTS, directory)
    return directory.absolute()


def is_single_run(folder: Path) -> bool:
    """Return whether a folder contains a run that is not a point of a sweep."""
    is_run = any((folder / name).exists() for name in (SUMMARY, "config.yaml", *CHECKPOINTS))
    return is_run and not any((x / MANIFEST).exists() for x in (folder, folder.parent))
