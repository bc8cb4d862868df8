"""Decoded datasets on disk, so that a second start decodes nothing.

    <data.cache>/<dataset>-<16 hex digits>/   train_inputs.npy, train_labels.npy, ..., contents.json
    <data.cache>/index/<dataset>-....json     which of these folders belongs to which source files

The digits are a hash of everything that decoding depends on: the way of decoding (``FORMAT``), the
source's settings, and the SHA-256 of its files. So changed files and other settings never get old
arrays. An index entry has the fingerprint (sizes, times) that the files had when they were read:
while it holds, they are not read again. A folder is filled under a temporary name and then renamed.
A lock lets one process decode while others wait. The next process removes the temporary folder of
a killed one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnopt.data.cache_entry import changed_files, is_equal, open_entry, write_entry
from nnopt.data.dataset_files import refuse_links, remove
from nnopt.data.source import Decoded, Source
from nnopt.errors import OutputError
from nnopt.io.atomic_files import shown, write_json
from nnopt.io.locks import exclusive
from nnopt.io.received_files import parse_json, read_received

LOG = logging.getLogger("nnopt")

FORMAT = 5  # part of every key: a new way of decoding takes the next number
LARGEST_INDEX = 2**20  # bytes of an index entry; a usual one has 100
INDEX_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}\.json")


def cached(source: Source[Any], cache: Path, root: Path | None = None) -> Decoded:
    """Return the source's arrays from ``cache``, decoding them first if they are not there yet.

    Nothing is written through a link below ``cache``, or between ``root``, the folder of the
    datasets, and ``cache``. If the folder cannot be written, the arrays stay in memory and a
    warning says so.
    """
    paths = {role: str(path) for role, path in source.files.items()}
    identity = f"{source.name}-{_hash_of(source.name, paths, source.settings)}"
    index = cache / "index" / f"{identity}.json"
    if decoded := _lookup(source, index, cache):
        return decoded
    try:
        refuse_links(cache, root or cache)
        refuse_links(index.parent, cache)
        with exclusive(index.with_suffix(".lock")):
            # While this process waited, another one may have done the work.
            return _lookup(source, index, cache) or _decode_into(source, index, cache)
    except OSError as error:  # only the lock and the links raise it
        return _in_memory(source.decode(), cache, error)


def is_cache(folder: Path) -> bool:
    """Return whether nnopt has used the folder as a cache before."""
    try:
        names = os.listdir(folder / "index")
    except OSError:
        return False
    return any(INDEX_NAME.fullmatch(name) for name in names)


def _decode_into(source: Source[Any], index: Path, cache: Path) -> Decoded:
    fingerprint = source.fingerprint()  # before reading: a change while reading is noticed later
    decoded = source.decode()
    entry = f"{source.name}-{_key(source, decoded)}"
    temporary = cache / f".{index.stem}.tmp"  # no other process uses it: the lock is ours
    try:
        remove(temporary)
        temporary.mkdir()
        contents = write_entry(decoded, temporary, FORMAT)
        _publish(temporary, cache / entry, contents)
        write_json(index, {"fingerprint": _short_hash(os.fsencode(fingerprint)), "entry": entry})
    except (OSError, OutputError) as error:
        return _in_memory(decoded, cache, error)
    finally:
        remove(temporary)
    del decoded  # before the arrays are read: never twice in memory
    opened = open_entry(cache / entry, FORMAT)
    if opened is None:
        raise OutputError(f"{shown(cache / entry)} was changed while it was written; run again")
    return opened


def _publish(temporary: Path, folder: Path, contents: Mapping[str, Any]) -> None:
    """Rename ``temporary`` to ``folder``, unless that is there and equal. Raises OSError.

    An entry that is there may be damaged, or made by another person. Other processes may have
    mapped its files into memory. So these are deleted, which leaves mappings intact, and are never
    written to. If the entry is a link, the link is deleted and its target is not.
    """
    try:
        temporary.rename(folder)
        return
    except OSError:
        if is_equal(folder, contents):  # another source with the same contents was faster
            return
    if os.path.lexists(folder):
        LOG.warning(f"the cache {shown(folder)} is damaged; it is written again")
        remove(folder)
    temporary.rename(folder)


def _in_memory(decoded: Decoded, cache: Path, error: Exception) -> Decoded:
    LOG.warning(
        f"cannot write the cache {shown(cache)} ({error}): the data stay in memory and are decoded "
        "again at each start; choose another folder with data.cache=DIR"
    )
    return decoded


def _lookup(source: Source[Any], index: Path, cache: Path) -> Decoded | None:
    """Return the cached arrays of a source if its files have the same fingerprint."""
    try:
        known = parse_json(read_received(index, cache, LARGEST_INDEX))
        entry = known["entry"]
        if os.path.basename(entry) != entry or not entry.startswith(f"{source.name}-"):
            return None
        if known["fingerprint"] != _short_hash(os.fsencode(source.fingerprint())):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return open_entry(cache / entry, FORMAT)


def _key(source: Source[Any], decoded: Decoded) -> str:
    """Return the hash of all that decoding depends on.

    The settings name the files by their roles where these can be exchanged; ``sources`` has the
    hash of each name.
    """
    parts = {name: (inputs.shape, str(inputs.dtype)) for name, (inputs, _) in decoded.parts.items()}
    sources = sorted(decoded.sources.items())
    return _hash_of(source.name, source.settings, sources, parts, decoded.classes)


def _hash_of(*values: Any) -> str:
    return _short_hash(repr((FORMAT, *values)).encode("utf-8", "backslashreplace"))


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def damaged(cache: Path, name: str) -> list[str]:
    """Return the cache files of a dataset whose contents are not those that were written."""
    folders = sorted(cache.glob(f"{name}-*"))
    return [shown(path) for folder in folders for path in changed_files(folder)]
