"""Tiny datasets in the original file formats."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.data.cifar10 import FILES
from nnopt.data.published import CINIC10
from nnopt.schema import CsvConfig, DataConfig, ImageConfig, SpiralConfig, Validation

HOLD_OUT = Validation("train", 0.2)


def image_config(name: str, **changes: object) -> ImageConfig:
    values = {"classes": None, "subset": None, "normalization": "unit", "validation": HOLD_OUT}
    return ImageConfig(name=name, **{**values, **changes})  # type: ignore[arg-type]


def csv_config(train: Path | str, **changes: object) -> CsvConfig:
    values = {
        "classes": None,
        "subset": None,
        "normalization": "none",
        "validation": Validation("none", 0.1),
        "test": None,
        "test_fraction": 0.25,
        "label": "label",
        "drop_columns": (),
        "header": True,
        "separator": None,
        "decimal": "point",
        "shape": None,
        "shape_order": "chw",
    }
    return CsvConfig(name="csv", train=str(train), **{**values, **changes})  # type: ignore[arg-type]


def spiral_config(**changes: object) -> SpiralConfig:
    values = {
        "subset": None,
        "normalization": "standard",
        "validation": HOLD_OUT,
        "classes": 3,
        "samples_per_class": 50,
        "noise": 0.15,
        "seed": 0,
    }
    return SpiralConfig(name="spiral", **{**values, **changes})  # type: ignore[arg-type]


def data_config(root: Path, download: bool = False) -> DataConfig:
    return DataConfig(root=str(root), cache=str(root / "cache"), download=download)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(root: Path, folder: str = "MNIST/raw", packed: bool = False) -> dict[str, np.ndarray]:
    """Write 40 training and 20 test images of 4x4 pixels; return a map from file name to array."""
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": random.integers(0, 256, (40, 4, 4)),
        "train-labels-idx1-ubyte": np.arange(40) % 10,
        "t10k-images-idx3-ubyte": random.integers(0, 256, (20, 4, 4)),
        "t10k-labels-idx1-ubyte": np.arange(20) % 10,
    }
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        content = idx_bytes(array)
        path = root / folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return arrays


def png_bytes(pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def write_cinic(root: Path, each: int = 2) -> dict[str, np.ndarray]:
    """Write ``each`` images per class and part.

    Return the pixels (M, 32, 32, 3) of each part, in the order of the files.
    """
    random = np.random.default_rng(0)
    arrays = {}
    for part in CINIC10.parts:
        arrays[part] = random.integers(0, 256, (10 * each, 32, 32, 3), dtype=np.uint8)
        for index, pixels in enumerate(arrays[part]):
            folder = root / "CINIC-10" / part / CINIC10.classes[index // each]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"image-{index:03d}.png").write_bytes(png_bytes(pixels))
    return arrays


def write_cifar(root: Path, count: int) -> Path:
    """Write ``count`` images to each file of the binary version; return the folder.

    A test has to set ``cifar10.IMAGES_PER_FILE`` to ``count``.
    """
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name in (name for names in FILES.values() for name in names):
        pixels = random.integers(0, 256, (count, 3072))
        records = np.column_stack([np.arange(count) % 10, pixels]).astype(np.uint8)
        (folder / name).write_bytes(records.tobytes())
    return folder


def summary_values(**changes: Any) -> dict[str, Any]:
    """Return the values that ``summary.json`` needs for a finished run, updated by ``changes``."""
    needed = {"seed": 0, "config": {}, "overrides": [], "data": None, "error": None}
    return {"status": "done", **needed, **changes}
