"""Decoded datasets on disk: arrays that are memory-mapped, so a second start reads next to nothing.

    <data.cache>/<dataset>-<16 hex digits>/   train_inputs.npy, train_labels.npy, ..., contents.json
    <data.cache>/index/<dataset>-....json     which of these folders belongs to which source files

The digits are a hash of everything that decoding depends on: the way of decoding (``FORMAT``), the
source's settings, and the SHA-256 of its files. So neither changed files nor other settings ever
meet old arrays. An index entry remembers the fingerprint (sizes, times) that the files had when
they were read: while it holds, they are not read again. A folder is filled under a temporary name
and then renamed; a lock lets one process decode while others wait. What a killed process left, the
next one removes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data.files import exclusive, sha256
from nnopt.data.source import Decoded, Source
from nnopt.errors import OutputError
from nnopt.results.files import shown, write_json

LOG = logging.getLogger("nnopt")

FORMAT = 2  # part of every key: a new way of decoding takes the next number
CONTENTS = "contents.json"
INDEX_NAME = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}\.json")


def cached(source: Source[Any], cache: Path) -> Decoded:
    """The source's arrays, memory-mapped from ``cache``; decoded first if they are not there yet.

    If the folder cannot be written, the arrays stay in memory and a warning says so.
    """
    paths = {role: str(path) for role, path in source.files.items()}
    identity = f"{source.name}-{_hash_of(source.name, paths, source.settings)}"
    index = cache / "index" / f"{identity}.json"
    if decoded := _lookup(source, index, cache):
        return decoded
    try:
        with exclusive(index.with_suffix(".lock")):
            # While this process waited, another one may have done the work.
            return _lookup(source, index, cache) or _decode_into(source, index, cache)
    except OSError as error:  # only the lock raises it
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
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        contents = {"format": FORMAT, **_save(decoded, temporary)}
        write_json(temporary / CONTENTS, contents)
        if _open(cache / entry) is None:
            _replace(cache / entry, temporary)
        write_json(index, {"fingerprint": _short_hash(os.fsencode(fingerprint)), "entry": entry})
    except (OSError, OutputError) as error:
        return _in_memory(decoded, cache, error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    del decoded  # before the mapped arrays are touched: never twice in memory
    opened = _open(cache / entry)
    if opened is None:
        raise OutputError(f"{shown(cache / entry)} was changed while it was written; run again")
    return opened


def _replace(folder: Path, temporary: Path) -> None:
    """Put the new folder in the place of an absent or damaged one. Raises OSError."""
    if folder.exists():
        LOG.warning(f"the cache {shown(folder)} is damaged; it is written anew")
        shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.rename(folder)
    except OSError:
        if _open(folder) is None:  # else another source of equal content was faster
            raise


def _in_memory(decoded: Decoded, cache: Path, error: Exception) -> Decoded:
    LOG.warning(
        f"cannot write the cache {shown(cache)} ({error}): the data stay in memory and are decoded "
        "again at each start; choose another folder with data.cache=DIR"
    )
    return decoded


def _lookup(source: Source[Any], index: Path, cache: Path) -> Decoded | None:
    """The cached arrays of a source whose files look as they did when they were decoded."""
    try:
        known = json.loads(index.read_text("utf-8"))
        entry = cache / Path(known["entry"]).name
        if known["fingerprint"] != _short_hash(os.fsencode(source.fingerprint())):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _open(entry)


def _key(source: Source[Any], decoded: Decoded) -> str:
    """From all that the decoder received. The settings name the files by their roles where these
    can be exchanged; ``sources`` has the hash of each name."""
    parts = {name: (inputs.shape, str(inputs.dtype)) for name, (inputs, _) in decoded.parts.items()}
    sources = sorted(decoded.sources.items())
    return _hash_of(source.name, source.settings, sources, parts, decoded.classes)


def _hash_of(*values: Any) -> str:
    return _short_hash(repr((FORMAT, *values)).encode("utf-8", "backslashreplace"))


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _save(decoded: Decoded, folder: Path) -> dict[str, Any]:
    """Write the arrays; return what contents.json says beside the format."""
    arrays = {}
    for part, (inputs, labels) in decoded.parts.items():
        for name, array in ((f"{part}_inputs", inputs), (f"{part}_labels", labels)):
            contiguous = np.ascontiguousarray(array)
            with open(folder / f"{name}.npy", "wb") as file:
                np.lib.format.write_array(file, contiguous, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            arrays[name] = {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": sha256(contiguous.reshape(-1).data),
            }
    return {
        "classes": list(decoded.classes),
        "parts": list(decoded.parts),
        "arrays": arrays,
        "sources": dict(decoded.sources),
        "mean": list(decoded.mean),
        "std": list(decoded.std),
        "notes": list(decoded.notes),
    }


def _open(folder: Path) -> Decoded | None:
    """The arrays of a cache folder, or None if it is absent, damaged or of another format."""
    try:
        contents = json.loads((folder / CONTENTS).read_text("utf-8"))
        if contents["format"] != FORMAT:
            return None
        arrays = {}
        for name, expected in contents["arrays"].items():
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if [list(array.shape), str(array.dtype)] != [expected["shape"], expected["dtype"]]:
                raise ValueError(f"{name}.npy is {array.shape} {array.dtype}")
            arrays[name] = array
        return Decoded(
            classes=tuple(contents["classes"]),
            parts={
                part: (arrays[f"{part}_inputs"], arrays[f"{part}_labels"])
                for part in contents["parts"]
            },
            sources=contents["sources"],
            mean=tuple(contents["mean"]),
            std=tuple(contents["std"]),
            notes=tuple(contents["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def damaged(cache: Path, name: str) -> list[str]:
    """The cache files of a dataset whose contents are not those that were written."""
    problems = []
    for folder in sorted(cache.glob(f"{name}-*")):
        try:
            expected = json.loads((folder / CONTENTS).read_text("utf-8"))["arrays"]
            for file, facts in expected.items():
                array = np.load(folder / f"{file}.npy", mmap_mode="r", allow_pickle=False)
                if sha256(array.reshape(-1).data) != facts["sha256"]:
                    problems.append(str(folder / f"{file}.npy"))
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            problems.append(str(folder))
    return problems
