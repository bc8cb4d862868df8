"""Finds a published dataset in its official folder, a folder of similar name, or data.root."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnopt.data.published import Published
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_LISTED_FOLDERS = 3


@dataclass(frozen=True)
class Location:
    """A folder that may contain a dataset."""

    folder: Path
    files: Mapping[str, Path | None]  # name -> path, including ``folder``; None if absent

    @property
    def absent(self) -> list[str]:
        """Names of the absent files."""
        return [name for name, path in self.files.items() if path is None]

    @property
    def paths(self) -> dict[str, Path]:
        """Paths of the files that exist."""
        return {name: path for name, path in self.files.items() if path is not None}


def location_in(folder: Path, spellings: Mapping[str, Sequence[str]]) -> Location:
    """Search ``folder`` for files. spellings: file -> the names that the file can have.

    If several names of a file exist, the first regular file is used, or else the first path.
    """
    files: dict[str, Path | None] = {}
    for file, names in spellings.items():
        paths = [folder / name for name in names if os.path.lexists(folder / name)]
        files[file] = next((path for path in paths if path.is_file()), next(iter(paths), None))
    return Location(folder, files)


def complete_locations(
    published: Published, root: Path, candidates: list[Location]
) -> list[Location]:
    """Return the candidates that have all files. Raises DataError if there are none."""
    if complete := [location for location in candidates if not location.absent]:
        return complete
    raise _missing(published, root, candidates)


def similar_folders(root: Path, *names: str) -> list[Path]:
    """Return the folders in ``root`` with these names, ignoring case, '-', '_' and spaces."""
    simplified = [_simplified(name) for name in names]
    entries = [root / entry for entry in _entries(root) if _simplified(entry) in simplified]
    return [entry for entry in entries if entry.is_dir()]


def _simplified(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _entries(root: Path) -> list[str]:
    """Return the sorted names in a folder; an empty list if it cannot be read."""
    try:
        return sorted(os.listdir(root))
    except OSError:
        return []


def _missing(published: Published, root: Path, candidates: list[Location]) -> DataError:
    """Return the error for a dataset that is incomplete in all folders."""
    if problem := _root_problem(root):
        return DataError(f"no {published.name} in {shown(root)}: {problem}")
    nearest = min(candidates, key=lambda location: len(location.absent))
    file, *others = nearest.absent
    path = os.path.normpath(os.path.join(os.path.relpath(nearest.folder, root), file))
    more = f" and {len(others)} more" if others and nearest.paths else ""
    folders = dict.fromkeys(os.path.relpath(location.folder, root) for location in candidates)
    also = [shown(Path(name)) for name in folders if name != "." and (root / name).is_dir()]
    searched = ", ".join(["the folder itself", *also[:MAX_LISTED_FOLDERS]])
    name = _simplified(published.name)
    archives = (x for x in _entries(root) if x.endswith(ARCHIVES))
    if archive := next((x for x in archives if _simplified(x).startswith(name)), None):
        searched += f"; unpack {shown(Path(archive))} if it contains the dataset"
    argument = shlex.quote(str(root)) if str(root).isprintable() else shown(root)
    downloads = {download.file: download for download in published.downloads}
    download = downloads.get(f"{published.relative(file)}.gz", published.downloads[0])
    return DataError(
        f"{shown(Path(path))}{more} not found in {shown(root)} (searched: {searched}); "
        f"official address: {download.addresses[0]}; fetch the dataset with: nnopt data fetch "
        f"{published.name} --root {argument} (or run with data.download=true)"
    )


def _root_problem(root: Path) -> str | None:
    """Return why ``root`` is unusable; None if it is usable or does not exist."""
    try:
        os.listdir(root)
    except FileNotFoundError:
        return "it is a dangling link" if root.is_symlink() else None
    except NotADirectoryError:
        return "it is not a folder; set the folder of the datasets with data.root or --root"
    except OSError as error:
        return f"{(error.strerror or str(error)).lower()}; set another folder with data.root"
    return None
