"""Finds, verifies and downloads the published datasets, and unpacks archives safely."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from nnopt.data import cifar10, cinic10, idx
from nnopt.data.cache import damaged
from nnopt.data.dataset_files import read, refuse_links, remove, sha256
from nnopt.data.published import PUBLISHED, Download, Published
from nnopt.data.source import Source
from nnopt.errors import DataError, OutputError
from nnopt.io.atomic_files import shown
from nnopt.io.locks import exclusive
from nnopt.io.safe_text import visible

TIMEOUT = 30.0  # seconds without an answer of the server
MAX_BYTES = 3 * 2**30  # size of an unpacked archive
MAX_FILES = 300_000  # number of files in an archive

Report = Callable[[str], None]

LOCATE = {
    "mnist": idx.locate,
    "fashion_mnist": idx.locate,
    "cifar10": cifar10.locate,
    "cinic10": cinic10.locate,
}


def locate_published(name: str, root: Path) -> Source[Published]:
    """Find the files of a published dataset under ``root``. Raises DataError if one is missing."""
    return LOCATE[name](PUBLISHED[name], root)


def presence(published: Published, root: Path) -> tuple[bool, str]:
    """Return whether a dataset is complete, and its folder or the error. Reads no image."""
    try:
        return True, locate_published(published.name, root).location
    except DataError as error:
        return False, str(error).partition(";")[0]


def verify(published: Published, root: Path, cache: Path) -> list[str]:
    """Read all files of a dataset and of its cache entries, and return the problems found.

    The images of CINIC-10 have no published SHA-256. Their number, and the CRC of each chunk of
    each file, are checked instead. Raises DataError for a file that is missing, damaged or part of
    another dataset.
    """
    decoded = locate_published(published.name, root).decode()
    stale = [f"{path} is damaged; delete its folder" for path in damaged(cache, published.name)]
    return [*decoded.notes, *stale]


def fetch(published: Published, root: Path, report: Report) -> None:
    """Download the missing files of a dataset to ``root``.

    Existing files are never overwritten. If two processes fetch a dataset, one waits. Raises
    DataError if no address has the published file, and OutputError if a file cannot be written.
    """
    try:
        refuse_links(root / "downloads", root)
        with exclusive(root / "downloads" / f"{published.name}.lock"):
            if published.downloads[0].file.endswith(".tar.gz"):
                _fetch_archive(published, root, report)
            else:
                _fetch_files(published, root, report)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write below {shown(root)}: {reason[:1].lower()}{reason[1:]}; remove the "
            "obstacle, or choose another folder with --root or data.root"
        ) from error


def _fetch_files(published: Published, root: Path, report: Report) -> None:
    """Download missing IDX files without unpacking them, and verify all IDX files."""
    locations = idx.candidates(published, root)
    location = next((one for one in locations if not one.absent), locations[0])
    for download in published.downloads:
        file = Path(download.file).name.removesuffix(".gz")
        path = location.files[file] or _download(download, root, report)
        digest = sha256(read(path))
        if digest != published.sha256[file]:
            raise DataError(
                f"{shown(path)} is not the published file (SHA-256 {digest}, "
                f"published {published.sha256[file]}); delete it and fetch again"
            )
        report(f"{shown(path)}: verified")


def _fetch_archive(published: Published, root: Path, report: Report) -> None:
    folder, name = root / published.folder, published.name
    is_present, where = presence(published, root)
    if is_present:
        report(f"{shown(Path(where))}: already present; verify it with: nnopt data verify {name}")
        return
    if folder.is_symlink() or (folder.exists() and list(folder.iterdir())):
        raise DataError(f"{shown(folder)} is incomplete ({where}); move it away and fetch again")
    archive = _download(published.downloads[0], root, report)
    report(f"unpacking {shown(archive)}")
    temporary = root / f".{published.folder}.tmp"  # used only under the caller's lock
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        unpack(archive, temporary)
        inner = temporary / folder.name  # some archives have no top folder
        unpacked = inner if inner.is_dir() else temporary
        _check_unpacked(published, unpacked, archive)
        unpacked.rename(folder)
    finally:
        remove(temporary)
    archive.unlink()
    report(f"{shown(folder)}: ready")


def _check_unpacked(published: Published, folder: Path, archive: Path) -> None:
    if not published.sha256:
        for part in published.parts:
            if not (folder / part).is_dir():
                raise DataError(f"{shown(archive)} has no folder {part}")
    for file, known in published.sha256.items():
        if not (folder / file).is_file():
            raise DataError(f"{shown(archive)} has no file {file}")
        if (found := sha256(read(folder / file))) != known:
            raise DataError(
                f"{file} in {shown(archive)} has SHA-256 {found}, published {known}; delete the "
                "archive and fetch again"
            )


def _download(download: Download, root: Path, report: Report) -> Path:
    """Download one file from the first address that has it. Raises DataError if none has."""
    import pooch
    from requests.exceptions import RequestException

    target = root / download.file
    refuse_links(target.parent, root)
    pooch.get_logger().setLevel("WARNING")  # ``report`` prints the same messages
    problems = []
    for address in download.addresses:
        report(f"fetching {address}")
        try:
            pooch.retrieve(
                url=address,
                known_hash=download.checksum,
                fname=target.name,
                path=target.parent,
                downloader=pooch.HTTPDownloader(
                    timeout=TIMEOUT, progressbar=_Progress(target.name, report)
                ),
            )
            return target
        except (RequestException, ValueError) as error:  # ValueError: a wrong checksum
            problems.append(f"{address}: {' '.join(str(_cause(error)).split())}")
    raise DataError(
        f"cannot fetch {target.name} to {shown(target.parent)} (checksum {download.checksum}): "
        + "; ".join(problems)
    )


def _cause(error: Exception) -> Exception:
    """Return the original exception inside the nested exceptions of the library requests."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    cause = getattr(error, "reason", None)
    return cause if isinstance(cause, Exception) else error


class _Progress:
    """A progress bar for pooch. It reports a line for each 10 % of a file above 10 MB."""

    def __init__(self, name: str, report: Report) -> None:
        self.name, self.report = name, report
        self.total = 0  # set by pooch
        self.done = self.reported_tenths = 0

    def update(self, size: int) -> None:
        self.done += size
        tenth = min(10 * self.done // self.total, 10) if self.total > 10**7 else 0
        if tenth > self.reported_tenths:
            self.reported_tenths = tenth
            self.report(f"{self.name}: {10 * tenth} % of {self.total / 1e6:.0f} MB")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into ``folder``. Raises DataError.

    Python's "data" filter refuses paths outside of ``folder``. Links and devices are refused, and
    the number and total size of the files are limited.
    """
    import tarfile  # imported here because nnopt run must start fast

    size = count = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                size, count = size + member.size, count + 1
                if size > MAX_BYTES or count > MAX_FILES:
                    raise DataError(
                        f"{shown(archive)} unpacks to more than {MAX_BYTES:,} bytes or "
                        f"{MAX_FILES:,} files; it is not the published archive, delete it"
                    )
                if not (member.isreg() or member.isdir()):
                    raise DataError(
                        f"{shown(archive)} is damaged or hostile: {visible(member.name)!r} is "
                        "neither a file nor a folder; delete it and fetch again"
                    )
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{shown(archive)} is damaged or hostile: {' '.join(str(error).split())}; delete it "
            "and fetch again"
        ) from error
