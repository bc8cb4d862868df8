"""Reads CINIC-10 (Darlow et al. 2018, arXiv:1810.03505): a tree part/class/*.png of 32x32 images.

Gray and palette images become RGB, and transparency is dropped. Images with more than 8 bits per
channel and animated images are refused. The CRC of each chunk of a PNG is checked.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset_files import read, unreadable
from nnopt.data.locations import Location, complete_locations, similar_folders
from nnopt.data.published import CINIC10, Published
from nnopt.data.source import Decoded, Source
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import visible

LOG = logging.getLogger("nnopt")

HIDDEN = {"Thumbs.db", "desktop.ini", "Icon\r"}  # skipped, as are all names that begin with a dot
SIDE = 32
CRITICAL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PALETTE = 3  # colour type of a PNG with a palette
MAX_FILE_BYTES = 2**20  # an image has 3 KB of pixels, and metadata
STATS_PER_CLASS = 100  # maximum number of files whose sizes and times are in the fingerprint
IMAGES_PER_TASK = 500
MIN_POOL_IMAGES = 20_000  # with fewer images, two processes take longer than one
PROGRESS_SECONDS = 5.0  # between two lines of progress


def locate(published: Published, root: Path) -> Source[Published]:
    """Find the tree under ``root``. Raises DataError if a part is missing."""
    folder = complete_locations(published, root, candidates(published, root))[0].folder
    files = {"tree": folder}
    return Source(published.name, str(folder), files, published, _decode, _fingerprint)


def candidates(published: Published, root: Path) -> list[Location]:
    """Return the folders that can contain the tree, and the paths of the parts in them.

    A part such as "train" directly in ``root`` must contain the folder of the first class.
    """
    folders = [root / published.folder, *similar_folders(root, published.folder)]
    checks = {**dict.fromkeys(folders, "."), root: published.classes[0]}
    return [
        Location(
            folder,
            {x: folder / x if (folder / x / inner).is_dir() else None for x in published.parts},
        )
        for folder, inner in checks.items()
    ]


def _fingerprint(folders: Iterable[Path]) -> str:
    """Return a hash of all names, and of sizes and times of some files of each class folder.

    Reading 270,000 names takes 0.1 s; reading the sizes and times of all files takes 2 s. So a
    change of an image in place may not be detected. ``nnopt data verify`` reads all images.
    """
    (folder,) = folders
    digest = hashlib.sha256()
    for part in CINIC10.parts:
        for name in (part, *(f"{part}/{one}" for one in CINIC10.classes)):
            path = folder / name
            try:
                files = sorted(os.listdir(path))
                digest.update(f"{name} {os.stat(path).st_mtime_ns} ".encode())
                digest.update(os.fsencode("\0".join(files)))
                for file in files[:: -(-len(files) // STATS_PER_CLASS) or 1]:
                    status = os.stat(path / file)
                    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
                    digest.update(os.fsencode(file) + times.encode())
            except FileNotFoundError:
                digest.update(f"{name} is missing".encode())  # decoding reports it
            except OSError as error:
                raise unreadable(path, error) from error
    return digest.hexdigest()


def _decode(published: Published, files: Mapping[str, Path]) -> Decoded:
    folder = files["tree"]
    tree, hidden = list_tree(folder)
    tree_hash = hashlib.sha256()
    parts: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
    decoded = _decode_all([paths for classes in tree.values() for paths in classes])
    for part, classes in tree.items():
        labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in classes])
        images = np.empty((len(labels), *published.shape), dtype=np.uint8)
        done = 0
        while done < len(images):
            paths, (pixels, digests) = next(decoded)
            images[done : done + len(paths)] = pixels
            done += len(paths)
            for path, digest in zip(paths, digests, strict=True):
                tree_hash.update(os.fsencode(path.relative_to(folder)) + b"\0" + digest)
        parts[part] = images, labels
    name = published.folder
    notes = [
        f"{name}/{part} has {len(images):,} images, published {published.parts[part]:,}"
        for part, (images, _) in parts.items()
        if len(images) != published.parts[part]
    ]
    if hidden:
        notes.append(f"{name}: {hidden:,} hidden file(s), such as .DS_Store, are skipped")
    sources = {published.folder: tree_hash.hexdigest()}
    return Decoded(published.classes, parts, sources, notes=tuple(notes))


def list_tree(folder: Path) -> tuple[dict[str, list[list[Path]]], int]:
    """Return part -> sorted files of each class, and the number of hidden files in the tree."""
    tree: dict[str, list[list[Path]]] = {}
    hidden = 0
    for part in CINIC10.parts:
        names, skipped = _entries(folder / part)
        hidden += skipped
        if surplus := [name for name in names if name not in CINIC10.classes]:
            raise DataError(
                f"{shown(folder / part / surplus[0])} is not a class of CINIC-10 ({len(surplus)} "
                f"such entries); allowed are {', '.join(CINIC10.classes)}; move the others away"
            )
        if absent := [name for name in CINIC10.classes if name not in names]:
            raise DataError(
                f"{shown(folder / part)} lacks the class folder(s) {', '.join(absent)}; delete "
                f"{shown(folder)} and fetch it again"
            )
        tree[part] = []
        for name in CINIC10.classes:
            files, skipped = _entries(folder / part / name)
            hidden += skipped
            paths = [folder / part / name / file for file in files]
            if others := [path for path in paths if not path.name.endswith(".png")]:
                raise DataError(f"{shown(others[0])} is no .png; move the file away")
            tree[part].append(paths)
        if not any(tree[part]):
            raise DataError(f"{shown(folder / part)} has no images")
    return tree, hidden


def _entries(folder: Path) -> tuple[list[str], int]:
    """Return the sorted names of the visible entries, and the number of hidden entries."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    kept = sorted(name for name in names if not name.startswith(".") and name not in HIDDEN)
    return kept, len(names) - len(kept)


Images = tuple[NDArray[np.uint8], list[bytes]]  # pixels (n, 3, 32, 32), SHA-256 of each file


def _decode_all(folders: list[list[Path]]) -> Iterator[tuple[list[Path], Images]]:
    """Yield the files and their images in order, in groups of at most ``IMAGES_PER_TASK``.

    A large tree is decoded by two processes, not threads: Pillow holds the global interpreter lock.
    """
    tasks = [
        paths[first : first + IMAGES_PER_TASK]
        for paths in folders
        for first in range(0, len(paths), IMAGES_PER_TASK)
    ]
    done, total = 0, sum(map(len, folders))
    start = last_report = time.monotonic()
    for paths, images in zip(tasks, _run(tasks, total >= MIN_POOL_IMAGES), strict=True):
        yield paths, images
        done += len(paths)
        if time.monotonic() - last_report > PROGRESS_SECONDS:
            last_report = time.monotonic()
            left = (last_report - start) * (total - done) / done
            LOG.info(f"decoding CINIC-10: {done:,} of {total:,} images, {left:.0f} s left")


def _run(tasks: list[list[Path]], parallel: bool) -> Iterator[Images]:
    finished = 0
    if parallel:
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
        from multiprocessing import get_context

        try:
            # "spawn", because forking a process that runs threads (BLAS) is not safe.
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                for images in pool.map(decode_images, tasks):
                    yield images
                    finished += 1
        except BrokenProcessPool:  # the main script lacks 'if __name__ == "__main__"'
            LOG.info("decoding CINIC-10 with one process, because no others could be started")
    yield from map(decode_images, tasks[finished:])


def decode_images(paths: list[Path]) -> Images:
    """Read and decode PNG files. Raises DataError for the first invalid file."""
    pixels = np.empty((len(paths), *CINIC10.shape), dtype=np.uint8)
    digests = []
    for image, path in zip(pixels, paths, strict=True):
        content = read(path, MAX_FILE_BYTES)
        digests.append(hashlib.sha256(content).digest())
        image[:] = decode_png(content, path).transpose(2, 0, 1)
    return pixels, digests


def decode_png(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the pixels (32, 32, 3) of a PNG. Raises DataError."""
    from PIL import Image

    if problem := png_problem(content):
        size, folder = f"{len(content):,} bytes", CINIC10.folder
        raise DataError(f"{shown(path)} ({size}) {problem}; delete {folder} and fetch it again")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode == "P" and np.asarray(image).max() >= len(image.getpalette() or ()) // 3:
                raise ValueError("the index of a pixel is outside of the palette")
            if "transparency" in image.info:  # by way of RGBA: otherwise, Pillow would warn
                return np.asarray(image.convert("RGBA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds of errors for hostile files
        reason = " ".join(str(error).partition(" <")[0].split()) or type(error).__name__
        raise DataError(f"{shown(path)} is a damaged PNG: {visible(reason)}") from error


def png_problem(content: bytes) -> str | None:
    """Return the first fault in the chunks (length, type, data and CRC) of a PNG, or None."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return f"is not a PNG: it begins with {content[:8].hex(' ') or 'nothing'}"
    position, kind, colour_type, has_palette = 8, b"", 0, False
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content.ljust(position + 8, b"\0"), position)
        end = position + 12 + length
        if end > len(content):
            return "is a truncated PNG"
        (crc,) = struct.unpack_from(">I", content, end - 4)
        if crc != zlib.crc32(content[position + 4 : end - 4]):
            return f"is a damaged PNG: wrong CRC at byte {end - 4:,}"
        if kind == b"IHDR" and position > 8:
            return f"is a damaged PNG: a second header at byte {position:,}"
        if kind == b"acTL":
            return "is an animated PNG, expected one image"
        if not kind[0] & 0x20 and kind not in CRITICAL_CHUNKS:
            return f"has a chunk '{visible(kind.decode('latin-1'))}', which is not part of PNG"
        if kind == b"PLTE":
            has_palette = True
        if kind == b"IDAT" and colour_type == PALETTE and not has_palette:
            return "is a damaged PNG: a palette image without a palette"
        if position == 8:
            if kind != b"IHDR" or length != 13:
                return "is a damaged PNG: it does not begin with a header"
            width, height, depth, colour_type = struct.unpack_from(">IIBB", content, position + 8)
            if (width, height) != (SIDE, SIDE):
                return f"is {width}x{height} pixels, expected {SIDE}x{SIDE}"
            if depth > 8:
                return f"has {depth} bits per channel, expected at most 8"
        position = end
    return None if position == len(content) else "is a PNG with bytes after its end"
