"""Find the folder that holds a published dataset.

Each dataset has a list of places: the folder that its archive makes, folders of similar names, and
data.root itself. The first complete place is used.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnopt.data.published import Download, Published
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
LISTED = 3  # files or folders that a message lists


@dataclass(frozen=True)
class Place:
    """A folder, and where the files of a dataset are in it: file -> path, None if absent."""

    folder: Path
    files: Mapping[str, Path | None]

    @property
    def absent(self) -> list[str]:
        """Return the files that this folder lacks."""
        return [name for name, path in self.files.items() if path is None]

    @property
    def paths(self) -> dict[str, Path]:
        """Return the files that are there, and their paths."""
        return {name: path for name, path in self.files.items() if path is not None}


def place_in(folder: Path, spellings: Mapping[str, Sequence[str]]) -> Place:
    """Return where ``folder`` holds some files. spellings: file -> the names that it may have."""
    return Place(folder, {file: _present(folder, names) for file, names in spellings.items()})


def _present(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these names that is in ``folder``, regular files before anything else."""
    there = [folder / name for name in names if os.path.lexists(folder / name)]
    return next((path for path in there if path.is_file()), there[0] if there else None)


def complete_places(published: Published, root: Path, places: Iterable[Place]) -> list[Place]:
    """Return the places that have all files, in order. Raises DataError if none has."""
    places = list(places)
    if found := [place for place in places if not place.absent]:
        return found
    raise _missing(published, root, places)


def similar_folders(root: Path, *names: str) -> list[Path]:
    """Return the folders in ``root`` that have these names but for case, '-', '_' and spaces."""
    try:
        found = sorted(entry for entry in os.listdir(root) if (root / entry).is_dir())
    except OSError:
        return []
    wanted = [_simplified(name) for name in names]
    return [root / entry for entry in found if _simplified(entry) in wanted]


def _simplified(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


def _missing(published: Published, root: Path, places: list[Place]) -> DataError:
    """Return the error for a dataset that is not complete anywhere, with the nearest place."""
    if problem := _root_problem(root):
        return DataError(f"no {published.name} in {shown(root)}: {problem}")
    nearest = min(places, key=lambda place: len(place.absent))  # the first one of equals
    file, *others = nearest.absent
    path = os.path.normpath(os.path.join(os.path.relpath(nearest.folder, root), file))
    more = f" and {len(others)} more" if others and nearest.paths else ""
    folders = dict.fromkeys(os.path.relpath(place.folder, root) for place in places)
    also = [shown(Path(name)) for name in folders if name != "." and (root / name).is_dir()]
    looked = ", ".join(["the folder itself", *also[:LISTED]])
    if archives := _archives(published, root):
        looked += f"; unpack {shown(Path(archives[0]))} if it is the right one"
    argument = shlex.quote(str(root)) if str(root).isprintable() else shown(root)
    return DataError(
        f"{shown(Path(path))}{more} not found in {shown(root)} (looked in {looked}); its official "
        f"address is {_download_of(published, file).addresses[0]}; fetch it with: nnopt data fetch "
        f"{published.name} --root {argument} (or run with data.download=true)"
    )


def _archives(published: Published, root: Path) -> list[str]:
    """Return the archives in ``root`` whose names begin with that of the dataset."""
    try:
        entries = sorted(os.listdir(root))
    except OSError:
        return []
    name = _simplified(published.name)
    return [x for x in entries if x.endswith(ARCHIVES) and _simplified(x).startswith(name)]


def _root_problem(root: Path) -> str | None:
    """Return why ``root`` cannot hold any data; None if it can, or does not exist."""
    try:
        os.listdir(root)
    except FileNotFoundError:
        return "it is a dangling link" if root.is_symlink() else None
    except NotADirectoryError:
        return "it is no folder; name the folder of the datasets with data.root or --root"
    except OSError as error:
        return f"{(error.strerror or str(error)).lower()}; name another one with data.root"
    return None


def _download_of(published: Published, file: str) -> Download:
    """Return the download that brings ``file``: its own .gz, or the archive of all files."""
    wanted = f"{published.relative(file)}.gz"
    return next((one for one in published.downloads if one.file == wanted), published.downloads[0])
