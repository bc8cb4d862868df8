"""CINIC-10 (Darlow et al. 2018, arXiv:1810.03505): a tree part/class/*.png of 32x32 images.

Gray and palette images become RGB and transparency is dropped (Pillow's ``convert("RGB")``). Images
of up to 8 bits a channel are read, interlaced or not; animated ones are refused. Every chunk of a
PNG carries a CRC, and all are checked, so no truncated file and no flipped bit goes unnoticed.
Hidden files are skipped and counted.
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
from nnopt.data.locations import Place, complete_places, similar_folders
from nnopt.data.published import CINIC10, Published
from nnopt.data.source import Decoded, Source, channel_statistics
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown
from nnopt.io.safe_text import visible

LOG = logging.getLogger("nnopt")

HIDDEN = {"Thumbs.db", "desktop.ini", "Icon\r"}  # and everything that begins with a dot
SIDE = 32
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PALETTE = 3  # the colour type of a PNG whose pixels are places in a palette
LARGEST = 2**20  # bytes of a file: 3 KB of pixels, and whatever a PNG may say of itself
STATS_PER_CLASS = 100  # files of a class folder whose times and sizes the fingerprint looks at
IMAGES_PER_TASK = 500
POOL_FROM = 20_000  # images; starting two processes costs more than it saves below
TELL_EVERY = 5.0  # seconds between two lines of progress

Folders = dict[str, dict[str, list[str]]]
"""part -> class -> names of its images, sorted."""


def locate(root: Path) -> Source[Published]:
    """Find the tree under ``root``. Raises DataError if a part is missing."""
    folder = complete_places(CINIC10, root, places(root))[0].folder
    return Source(
        name=CINIC10.name,
        place=str(folder),
        files={"tree": folder},
        settings=CINIC10,
        decoder=_decode,
        look=_fingerprint,
    )


def places(root: Path) -> list[Place]:
    """Return the folders that may hold the tree, and which parts they hold.

    A part in ``root`` itself has to have a class folder, since its name says little.
    """
    folders = dict.fromkeys([root / CINIC10.folder, *similar_folders(root, CINIC10.folder)])
    named = [
        Place(folder, {x: folder / x if (folder / x).is_dir() else None for x in CINIC10.parts})
        for folder in folders
    ]
    some_class = CINIC10.classes[0]
    parts = {x: root / x if (root / x / some_class).is_dir() else None for x in CINIC10.parts}
    return [*named, Place(root, parts)]


def _fingerprint(folders: Iterable[Path]) -> str:
    """Return a hash of all names, and of sizes and times of some files of each class folder.

    Looking at all 270,000 files takes 2 s, at their names 0.1 s. So a file added, removed or
    renamed is noticed, and so is a program that rewrites all images; a single image changed in
    place among more than ``STATS_PER_CLASS`` may not be: ``nnopt data verify`` reads them all.
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
                digest.update(f"{name} is missing".encode())  # decoding says so better
            except OSError as error:
                raise unreadable(path, error) from error
    return digest.hexdigest()


def _decode(published: Published, files: Mapping[str, Path]) -> Decoded:
    folder = files["tree"]
    tree, hidden = list_tree(folder)
    paths = {
        part: [folder / part / name / file for name in published.classes for file in classes[name]]
        for part, classes in tree.items()
    }
    tree_hash = hashlib.sha256()
    parts: dict[str, tuple[np.ndarray, NDArray[np.int64]]] = {}
    tasks = _tasks([path for part in paths.values() for path in part])
    for part, members in paths.items():
        images = np.empty((len(members), *published.shape), dtype=np.uint8)
        done = 0
        while done < len(members):
            pixels, digests = next(tasks)
            images[done : done + len(pixels)] = pixels
            done += len(pixels)
            for path, digest in zip(members[done - len(pixels) : done], digests, strict=True):
                tree_hash.update(os.fsencode(path.relative_to(folder)) + b"\0" + digest)
        counts = [len(tree[part][name]) for name in published.classes]
        parts[part] = images, np.repeat(np.arange(len(counts)), counts)
    mean, std = channel_statistics(parts["train"][0])
    notes = [
        f"{published.folder}/{part} holds {len(images):,} images, "
        f"published {published.parts[part]:,}"
        for part, (images, _) in parts.items()
        if len(images) != published.parts[part]
    ]
    if hidden:
        notes.append(
            f"{published.folder}: {hidden:,} hidden file(s), .DS_Store and the like, skipped"
        )
    sources = {published.folder: tree_hash.hexdigest()}
    return Decoded(published.classes, parts, sources, mean, std, tuple(notes))


def list_tree(folder: Path) -> tuple[Folders, int]:
    """Return the images of each part and class, and the number of hidden files.

    Raises DataError for a class folder too few or too many, and for what is no PNG by its name.
    """
    tree: Folders = {}
    hidden = 0
    for part in CINIC10.parts:
        names, skipped = _entries(folder / part)
        hidden += skipped
        if surplus := [name for name in names if name not in CINIC10.classes]:
            raise DataError(
                f"{shown(folder / part / surplus[0])} is no class of CINIC-10 ({len(surplus)} such "
                f"entries); allowed are {', '.join(CINIC10.classes)}; move it away"
            )
        if absent := [name for name in CINIC10.classes if name not in names]:
            raise DataError(
                f"{shown(folder / part)} lacks the class folder(s) {', '.join(absent)}; delete "
                f"{shown(folder)} and fetch it again"
            )
        tree[part] = {}
        for name in CINIC10.classes:
            tree[part][name], skipped = _entries(folder / part / name)
            hidden += skipped
            for file in tree[part][name]:
                if not file.endswith(".png"):
                    raise DataError(
                        f"{shown(folder / part / name / file)} is no .png; move it away"
                    )
        if not any(tree[part].values()):
            raise DataError(f"{shown(folder / part)} holds no image; expected some")
    return tree, hidden


def _entries(folder: Path) -> tuple[list[str], int]:
    """Return the names in a folder, sorted, without hidden ones; and the number of those."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    kept = sorted(name for name in names if not name.startswith(".") and name not in HIDDEN)
    return kept, len(names) - len(kept)


Images = tuple[NDArray[np.uint8], list[bytes]]
"""Pixels (n, 3, 32, 32) and the SHA-256 of each file."""


def _tasks(paths: list[Path]) -> Iterator[Images]:
    """Yield the images in order, at most ``IMAGES_PER_TASK`` of one class folder at a time.

    Large trees are decoded by two processes: Pillow holds Python's lock while it decodes.
    """
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    tasks = [
        files[start : start + IMAGES_PER_TASK]
        for files in folders.values()
        for start in range(0, len(files), IMAGES_PER_TASK)
    ]
    done = 0
    began = told = time.monotonic()
    for images in _run(tasks, parallel=len(paths) >= POOL_FROM):
        yield images
        done += len(images[0])
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            left = (told - began) * (len(paths) - done) / done
            LOG.info(
                f"decoding CINIC-10, once: {done:,} of {len(paths):,} images, {left:.0f} s left"
            )


def _run(tasks: list[list[Path]], parallel: bool) -> Iterator[Images]:
    finished = 0
    if parallel:
        from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
        from multiprocessing import get_context

        try:
            # "spawn" starts afresh: forking a process that runs threads (BLAS) is not safe.
            with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                for images in pool.map(decode_images, tasks):
                    yield images
                    finished += 1
        except BrokenProcessPool:  # a script without the "if __name__" that spawning needs
            LOG.info("decoding CINIC-10 with one process, since no others could be started")
    yield from map(decode_images, tasks[finished:])


def decode_images(paths: list[Path]) -> Images:
    """Read and decode PNG files. Raises DataError naming the first bad one."""
    pixels = np.empty((len(paths), *CINIC10.shape), dtype=np.uint8)
    digests = []
    for image, path in zip(pixels, paths, strict=True):
        content = read(path, LARGEST)
        digests.append(hashlib.sha256(content).digest())
        image[:] = decode_png(content, path).transpose(2, 0, 1)
    return pixels, digests


def decode_png(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Return the pixels (32, 32, 3) of a PNG. Raises DataError."""
    from PIL import Image

    if problem := png_problem(content):
        raise DataError(
            f"{shown(path)} ({len(content):,} bytes) {problem}; delete {CINIC10.folder} and fetch "
            "it again"
        )
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode == "P" and np.asarray(image).max() >= len(image.getpalette() or ()) // 3:
                raise ValueError("a pixel outside of its palette")
            if "transparency" in image.info:  # Pillow wants this detour for palettes
                return np.asarray(image.convert("RGBA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many kinds for what a hostile file holds
        reason = " ".join(str(error).partition(" <")[0].split()) or type(error).__name__
        raise DataError(f"{shown(path)} is a damaged PNG: {visible(reason)}") from error


def png_problem(content: bytes) -> str | None:
    """Return the first fault in the chunks of a PNG, None if there is none.

    A chunk is a length, a type, data and a CRC.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return f"is no PNG: it begins with {content[:8].hex(' ') or 'nothing'}"
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
        if not kind[0] & 0x20 and kind not in CRITICAL:
            return f"has a chunk '{visible(kind.decode('latin-1'))}', which is no part of PNG"
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
                return f"has {depth} bits a channel, expected 8 at most"
        position = end
    return None if position == len(content) else "is a PNG with bytes after its end"
