"""One dataset in the cache: a folder of ``.npy`` files and ``contents.json``.

The folder may come from another person or may have been cut short. So every value is checked before
it is used, links are not followed out of the folder, and nothing is unpickled.

A file that is cut short while it is mapped into memory ends the process with SIGBUS. So datasets of
up to ``COPIED`` bytes are read into memory, which is faster than reading all of a mapping: 0.16 s
and 0.29 s for CIFAR-10. Larger ones are mapped, and ``Part.check_file`` looks at the file's size
before each block of rows is read. A file that is cut short during the read itself is not noticed.
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
LARGEST_CONTENTS = 2**24  # bytes
COPIED = 256 * 2**20  # bytes of a dataset's inputs
INPUT_TYPES = {4: ("uint8",), 2: ("float32", "float64")}
"""Number of dimensions -> types of number: images (M, C, H, W), features (M, D)."""

KINDS = ("inputs", "labels", "repeated_rows", "repeated_groups")
"""The arrays of each part."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError)
"""The errors that a damaged or hostile entry raises while it is read."""


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
        "classes": list(decoded.classes),
        "parts": list(decoded.parts),
        "arrays": arrays,
        "sources": dict(decoded.sources),
        "mean": list(decoded.mean),
        "std": list(decoded.std),
        "notes": list(decoded.notes),
        "features": list(decoded.features),
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
        facts = {name: _Facts(contents["arrays"][name]) for name in names}
        is_copied = sum(one.bytes for one in facts.values()) <= COPIED
        arrays = {
            name: _read_array(folder, name, one, is_copied or not name.endswith("_inputs"))
            for name, one in facts.items()
        }
        decoded = Decoded(
            classes=tuple(contents["classes"]),
            parts={
                part: (arrays[f"{part}_inputs"], arrays[f"{part}_labels"])
                for part in contents["parts"]
            },
            sources=dict(contents["sources"]),
            mean=tuple(contents["mean"]),
            std=tuple(contents["std"]),
            notes=tuple(contents["notes"]),
            features=tuple(contents["features"]),
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
    """Return the files of an entry whose contents are not those that were written."""
    changed = []
    try:
        for name, facts in _contents(folder)["arrays"].items():
            try:
                array = _read_array(folder, name, _Facts(facts), is_copied=False)
                is_same = sha256(array.reshape(-1).data) == facts["sha256"]
            except UNREADABLE:
                is_same = False
            if not is_same:
                changed.append(folder / f"{os.path.basename(name)}.npy")
    except UNREADABLE:
        changed.append(folder)
    return changed


def is_equal(folder: Path, contents: Mapping[str, Any]) -> bool:
    """Return whether a cache folder has these contents and arrays, bit by bit."""
    try:
        return _contents(folder) == contents and not changed_files(folder)
    except UNREADABLE:
        return False


def _contents(folder: Path) -> Any:
    """Return the value of contents.json. Raises one of ``UNREADABLE``."""
    if folder.is_symlink():
        raise ValueError("a link in the place of the folder")
    return parse_json(read_received(folder / CONTENTS, folder, LARGEST_CONTENTS))


class _Facts:
    """Shape and type of an array as contents.json gives them. Raises one of ``UNREADABLE``."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.shape = tuple(found["shape"])
        if not all(type(size) is int and size >= 0 for size in self.shape):
            raise ValueError(f"shape {self.shape}")
        allowed = INPUT_TYPES[len(self.shape)] if len(self.shape) > 1 else ("int64",)
        if found["dtype"] not in allowed:
            raise ValueError(f"dtype {found['dtype']}")
        self.dtype = np.dtype(found["dtype"])
        self.bytes = math.prod(self.shape) * self.dtype.itemsize


def _read_array(folder: Path, name: str, facts: _Facts, is_copied: bool) -> np.ndarray:
    """Return the array of a file that has exactly this shape and type. Raises ``UNREADABLE``."""
    if name != os.path.basename(name):
        raise ValueError(f"{name!r} is not the name of a file")
    path = folder / f"{name}.npy"
    if path.is_symlink():
        raise ValueError("a link in the place of the file")
    header = _header(facts)
    with open_received(path, folder, len(header) + facts.bytes) as file:
        start = len(header)
        if file.read(start) != header or os.fstat(file.fileno()).st_size != start + facts.bytes:
            raise ValueError(f"{name}.npy has another header, or is cut short or too long")
        if not is_copied and facts.bytes:
            return np.memmap(file, facts.dtype, "r", start, facts.shape)
        values = np.fromfile(file, facts.dtype, math.prod(facts.shape))
        return values.reshape(facts.shape)  # ValueError if it was cut short meanwhile


def _header(facts: _Facts) -> bytes:
    """Return the header that NumPy writes for such an array. No header of a file is parsed."""
    header = {"descr": facts.dtype.str, "fortran_order": False, "shape": facts.shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def _check(decoded: Decoded) -> None:
    """Raise one of ``UNREADABLE`` unless the parts fit each other."""
    texts = [*decoded.classes, *decoded.sources, *decoded.sources.values(), *decoded.notes]
    texts += decoded.features
    numbers = [*decoded.mean, *decoded.std]
    if not all(isinstance(text, str) for text in texts) or "train" not in decoded.parts:
        raise ValueError("a value of another type")
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise ValueError("a statistic that is no number")
    shapes = {inputs.shape[1:] for inputs, _ in decoded.parts.values()}
    channels = decoded.parts["train"][0].shape[1] if decoded.parts["train"][0].ndim == 4 else 0
    if len(shapes) != 1 or len(decoded.mean) != channels or len(decoded.std) != channels:
        raise ValueError("parts of different shapes")
    for part, (inputs, labels) in decoded.parts.items():
        if inputs.ndim == 1 or labels.shape != (len(inputs),):
            raise ValueError("not one label for each input")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(decoded.classes):
            raise ValueError("a label that is out of range")
        rows = decoded.repeated[part][0]
        if len(rows) and not (
            rows[0] >= 0 and rows[-1] < len(inputs) and (np.diff(rows) > 0).all()
        ):
            raise ValueError("repeated rows that are out of range or out of order")
    if len(decoded.features) not in (0, *next(iter(shapes))[:1]):
        raise ValueError("not one name for each feature")
