"""The cache of decoded datasets: folders ``<data.cache>/<dataset>-<hash>``, see ``cache_entry``.

The hash covers everything that decoding depends on: ``FORMAT``, the settings of the source and the
SHA-256 of its files. A file ``<data.cache>/index/<dataset>-<hash of paths and settings>.json``
contains the name of the dataset's folder in the cache, and a fingerprint: a hash of the names,
sizes and times of the source files. While it is unchanged, the source files are not read again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
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
FORMAT = 5  # part of every hash; incremented when decoding changes
MAX_INDEX_BYTES = 2**20  # a usual index file has 100 bytes
INDEX_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}\.json")


def cached(source: Source[Any], cache: Path, root: Path | None = None) -> Decoded:
    """Return the arrays of a source from ``cache``; decode and store them if they are absent.

    If the cache cannot be written, the arrays stay in memory, with a warning. ``root`` is the
    folder of the datasets. Links in ``cache``, or between ``root`` and ``cache``, are not followed.
    """
    paths = {role: str(path) for role, path in source.files.items()}
    identity = _hash_of(source.name, paths, source.settings)
    index = cache / "index" / f"{source.name}-{identity}.json"
    if decoded := _lookup(source, index, cache):
        return decoded
    try:
        refuse_links(cache, root or cache)
        refuse_links(index.parent, cache)
        with exclusive(index.with_suffix(".lock")):
            # Another process may have decoded the source while this one waited.
            return _lookup(source, index, cache) or _decode_into(source, index, cache)
    except OSError as error:  # raised by the lock or by refuse_links
        return _in_memory(source.decode(), cache, error)


def is_cache(folder: Path) -> bool:
    """Return whether nnopt has used the folder as a cache before."""
    with suppress(OSError):
        return any(INDEX_NAME.fullmatch(name) for name in os.listdir(folder / "index"))
    return False


def _decode_into(source: Source[Any], index: Path, cache: Path) -> Decoded:
    fingerprint = source.fingerprint()  # before reading, so that a change during the read is found
    decoded = source.decode()
    parts = {name: (inputs.shape, str(inputs.dtype)) for name, (inputs, _) in decoded.parts.items()}
    # The settings of a CSV source say which file contains which part; ``sources`` does not.
    contents = source.settings, sorted(decoded.sources.items()), parts, decoded.classes
    entry = f"{source.name}-{_hash_of(source.name, *contents)}"
    temporary = cache / f".{index.stem}.tmp"  # used only under the caller's lock
    try:
        remove(temporary)
        temporary.mkdir()
        _publish(temporary, cache / entry, write_entry(decoded, temporary, FORMAT))
        write_json(index, {"fingerprint": _short_hash(os.fsencode(fingerprint)), "entry": entry})
    except (OSError, OutputError) as error:
        return _in_memory(decoded, cache, error)
    finally:
        remove(temporary)
    del decoded  # frees the arrays before the cached ones are opened
    opened = open_entry(cache / entry, FORMAT)
    if opened is None:
        raise OutputError(f"{shown(cache / entry)} was changed during the write; run again")
    return opened


def _publish(temporary: Path, folder: Path, contents: Mapping[str, Any]) -> None:
    """Rename ``temporary`` to ``folder`` unless an equal entry exists. Raises OSError.

    The files of a damaged entry are deleted, not overwritten, because other processes may have
    mapped them into memory. If the entry is a link, only the link is deleted.
    """
    try:
        temporary.rename(folder)
        return
    except OSError:
        if is_equal(folder, contents):  # written from files with the same contents
            return
    if os.path.lexists(folder):
        LOG.warning(f"the cache {shown(folder)} is damaged and is written again")
        remove(folder)
    temporary.rename(folder)


def _in_memory(decoded: Decoded, cache: Path, error: Exception) -> Decoded:
    LOG.warning(
        f"cannot write the cache {shown(cache)} ({error}): the data are decoded into memory at "
        "each start; set another folder with data.cache=DIR"
    )
    return decoded


def _lookup(source: Source[Any], index: Path, cache: Path) -> Decoded | None:
    """Return the cached arrays of a source; None if absent, damaged or of another fingerprint."""
    try:
        known = parse_json(read_received(index, cache, MAX_INDEX_BYTES))
        entry = known["entry"]
        if os.path.basename(entry) != entry or not entry.startswith(f"{source.name}-"):
            return None
        if known["fingerprint"] != _short_hash(os.fsencode(source.fingerprint())):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return open_entry(cache / entry, FORMAT)


def _hash_of(*values: Any) -> str:
    return _short_hash(repr((FORMAT, *values)).encode("utf-8", "backslashreplace"))


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def damaged(cache: Path, name: str) -> list[str]:
    """Return the changed files in all cache entries of a dataset; see ``changed_files``."""
    folders = sorted(cache.glob(f"{name}-*"))
    return [shown(path) for folder in folders for path in changed_files(folder)]
