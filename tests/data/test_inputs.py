"""Inputs of predictions: CSV files, arrays and images, and the refusal of other ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnopt.config.compose import compose_config
from nnopt.data.dataset import InputFormat
from nnopt.data.inputs import read_inputs
from nnopt.errors import ConfigError, DataError
from nnopt.schema import CsvConfig, DatasetVariant

POINTS = InputFormat((2,), "float32")
TABLE = InputFormat((2,), "float64", ("x", "y"))
GREY = InputFormat((1, 2, 3), "uint8")
COLOUR = InputFormat((3, 2, 3), "uint8")


@pytest.fixture(scope="module")
def spiral() -> DatasetVariant:
    return compose_config().dataset


@pytest.fixture(scope="module")
def csv() -> CsvConfig:
    found = compose_config(["dataset=csv", "dataset.train=a.csv", "dataset.label=kind"]).dataset
    assert isinstance(found, CsvConfig)
    return found


# CSV files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("x,y\n1,2\n3,4.5\n", ""),
        ("y,x\n2,1\n4.5,3\n", ""),
        ("id,y,kind,x\n7,2,cat,1\n8,4.5,dog,3\n", "'id', 'kind'"),
        ("y;x\n2;1\n4.5;3\n", ""),
    ],
    ids=["same order", "reordered", "surplus", "another separator"],
)
def test_csv_columns_are_matched_by_name(
    tmp_path: Path, csv: CsvConfig, text: str, note: str
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    found = read_inputs(path, TABLE, csv)
    np.testing.assert_array_equal(found.values, np.array([[1, 2], [3, 4.5]]), strict=True)
    assert [*found.notes] == (
        [f"{path}: columns that the model does not use: {note}"] if note else []
    )


def test_missing_csv_columns_are_named(tmp_path: Path, csv: CsvConfig) -> None:
    path = tmp_path / "in.csv"
    path.write_text("x,z\n1,2\n")
    with pytest.raises(
        DataError, match=r"lacks 1 of the 2 columns of the model: 'y'; other.*: 'z'"
    ):
        read_inputs(path, TABLE, csv)


def test_csv_cell_without_number_is_named(tmp_path: Path, csv: CsvConfig) -> None:
    path = tmp_path / "in.csv"
    path.write_text("x,y\n1,2\n3,many\n")
    with pytest.raises(DataError, match=r"row 2.*column 'y' holds 'many'") as caught:
        read_inputs(path, TABLE, csv)
    assert "drop_columns" not in str(caught.value)


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "a,b\n1,2\n3,4\n", "1\t2\n3\t4\n"])
def test_csv_columns_without_known_names_are_read_in_order(
    tmp_path: Path, spiral: DatasetVariant, text: str
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    found = read_inputs(path, POINTS, spiral)
    np.testing.assert_array_equal(found.values, np.float32([[1, 2], [3, 4]]), strict=True)


def test_csv_with_another_number_of_unnamed_columns_is_refused(
    tmp_path: Path, spiral: DatasetVariant
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("1,2,3\n")
    with pytest.raises(DataError, match="has 3 columns, but a sample of the model has 2 numbers"):
        read_inputs(path, POINTS, spiral)


@pytest.mark.parametrize(
    ("text", "expected"), [("5,1,2\n", [1, 2]), ("1,2\n", [1, 2])], ids=["with label", "without"]
)
def test_csv_without_header_is_read_by_position(
    tmp_path: Path, csv: CsvConfig, text: str, expected: list[int]
) -> None:
    """The label was the first column of the training file, so the features are 1 and 2."""
    path = tmp_path / "in.csv"
    path.write_text(text)
    settings = replace(csv, header=False, label=0)
    found = read_inputs(path, InputFormat((2,), "float64", ("1", "2")), settings)
    np.testing.assert_array_equal(found.values, [expected])


def test_csv_pixels_become_images_in_the_order_of_the_model(tmp_path: Path, csv: CsvConfig) -> None:
    path = tmp_path / "in.csv"
    path.write_text("b,a,d,c\n2,1,4,255\n")
    expected = InputFormat((1, 2, 2), "uint8", ("a", "b", "c", "d"))
    found = read_inputs(path, expected, csv)
    np.testing.assert_array_equal(found.values, np.uint8([[[[1, 2], [255, 4]]]]), strict=True)
    path.write_text("a,b,c,d\n1,2,3,256\n")
    with pytest.raises(DataError, match="'d' holds 256; pixels are whole numbers from 0 to 255"):
        read_inputs(path, expected, csv)


# arrays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected", "shape"),
    [
        (np.ones((4, 2)), POINTS, (4, 2)),
        (np.ones((4, 2), np.int16), TABLE, (4, 2)),
        (np.ones((4, 1, 2, 3), np.uint8), GREY, (4, 1, 2, 3)),
        (np.ones((4, 2, 3), np.int64), GREY, (4, 1, 2, 3)),
    ],
    ids=["features", "whole numbers", "images", "grey images without a channel axis"],
)
def test_array_is_read_in_the_type_of_the_model(
    tmp_path: Path,
    spiral: DatasetVariant,
    array: np.ndarray,
    expected: InputFormat,
    shape: tuple[int, ...],
) -> None:
    np.save(tmp_path / "x.npy", array)
    found = read_inputs(tmp_path / "x.npy", expected, spiral).values
    assert (found.shape, str(found.dtype)) == (shape, expected.dtype)
    assert (found == 1).all()


@pytest.mark.parametrize(
    ("array", "expected", "message"),
    [
        (np.ones((4, 3)), POINTS, r"has the shape \(4, 3\), but the model needs \(N, 2\)"),
        (np.ones(2), POINTS, r"needs \(N, 2\); for one sample, save array\[None\]"),
        (np.ones((2, 3), np.uint8), GREY, r"shape \(2, 3\), but the model needs \(N, 1, 2, 3\)"),
        (np.array(1.0), POINTS, r"has the shape \(\)"),
        (np.ones((0, 2)), POINTS, "has 0 samples"),
        (np.array([[0, np.nan]]), POINTS, "sample 0, feature 1 is nan"),
        (np.array([[0, 1e39]]), TABLE, "sample 0, feature 1 is 1e"),
        (np.ones((1, 1, 2, 3)), GREY, "has float64 from 1 to 1; pixels are whole numbers"),
        (np.full((1, 1, 2, 3), 256), GREY, "from 256 to 256; pixels are whole numbers"),
        (np.array(["a"]), POINTS, "has the type <U1"),
        (np.array([{}], dtype=object), POINTS, "is no array of numbers"),
    ],
)
def test_array_that_does_not_fit_is_refused(
    tmp_path: Path, spiral: DatasetVariant, array: Any, expected: InputFormat, message: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / "x.npy", expected, spiral)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_damaged_array_is_refused(tmp_path: Path, spiral: DatasetVariant, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy is no array of numbers"):
        read_inputs(tmp_path / "x.npy", POINTS, spiral)


# images -------------------------------------------------------------------------------------------

PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10


def test_images_of_a_folder_are_read_sorted_by_name(tmp_path: Path, spiral: DatasetVariant) -> None:
    Image.fromarray(PIXELS[::-1]).save(tmp_path / "b.PNG")
    Image.fromarray(PIXELS).save(tmp_path / "a.bmp")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden").write_text("")
    found = read_inputs(tmp_path, COLOUR, spiral)
    expected = np.stack([PIXELS, PIXELS[::-1]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found.values, expected, strict=True)
    assert found.files == ("a.bmp", "b.PNG")
    assert found.notes == (f"{tmp_path}: not read, because they are no images: 'notes.txt'",)


@pytest.mark.parametrize("mode", ["L", "P", "LA"])
def test_grey_images_of_several_modes_are_read(
    tmp_path: Path, spiral: DatasetVariant, mode: str
) -> None:
    grey = PIXELS[..., 0]
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    found = read_inputs(tmp_path / "a.png", GREY, spiral)
    np.testing.assert_array_equal(found.values[0, 0], grey)


def test_image_of_another_size_is_refused_unless_it_is_resized(
    tmp_path: Path, spiral: DatasetVariant
) -> None:
    Image.fromarray(np.full((8, 6, 3), 90, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"image of 3x8x6, but the model needs 3x2x3 .*--resize"):
        read_inputs(tmp_path / "a.png", COLOUR, spiral)
    found = read_inputs(tmp_path / "a.png", COLOUR, spiral, resize=True)
    np.testing.assert_array_equal(found.values, np.full((1, 3, 2, 3), 90, np.uint8), strict=True)


def save(path: Path, mode: str, value: Any = 0) -> None:
    Image.new(mode, (3, 2), value).save(path)


@pytest.mark.parametrize(
    ("mode", "value", "expected", "message"),
    [
        ("RGB", (1, 1, 1), GREY, "is a colour image .3 channels.*trained on grey images"),
        ("L", 0, COLOUR, "is a grey image .1 channel.*trained on colour images"),
        ("RGBA", (1, 1, 1, 9), COLOUR, "has transparent pixels"),
        ("I;16", 0, GREY, "mode I;16"),
    ],
)
def test_image_with_other_channels_is_refused(
    tmp_path: Path,
    spiral: DatasetVariant,
    mode: str,
    value: Any,
    expected: InputFormat,
    message: str,
) -> None:
    save(tmp_path / "a.png", mode, value)
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / "a.png", expected, spiral)


def test_opaque_image_with_alpha_channel_is_read(tmp_path: Path, spiral: DatasetVariant) -> None:
    save(tmp_path / "a.png", "RGBA", (7, 8, 9, 255))
    found = read_inputs(tmp_path / "a.png", COLOUR, spiral).values
    assert found[0, :, 0, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"text", "is no image that Pillow can read"),
        ("a.png", None, "does not exist"),
        ("a.pdf", b"", "its kind is unknown"),
    ],
)
def test_file_that_is_no_image_is_refused(
    tmp_path: Path, spiral: DatasetVariant, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / name, COLOUR, spiral)


def test_truncated_image_is_refused(tmp_path: Path, spiral: DatasetVariant) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="is a damaged image"):
        read_inputs(path, COLOUR, spiral)


def test_inputs_of_another_kind_are_refused(tmp_path: Path, spiral: DatasetVariant) -> None:
    save(tmp_path / "a.png", "L")
    with pytest.raises(DataError, match="takes 2 features, not images"):
        read_inputs(tmp_path / "a.png", POINTS, spiral)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no image"):
        read_inputs(tmp_path / "empty", GREY, spiral)
    with pytest.raises(ConfigError, match="--resize applies to images"):
        read_inputs(tmp_path / "a.npy", GREY, spiral, resize=True)
