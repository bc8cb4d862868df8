"""Reads the inputs of predictions: a CSV file, a NumPy array, an image, or a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnopt.data.csv_inputs import read_csv_inputs
from nnopt.data.csv_text import listed
from nnopt.data.dataset import InputFormat
from nnopt.data.dataset_files import check_regular, unreadable
from nnopt.data.image_inputs import IMAGE_SUFFIXES, image_files, read_images
from nnopt.errors import ConfigError, DataError
from nnopt.io.atomic_files import shown
from nnopt.schema import DatasetVariant

CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".zip")

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Inputs:
    """The inputs of predictions.

    Attributes:
        values: The raw samples, (N, ...) in the shape and the type of the training samples.
        files: The name of the file of each sample, for images; else empty.
        notes: What is in the input, but not used, one sentence each.
    """

    values: np.ndarray
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_inputs(
    path: Path, expected: InputFormat, trained_on: DatasetVariant, resize: bool = False
) -> Inputs:
    """Read the samples in a file or a folder of images.

    Args:
        path: A CSV file, a ``.npy`` file, an image, or a folder of images.
        expected: The shape, the type and the columns of the training samples.
        trained_on: The dataset of the training, whose CSV settings also apply to a CSV file.
        resize: Whether images of other sizes are scaled.

    Raises:
        DataError: The input is missing or damaged, or does not fit the network.
        ConfigError: ``resize`` is set, but the input is no image.
    """
    name = path.name.lower()
    is_image = path.is_dir() or name.endswith(IMAGE_SUFFIXES)
    if resize and not is_image:
        raise ConfigError(f"--resize applies to images, but {shown(path)} is none; leave it out")
    if is_image and not expected.is_image:
        raise DataError(
            f"{shown(path)}: the model takes {expected.shape[0]} features, not images; give a CSV "
            "or .npy file"
        )
    if is_image:
        files, others = image_files(path) if path.is_dir() else ([path], [])
        notes = [f"{shown(path)}: not read, because they are no images: {listed(others)}"]
        images = read_images(files, expected, resize)
        return Inputs(images, tuple(file.name for file in files), tuple(notes if others else ()))
    if name.endswith(CSV_SUFFIXES):
        values, surplus = read_csv_inputs(path, expected, trained_on)
        notes = [f"{shown(path)}: columns that the model does not use: {listed(surplus)}"]
        return Inputs(values, notes=tuple(notes if surplus else ()))
    if name.endswith(".npy"):
        return Inputs(_read_array(path, expected))
    check_regular(path)
    raise DataError(
        f"{shown(path)}: its kind is unknown; name a folder of images, or a file that ends with "
        f"{', '.join((*CSV_SUFFIXES[:1], '.npy', *IMAGE_SUFFIXES))}"
    )


def _read_array(path: Path, expected: InputFormat) -> np.ndarray:
    """Return the samples of a ``.npy`` file. Raises DataError."""
    check_regular(path)
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{shown(path)} is no array of numbers: {reason}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{shown(path)} has the type {kind}; expected an array of numbers")
    if expected.shape[0] == 1 and expected.is_image and array.ndim == 3:
        array = array[:, None]  # grey images, (N, H, W)
    if array.shape[1:] != expected.shape or not array.ndim:
        sides = ", ".join(map(str, expected.shape))
        one = "; for one sample, save array[None]" if array.shape == expected.shape else ""
        raise DataError(
            f"{shown(path)} has the shape {array.shape}, but the model needs (N, {sides}){one}"
        )
    if not len(array):
        raise DataError(f"{shown(path)} has 0 samples; expected some")
    return _converted(array, expected, path)


def _converted(array: np.ndarray, expected: InputFormat, path: Path) -> np.ndarray:
    """Return the array in the type of the training samples. Raises DataError."""
    if expected.is_image:
        if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
            raise DataError(
                f"{shown(path)} has {array.dtype} from {array.min():g} to {array.max():g}; pixels "
                "are whole numbers from 0 to 255, as in an array of uint8"
            )
        return array.astype(np.uint8, copy=False)
    finite = np.abs(array.reshape(len(array), -1).astype(np.float64)) <= LARGEST
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{shown(path)}: sample {row:,}, feature {column:,} is {array[row, column]}; expected "
            f"a finite number of at most {LARGEST:.2g}"
        )
    return np.ascontiguousarray(array, dtype=expected.dtype)
