"""One dataset in the cache: a folder of ``.npy`` files and ``contents.json``.

The folder may be damaged or come from another person. So every value is checked before its use,
links out of the folder are not followed, and nothing is unpickled.

If a file is truncated while it is mapped into memory, the process ends with SIGBUS. So datasets of
up to ``MAX_COPIED_BYTES`` are read into memory, which is also faster than mapping them.
Larger ones are mapped, and ``Part.check_file`` checks the file size before each chunk of rows
is read. Truncation during the read itself is not detected.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data.dataset_files import sha256
from nnopt.data.duplicates import NONE_REPEATED
from nnopt.data.source import Decoded
from nnopt.io.atomic_files import write_json
from nnopt.io.received_files import open_received, parse_json, read_received

CONTENTS = "contents.json"
MAX_CONTENTS_BYTES = 2**24
MAX_COPIED_BYTES = 256 * 2**20  # of a dataset
INPUT_TYPES = {4: ("uint8",), 2: ("float32", "float64")}
"""Number of axes -> allowed types: images (M, C, H, W), features (M, D)."""

KINDS = ("inputs", "labels", "repeated_rows", "repeated_groups")
"""The arrays of each part."""

SEQUENCES = ("classes", "mean", "std", "notes", "features")
"""The fields of ``Decoded`` that are sequences of texts or numbers."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError)
"""The errors that reading a damaged or hostile cache entry raises."""


def write_entry(decoded: Decoded, folder: Path, format_number: int) -> dict[str, Any]:
    """Write the arrays and contents.json; return the contents. Raises OSError or OutputError."""
    arrays = {}
    for part, (inputs, labels) in decoded.parts.items():
        rows, groups = decoded.repeated.get(part, NONE_REPEATED)
        for kind, array in zip(KINDS, (inputs, labels, rows, groups), strict=True):
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
    """Return the arrays of a cache folder; None if it is absent, damaged or of another format."""
    try:
        contents = _contents(folder)
        if contents["format"] != format_number:
            return None
        names = [f"{part}_{kind}" for part in contents["parts"] for kind in KINDS]
        specs = {name: _ArraySpec(contents["arrays"][name]) for name in names}
        is_copied = sum(spec.bytes for spec in specs.values()) <= MAX_COPIED_BYTES
        arrays = {
            name: _read_array(folder, name, spec, is_copied or not name.endswith("_inputs"))
            for name, spec in specs.items()
        }
        decoded = Decoded(
            **{name: tuple(contents[name]) for name in SEQUENCES},
            parts={
                part: (arrays[f"{part}_inputs"], arrays[f"{part}_labels"])
                for part in contents["parts"]
            },
            sources=dict(contents["sources"]),
            repeated={
                part: np.stack([arrays[f"{part}_{kind}"] for kind in KINDS[2:]])
                for part in contents["parts"]
            },
        )
        _check(decoded)
    except UNREADABLE:
        return None
    return decoded


def changed_files(folder: Path) -> list[Path]:
    """Return the files of an entry that changed after they were written."""
    changed = []
    try:
        for name, spec in _contents(folder)["arrays"].items():
            try:
                array = _read_array(folder, name, _ArraySpec(spec), is_copied=False)
                is_same = sha256(array.reshape(-1).data) == spec["sha256"]
            except UNREADABLE:
                is_same = False
            if not is_same:
                changed.append(folder / f"{os.path.basename(name)}.npy")
    except UNREADABLE:
        changed.append(folder)
    return changed


def is_equal(folder: Path, contents: Mapping[str, Any]) -> bool:
    """Return whether a cache folder has exactly these contents and arrays."""
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
    """Shape and type of an array, read from contents.json.

    The constructor raises an exception in ``UNREADABLE`` if either is not allowed.
    """

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
    """Return the array in a file of this shape and type. Raises an exception in ``UNREADABLE``."""
    if name != os.path.basename(name):
        raise ValueError(f"{name!r} is not the name of a file")
    path = folder / f"{name}.npy"
    if path.is_symlink():
        raise ValueError("the file is a link")
    header = _header(spec)
    with open_received(path, folder, len(header) + spec.bytes) as file:
        start = len(header)
        if file.read(start) != header or os.fstat(file.fileno()).st_size != start + spec.bytes:
            raise ValueError(f"{name}.npy has another header or another size")
        if not is_copied and spec.bytes:
            return np.memmap(file, spec.dtype, "r", start, spec.shape)
        values = np.fromfile(file, spec.dtype, math.prod(spec.shape))
        return values.reshape(spec.shape)  # ValueError if the file was truncated


def _header(spec: _ArraySpec) -> bytes:
    """Return the header that NumPy writes for this array, to compare it with that of a file."""
    header = {"descr": spec.dtype.str, "fortran_order": False, "shape": spec.shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _check(decoded: Decoded) -> None:
    """Raise ValueError unless the arrays, names and statistics fit together."""
    texts = [*decoded.classes, *decoded.sources, *decoded.sources.values(), *decoded.notes]
    texts += decoded.features
    numbers = [*decoded.mean, *decoded.std]
    if not all(isinstance(text, str) for text in texts) or "train" not in decoded.parts:
        raise ValueError("a value has the wrong type")
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise ValueError("a statistic is not a number")
    shapes = {inputs.shape[1:] for inputs, _ in decoded.parts.values()}
    channels = decoded.parts["train"][0].shape[1] if decoded.parts["train"][0].ndim == 4 else 0
    if len(shapes) != 1 or len(decoded.mean) != channels or len(decoded.std) != channels:
        raise ValueError("the parts have different shapes")
    for part, (inputs, labels) in decoded.parts.items():
        if inputs.ndim == 1 or labels.shape != (len(inputs),):
            raise ValueError("the numbers of inputs and labels differ")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(decoded.classes):
            raise ValueError("a label is out of range")
        rows = decoded.repeated[part][0]
        if len(rows) and not (
            rows[0] >= 0 and rows[-1] < len(inputs) and (np.diff(rows) > 0).all()
        ):
            raise ValueError("repeated rows are out of range or not ascending")
    if len(decoded.features) not in (0, *next(iter(shapes))[:1]):
        raise ValueError("the numbers of features and names differ")
