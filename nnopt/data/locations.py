"""Finds the folder of a published dataset.

The candidates are the folder that the official archive creates, folders with similar names, and
data.root itself. The first complete one is used.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnopt.data.published import Download, Published
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_LISTED_FOLDERS = 3


@dataclass(frozen=True)
class Location:
    """A folder, and the path of each file of a dataset in it; None if the file is absent."""

    folder: Path
    files: Mapping[str, Path | None]

    @property
    def absent(self) -> list[str]:
        """Names of the absent files."""
        return [name for name, path in self.files.items() if path is None]

    @property
    def paths(self) -> dict[str, Path]:
        """Paths of the files that exist."""
        return {name: path for name, path in self.files.items() if path is not None}


def location_in(folder: Path, spellings: Mapping[str, Sequence[str]]) -> Location:
    """Search ``folder`` for files. spellings: file -> the names that it can have."""
    return Location(folder, {file: _present(folder, names) for file, names in spellings.items()})


def _present(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first existing path with one of these names; regular files take precedence."""
    paths = [folder / name for name in names if os.path.lexists(folder / name)]
    return next((path for path in paths if path.is_file()), paths[0] if paths else None)


def complete_locations(
    published: Published, root: Path, candidates: list[Location]
) -> list[Location]:
    """Return the candidates that have all files, in order. Raises DataError if there are none."""
    if complete := [location for location in candidates if not location.absent]:
        return complete
    raise _missing(published, root, candidates)


def similar_folders(root: Path, *names: str) -> list[Path]:
    """Return the folders in ``root`` with these names, ignoring case, '-', '_' and spaces."""
    try:
        folders = sorted(entry for entry in os.listdir(root) if (root / entry).is_dir())
    except OSError:
        return []
    simplified = [_simplified(name) for name in names]
    return [root / folder for folder in folders if _simplified(folder) in simplified]


def _simplified(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


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
    if archives := _archives(published, root):
        searched += f"; unpack {shown(Path(archives[0]))} if it contains the dataset"
    argument = shlex.quote(str(root)) if str(root).isprintable() else shown(root)
    return DataError(
        f"{shown(Path(path))}{more} not found in {shown(root)} (searched: {searched}); its "
        f"official address is {_download_of(published, file).addresses[0]}; fetch it with: nnopt "
        f"data fetch {published.name} --root {argument} (or run with data.download=true)"
    )


def _archives(published: Published, root: Path) -> list[str]:
    """Return the archives in ``root`` with the name of the dataset."""
    try:
        entries = sorted(os.listdir(root))
    except OSError:
        return []
    name = _simplified(published.name)
    return [x for x in entries if x.endswith(ARCHIVES) and _simplified(x).startswith(name)]


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


def _download_of(published: Published, file: str) -> Download:
    """Return the download that contains ``file``: a .gz of this file, or the archive of all."""
    packed = f"{published.relative(file)}.gz"
    return next((one for one in published.downloads if one.file == packed), published.downloads[0])
