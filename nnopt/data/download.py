"""Downloads of the published datasets: checked by checksums, unpacked without trusting them."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnopt.data.dataset_files import read, refuse_links, remove, sha256
from nnopt.data.published import Download, Published
from nnopt.data.published_files import locate_published, published_places
from nnopt.errors import DataError, OutputError
from nnopt.io.atomic_files import shown
from nnopt.io.locks import exclusive
from nnopt.io.safe_text import visible

TIMEOUT = 30.0  # seconds without an answer
MOST_BYTES = 3 * 2**30  # an archive may unpack to this much, and to so many files
MOST_FILES = 300_000

Tell = Callable[[str], None]


def fetch(published: Published, root: Path, tell: Tell) -> None:
    """Bring the files of a dataset that are not there yet under ``root``.

    Files that are there are never overwritten. Two processes may fetch at once: one works, the
    other waits. Raises DataError if an address does not answer or sends something else, OutputError
    if the files cannot be written.
    """
    try:
        refuse_links(root / "downloads", root)
        with exclusive(root / "downloads" / f"{published.name}.lock"):
            if published.is_archive:
                _fetch_archive(published, root, tell)
            else:
                _fetch_files(published, root, tell)
    except OSError as error:
        raise OutputError(
            f"cannot write below {shown(root)}: {(error.strerror or str(error)).lower()}; make "
            "room, or choose another folder with --root or data.root"
        ) from error


def _fetch_files(published: Published, root: Path, tell: Tell) -> None:
    """Fetch each file by itself; it stays packed."""
    places = published_places(published.name, root)
    place = next((place for place in places if not place.absent), places[0])
    for download in published.downloads:
        file = Path(download.file).name.removesuffix(".gz")
        there = place.files[file] or _download(download, root, tell)
        digest = sha256(read(there))
        if digest != published.sha256[file]:
            raise DataError(
                f"{shown(there)} is not the published file (SHA-256 {digest}, "
                f"published {published.sha256[file]}); delete it and fetch again"
            )
        tell(f"{shown(there)}: verified")


def _fetch_archive(published: Published, root: Path, tell: Tell) -> None:
    folder = root / published.folder
    try:
        there = locate_published(published.name, root).place
    except DataError as error:
        if folder.is_symlink() or (folder.exists() and list(folder.iterdir())):
            reason = str(error).partition(";")[0]
            raise DataError(
                f"{shown(folder)} is incomplete ({reason}); move it away and fetch again"
            ) from error
    else:
        tell(
            f"{shown(Path(there))}: already there; check it with: nnopt data verify "
            f"{published.name}"
        )
        return
    archive = _download(published.downloads[0], root, tell)
    tell(f"unpacking {shown(archive)}")
    temporary = root / f".{published.folder}.tmp"  # ours alone: the caller holds the lock
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        unpack(archive, temporary)
        # Some archives begin with the dataset's folder, some with what it holds.
        inner = temporary / folder.name
        found = inner if inner.is_dir() else temporary
        _check_unpacked(published, found, archive)
        found.rename(folder)
    finally:
        remove(temporary)
    archive.unlink()
    tell(f"{shown(folder)}: ready")


def _check_unpacked(published: Published, folder: Path, archive: Path) -> None:
    for part in published.parts if not published.sha256 else ():
        if not (folder / part).is_dir():
            raise DataError(f"{shown(archive)} holds no folder {part}; expected one")
    for file, known in published.sha256.items():
        if not (folder / file).is_file():
            raise DataError(f"{shown(archive)} holds no file {file}; expected one")
        if (found := sha256(read(folder / file))) != known:
            raise DataError(
                f"{file} in {shown(archive)} has SHA-256 {found}, published {known}; delete the "
                "archive and fetch again"
            )


def _download(download: Download, root: Path, tell: Tell) -> Path:
    """Fetch one file from the first address that has it. Raises DataError if none has."""
    import pooch
    from requests.exceptions import RequestException

    target = root / download.file
    refuse_links(target.parent, root)
    pooch.get_logger().setLevel("WARNING")  # it would say what ``tell`` says
    problems = []
    for address in download.addresses:
        tell(f"fetching {address}")
        try:
            pooch.retrieve(
                url=address,
                known_hash=download.checksum,
                fname=target.name,
                path=target.parent,
                downloader=pooch.HTTPDownloader(
                    timeout=TIMEOUT, progressbar=_Progress(target.name, tell)
                ),
            )
            return target
        except RequestException as error:
            problems.append(f"{address}: {_reason(error)}")
        except ValueError as error:  # pooch's way to say that the checksum is wrong
            problems.append(f"{address}: {' '.join(str(error).split())}")
    raise DataError(
        f"cannot fetch {target.name} to {shown(target.parent)} (checksum {download.checksum}): "
        + "; ".join(problems)
    )


def _reason(error: Exception) -> str:
    """The innermost cause in one line: requests wraps a refusal in three layers of its own."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    cause = getattr(error, "reason", None)
    return " ".join(str(cause if isinstance(cause, Exception) else error).split())


class _Progress:
    """What pooch expects of a progress bar, told as one line per tenth."""

    def __init__(self, name: str, tell: Tell) -> None:
        self.name, self.tell = name, tell
        self.total = 0  # set by pooch
        self.done = self.told = 0

    def update(self, size: int) -> None:
        self.done += size
        tenth = min(10 * self.done // self.total, 10) if self.total else 0
        if tenth > self.told and self.total > 10**7:
            self.told = tenth
            self.tell(f"{self.name}: {10 * tenth} % of {self.total / 1e6:.0f} MB")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into ``folder``, and nothing outside of it. Raises DataError.

    Python's "data" filter refuses names that lead outwards. Only files and folders are unpacked:
    no published archive holds a link or a device. Their number and size are limited before each is
    written.
    """
    size = count = 0
    with _explained(archive), tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            size, count = size + member.size, count + 1
            if size > MOST_BYTES or count > MOST_FILES:
                raise DataError(
                    f"{shown(archive)} unpacks to more than {MOST_BYTES:,} bytes or "
                    f"{MOST_FILES:,} files; it is not the published archive, delete it"
                )
            if not (member.isreg() or member.isdir()):
                raise DataError(
                    f"{shown(archive)} is damaged or hostile: {visible(member.name)!r} is neither "
                    "a file nor a folder; delete it and fetch again"
                )
            tar.extract(member, folder, filter="data")


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{shown(archive)} is damaged or hostile: {' '.join(str(error).split())}; delete it "
            "and fetch again"
        ) from error
