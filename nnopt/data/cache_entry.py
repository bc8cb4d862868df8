"""One dataset in the cache: a folder of ``.npy`` files and ``contents.json``.

The folder may be damaged or come from another person. So every value is checked before its use,
links out of the folder are not followed, and nothing is unpickled.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data.dataset_files import sha256
from nnopt.data.source import Decoded
from nnopt.io.atomic_files import write_json
from nnopt.io.received_files import open_received, parse_json, read_received

CONTENTS = "contents.json"
MAX_CONTENTS_BYTES = 2**24
# The inputs of a larger entry are memory-mapped, not copied. Reading a truncated mapping ends the
# process with SIGBUS. So ``Part.check_file`` checks the size of the file before each read.
MAX_COPIED_BYTES = 256 * 2**20
INPUT_TYPES = {4: ("uint8",), 2: ("float32", "float64")}  # number of axes -> allowed types
KINDS = ("inputs", "labels", "repeated_rows", "repeated_groups")  # the arrays of each part
SEQUENCES = ("classes", "mean", "std", "notes", "features")  # fields that are stored as lists
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError)
"""The errors that reading a damaged or hostile cache entry raises."""


def write_entry(decoded: Decoded, folder: Path, format_number: int) -> dict[str, Any]:
    """Write the arrays and contents.json; return the contents. Raises OSError or OutputError."""
    arrays = {}
    for part, inputs_and_labels in decoded.parts.items():
        for kind, array in zip(KINDS, (*inputs_and_labels, *decoded.repeated[part]), strict=True):
            name = f"{part}_{kind}"
            contiguous = np.ascontiguousarray(array)
            with open(folder / f"{name}.npy", "wb") as file:
                np.lib.format.write_array(file, contiguous, version=(1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            arrays[name] = {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": sha256(contiguous.reshape(-1).data),
            }
    contents = {
        "format": format_number,
        "parts": list(decoded.parts),
        "arrays": arrays,
        "sources": dict(decoded.sources),
        **{name: list(getattr(decoded, name)) for name in SEQUENCES},
    }
    write_json(folder / CONTENTS, contents)
    return contents


def open_entry(folder: Path, format_number: int) -> Decoded | None:
    """Return the arrays of a cache folder; None if absent, damaged or of another format number."""
    try:
        contents = _contents(folder)
        if contents["format"] != format_number:
            return None
        parts = contents["parts"]
        specs = {
            (part, kind): _ArraySpec(contents["arrays"][f"{part}_{kind}"])
            for part in parts
            for kind in KINDS
        }
        is_copied = sum(spec.bytes for spec in specs.values()) <= MAX_COPIED_BYTES
        arrays = {
            (part, kind): _read_array(folder, f"{part}_{kind}", spec, is_copied or kind != "inputs")
            for (part, kind), spec in specs.items()
        }
        decoded = Decoded(
            **{name: tuple(contents[name]) for name in SEQUENCES},
            parts={part: (arrays[part, "inputs"], arrays[part, "labels"]) for part in parts},
            sources=dict(contents["sources"]),
            repeated={part: np.stack([arrays[part, kind] for kind in KINDS[2:]]) for part in parts},
        )
        return decoded if _is_consistent(decoded) else None
    except UNREADABLE:
        return None


def changed_files(folder: Path) -> list[Path]:
    """Return the changed or missing array files; [folder] if contents.json is unreadable."""
    try:
        arrays = _contents(folder)["arrays"].items()
    except UNREADABLE:
        return [folder]
    changed = []
    for name, spec in arrays:
        with suppress(*UNREADABLE):
            array = _read_array(folder, name, _ArraySpec(spec), is_copied=False)
            if sha256(array.reshape(-1).data) == spec["sha256"]:
                continue
        changed.append(folder / f"{os.path.basename(name)}.npy")
    return changed


def is_equal(folder: Path, contents: Mapping[str, Any]) -> bool:
    """Return whether a cache folder has these ``contents`` and undamaged arrays."""
    try:
        return _contents(folder) == contents and not changed_files(folder)
    except UNREADABLE:
        return False


def _contents(folder: Path) -> Any:
    """Return the value in contents.json. Raises an exception in ``UNREADABLE``."""
    if folder.is_symlink():
        raise ValueError("the folder is a link")
    return parse_json(read_received(folder / CONTENTS, folder, MAX_CONTENTS_BYTES))


class _ArraySpec:
    """The shape and type of an array. Raises one of ``UNREADABLE`` if they are not allowed."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.shape = tuple(found["shape"])
        if not all(type(size) is int and size >= 0 for size in self.shape):
            raise ValueError(f"the shape {self.shape} is not allowed")
        allowed = INPUT_TYPES[len(self.shape)] if len(self.shape) > 1 else ("int64",)
        if found["dtype"] not in allowed:
            raise ValueError(f"the type {found['dtype']} is not allowed")
        self.dtype = np.dtype(found["dtype"])
        self.bytes = math.prod(self.shape) * self.dtype.itemsize


def _read_array(folder: Path, name: str, spec: _ArraySpec, is_copied: bool) -> np.ndarray:
    """Return the array in ``name``.npy after checking it. Raises an exception in ``UNREADABLE``."""
    if name != os.path.basename(name):
        raise ValueError(f"{name!r} is not the name of a file")
    path = folder / f"{name}.npy"
    if path.is_symlink():
        raise ValueError("the file is a link")
    header = io.BytesIO()  # the header that NumPy writes for this array
    fields = {"descr": spec.dtype.str, "fortran_order": False, "shape": spec.shape}
    np.lib.format.write_array_header_1_0(header, fields)
    start = header.tell()
    with open_received(path, folder, start + spec.bytes) as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(start) != header.getvalue() or size != start + spec.bytes:
            raise ValueError(f"{name}.npy does not have the expected header or size")
        if not is_copied and spec.bytes:
            return np.memmap(file, spec.dtype, "r", start, spec.shape)
        values = np.fromfile(file, spec.dtype, math.prod(spec.shape))
        return values.reshape(spec.shape)  # ValueError if the file was truncated


def _is_consistent(decoded: Decoded) -> bool:
    """Return whether the arrays, names and statistics have the right types and fit together."""
    texts = [*decoded.classes, *decoded.sources, *decoded.sources.values(), *decoded.notes]
    texts += decoded.features
    numbers = [*decoded.mean, *decoded.std]
    shape = decoded.parts["train"][0].shape[1:]
    channels = shape[0] if len(shape) == 3 else 0
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        and len(decoded.mean) == len(decoded.std) == channels
        and len(decoded.features) in (0, math.prod(shape))
    ):
        return False
    for part, (inputs, labels) in decoded.parts.items():
        rows = decoded.repeated[part][0]
        if not (
            inputs.ndim > 1
            and inputs.shape[1:] == shape
            and labels.shape == (len(inputs),)
            and ((labels >= 0) & (labels < len(decoded.classes))).all()
            and rows.ndim == 1
            and ((rows >= 0) & (rows < len(inputs))).all()
            and (np.diff(rows) > 0).all()
        ):
            return False
    return True
