"""Reads image files as inputs of a trained network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnopt.data.dataset import InputFormat
from nnopt.data.dataset_files import check_regular, unreadable
from nnopt.errors import DataError
from nnopt.io.atomic_files import shown

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
"""Mode of an image in Pillow -> number of channels without transparency. Others are refused."""

KINDS = {1: "grey", 3: "colour"}


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images in a folder, sorted by name, and the names of the other entries.

    Hidden entries are ignored. Raises DataError if there is no image.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error
    images = [folder / name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    others = [name for name in names if not name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise DataError(f"{shown(folder)} has no image ({', '.join(IMAGE_SUFFIXES)})")
    return images, others


def read_images(paths: list[Path], expected: InputFormat, resize: bool) -> NDArray[np.uint8]:
    """Return the images as an array (N, C, H, W) of the expected shape.

    With ``resize``, images of other sizes are scaled by bilinear interpolation, without keeping the
    ratio of width and height.

    Raises:
        DataError: A file is no image, or its channels or its size are not those of the network.
    """
    channels, height, width = expected.shape
    images = np.empty((len(paths), *expected.shape), np.uint8)
    for index, path in enumerate(paths):
        with _opened(path) as image:
            _check_channels(image, channels, path)
            pixels = image.convert("L" if channels == 1 else "RGB")
            if pixels.size != (width, height):
                if not resize:
                    found = f"{channels}x{pixels.height}x{pixels.width}"
                    raise DataError(
                        f"{shown(path)} is an image of {found}, but the model needs "
                        f"{channels}x{height}x{width} (channels, height, width); --resize scales "
                        "it"
                    )
                pixels = pixels.resize((width, height), resample=2)  # Pillow's number of BILINEAR
            images[index] = np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1)
    return images


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image upright, as its EXIF data say. Raises DataError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if getattr(file, "n_frames", 1) > 1:
                    raise DataError(f"{shown(path)} has several frames; save one of them")
                image = ImageOps.exif_transpose(file)
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{shown(path)} has too many pixels; save a smaller image") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{shown(path)} is no image that Pillow can read") from error
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from error
        raise DataError(f"{shown(path)} is a damaged image: {error}") from error
    except (ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{shown(path)} is a damaged image: {error}") from error
    yield image


def _check_channels(image: Image, channels: int, path: Path) -> None:
    """Raise DataError if an image has other channels than the network, or is transparent."""
    found = CHANNELS.get(image.mode)
    if image.mode in ("P", "PA") and channels == 1:
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
        found = 1 if np.array_equal(red, green) and np.array_equal(red, blue) else 3
    if found is None:
        raise DataError(
            f"{shown(path)} has the mode {image.mode} of Pillow; save it with 8 bits per channel, "
            "as grey or RGB"
        )
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise DataError(f"{shown(path)} has transparent pixels; save it on a background")
    if found != channels:
        names = KINDS.get(channels, f"images with {channels} channels")
        raise DataError(
            f"{shown(path)} is a {KINDS[found]} image ({found} channel{'s' * (found > 1)}), but "
            f"the model was trained on {names} images ({channels} channel{'s' * (channels > 1)}); "
            f"convert the image to {names}, in the same way as the training images"
        )
