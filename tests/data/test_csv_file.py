"""Datasets in CSV files."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from data_files import csv_config

from nnopt.data import csv_file, csv_rows
from nnopt.data.csv_rows import RowReader
from nnopt.data.source import Decoded
from nnopt.errors import ConfigError, DataError


def decode(root: Path, text: str, **changes: object) -> Decoded:
    (root / "train.csv").write_text(text, encoding="utf-8")
    return csv_file.locate(csv_config("train.csv", **changes), root, root).decode()


def test_features_and_whole_number_labels_are_read(tmp_path: Path) -> None:
    decoded = decode(tmp_path, "x,label,y\n1,5,2.5\n-3e2,1,0\n7,9,.5\n8,10,1\n")
    inputs, labels = decoded.parts["train"]
    assert inputs.dtype == np.float64
    assert inputs.tolist() == [[1, 2.5], [-300, 0], [7, 0.5], [8, 1]]
    assert decoded.classes == ("1", "5", "9", "10")  # sorted by value, not by spelling
    assert labels.tolist() == [1, 0, 2, 3]
    assert list(decoded.sources) == ["train.csv"]


def test_label_names_are_sorted(tmp_path: Path) -> None:
    decoded = decode(tmp_path, "kind,x\nNA,1\nbird,2\ncat dog,3\nNA,4\n", label="kind")
    assert decoded.classes == ("NA", "bird", "cat dog")
    assert decoded.parts["train"][1].tolist() == [0, 1, 2, 0]


def test_fashion_mnist_of_kaggle_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (30, 784)), np.arange(30) % 10
    header = ",".join(["label", *(f"pixel{k}" for k in range(1, 785))])
    lines = [",".join(map(str, [label, *row])) for label, row in zip(labels, pixels, strict=True)]
    decoded = decode(tmp_path, "\n".join([header, *lines]) + "\n")
    inputs, found = decoded.parts["train"]
    assert inputs.dtype == np.uint8
    assert inputs.shape == (30, 1, 28, 28)
    assert np.array_equal(inputs.reshape(30, 784), pixels)
    assert np.array_equal(found, labels)
    assert decoded.classes == tuple("0123456789")
    assert decoded.mean[0] == pytest.approx(pixels.mean(), rel=1e-14)


def test_file_longer_than_a_chunk_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "CHUNK_ROWS", 4)
    text = "label,x\n" + "".join(f"{k % 3},{k}\n" for k in range(11))
    inputs, labels = decode(tmp_path, text).parts["train"]
    assert inputs[:, 0].tolist() == list(range(11))
    assert labels.tolist() == [k % 3 for k in range(11)]
    with pytest.raises(DataError, match=r"row 10 .*column 'x' holds 'oops'"):
        decode(tmp_path, text.replace("0,9\n", "0,oops\n"))


def test_given_image_shape_is_used(tmp_path: Path) -> None:
    text = "label,a,b,c,d,e,f\n0,1,2,3,4,5,6\n1,0,0,0,0,0,255\n"
    inputs, _ = decode(tmp_path, text, shape=(3, 1, 2)).parts["train"]
    assert inputs.shape == (2, 3, 1, 2)
    assert inputs[0].tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert decode(tmp_path, text, shape=(6,)).parts["train"][0].shape == (2, 6)
    numbers = r"12 columns, .* has 6 in addition to the label; correct dataset\.shape$"
    with pytest.raises(DataError, match=r"shape=\[3, 2, 2\] means " + numbers):
        decode(tmp_path, text, shape=(3, 2, 2))
    with pytest.raises(ConfigError, match="allowed are"):
        decode(tmp_path, text, shape=(2, 3))
    with pytest.raises(ConfigError, match="2 pixel columns, which make no square"):
        decode(tmp_path, "label,pixel1,pixel2\n0,1,2\n")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", r"row 2 .*column 'y' holds ''"),
        ("nan", r"row 2 .*column 'y' holds '.*'; expected a finite"),
        ("inf", r"row 2 .*column 'y'"),
        ("1e300", r"row 2 .*column 'y'"),
        ("abc", r"row 2 .*column 'y' holds 'abc'"),
        ("True", r"row 2 .*column 'y' holds 'True'"),
        ("1,2", r"row 2 .*has 4 cells, but there are 3 columns; it begins with '1,3,1,2'"),
    ],
)
def test_bad_cell_is_refused_with_its_position(tmp_path: Path, cell: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode(tmp_path, f"label,x,y\n0,1,2\n1,3,{cell}\n0,5,6\n")


@pytest.mark.parametrize("cell", ["256", "-1", "0.5"])
def test_bad_pixel_is_refused_with_its_position(tmp_path: Path, cell: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 .*'pixel1' holds {cell}; pixels are whole"):
        decode(tmp_path, f"label,pixel1\n0,1\n1,{cell}\n")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0", "1.5", "1"], "label '1.5' in row 2 "),
        (["0", "", "1"], "label '' in row 2 "),
        (["cat", "nan", "dog"], "label 'nan' in row 2 "),
        (["0.0", "1.0", "2.5"], "label '2.5' in row 3 "),
        (["0", "-0.5", "1"], "label '-0.5' in row 2 "),
        (["cat", "do\x1b[31mg"], "label 'do.x1b.31mg' in row 2 .*without control"),
        (["cat", "do\u202eg"], "label 'do.u202eg' in row 2 .*reorder"),
        (["0", "1" * 5000], r"'1{60}'… \(4,940 more characters\) in row 2 .*at most 256"),
        (["0", '"a\nb"'], r"label 'a.nb' in row 2 .*on one line"),
    ],
)
def test_bad_label_is_refused_with_its_row(tmp_path: Path, labels: list[str], message: str) -> None:
    text = "label,x\n" + "".join(f"{label},1\n" for label in labels)
    with pytest.raises(DataError, match=message):
        decode(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "changes", "note"),
    [
        ("0,1,2\n5,6,0\n7,8,1\n", {"label": 2}, "is read as names"),
        ("0,1,2\n5,6,0\n7,8,1\n", {"label": 2, "header": False}, "is read as values"),
        ("a,label\n1,7\n2,007\n", {}, "labels '7', '007' are one class, 7"),
        ("id,label\n" + "".join(f"{k},{k % 2}\n" for k in range(3, 20)), {}, "counts the rows"),
    ],
)
def test_ambiguous_table_is_reported(
    tmp_path: Path, text: str, changes: dict[str, object], note: str
) -> None:
    (found,) = decode(tmp_path, text, **changes).notes
    assert note in found
    assert str(tmp_path) not in found


def test_error_about_missing_label_column_suggests_similar_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'label'.* include 'Label', "):
        decode(tmp_path, "Label,x,y,z,w\n0,1,2,3,4\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no CSV file"),
        (b"label,x\n", "0 rows"),
        (b"label\n1\n", "label, 'label', is the only column"),
        (b"label,x\n\xff\xfe,1\n", "not UTF-8"),
        (b"label,x\n0,1,2\n", "row 1 .*has 3 cells"),
        (b"label,x\n0,1\n1\n", "row 2 .*has 1 cells"),
        (b"\n\n \n", "it is empty"),
        (b"PAR1\x15\x04\x15\x00\x00\x80", "not UTF-8"),
        (b'label,x\n0,"1\n', "no CSV file"),
    ],
)
def test_file_that_is_not_a_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        csv_file.locate(csv_config("train.csv"), tmp_path, tmp_path).decode()


def test_file_with_byte_order_mark_and_crlf_is_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("\ufefflabel,x\r\n0,1\r\n1,2\r\n".encode())
    decoded = csv_file.locate(csv_config("train.csv"), tmp_path, tmp_path).decode()
    assert decoded.parts["train"][0].tolist() == [[1], [2]]


def test_test_file_with_other_columns_or_classes_than_training_file_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "test.csv").write_text("label,x\n1,4\n2,5\n")
    with pytest.raises(DataError, match=r"test\.csv: label '2' in row 2 .*no class"):
        decode(tmp_path, "label,x\n0,1\n1,2\n", test="test.csv")
    decoded = decode(tmp_path, "label,x\n0,1\n1,2\n2,3\n", test="test.csv")
    assert decoded.parts["test"][1].tolist() == [1, 2]
    assert list(decoded.sources) == ["train.csv", "test.csv"]
    with pytest.raises(DataError, match=r"test\.csv has other columns .* it lacks 'y'"):
        decode(tmp_path, "label,x,y\n0,1,1\n1,2,2\n2,2,2\n", test="test.csv")


def test_file_is_searched_in_root_and_then_in_working_folder(tmp_path: Path) -> None:
    root, working = tmp_path / "root", tmp_path / "working"
    root.mkdir()
    working.mkdir()
    with pytest.raises(DataError, match=r"dataset\.train=a\.csv not found.*root/a\.csv or .*worki"):
        csv_file.locate(csv_config("a.csv"), root, working)
    (working / "a.csv").write_text("label,x\n0,1\n")
    assert "working" in csv_file.locate(csv_config("a.csv"), root, working).location
    (root / "a.csv").write_text("label,x\n0,1\n")
    assert "root/a.csv" in csv_file.locate(csv_config("a.csv"), root, working).location
    (root / "a.csv").unlink()
    os.mkfifo(root / "a.csv")
    with pytest.raises(DataError, match="FIFO"):
        csv_file.locate(csv_config("a.csv"), root, working)


def test_repeated_column_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than one column 'label'"):
        decode(tmp_path, "label,x,label\n0,1,0\n1,2,1\n")


def test_file_with_too_long_name_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        csv_file.locate(csv_config("x" * 300), tmp_path, tmp_path)


# different numbers that are equal in float64 -----------------------------------------------------

MERGED = {
    "20 digits": ("12345678901234567890", "12345678901234567891"),
    "above 2^53": ("9007199254740993", "9007199254740992"),
    "20 decimals": ("0.12345678901234567890", "0.12345678901234567891"),
    "17 digits": ("0.90071992547409931", "0.90071992547409932"),
    "exponents": ("1.2345678901234567891e-7", "1.2345678901234567892E-7"),
    "one and slightly more than one": ("1", "1.00000000000000000001"),
    "below the smallest": ("1e-400", "2e-400"),
    "zero and below the smallest": ("0", "-1E-0400"),
    "zeros at the end": ("1700000000000000000", "1700000000000000001"),
    "digits on both sides of the point": ("12345678.123456781", "12345678.123456782"),
    "an exponent and no digits": ("1e21", "1000000000000000000001"),
    "zeros that are digits": ("0.33333333333333330000", "0.33333333333333333333"),
}
REMEDIES = {
    "subtract a constant from the column in all files, or leave the column out with ": [
        ("12345678901234567890", "12345678901234567891"),
        ("9007199254740993", "9007199254740992"),
        ("1e21", "1000000000000000000001.0"),
    ],
    "float64 keeps about 17 digits; leave the column out with ": [
        ("0.12345678901234567890", "0.12345678901234567891"),
        ("1", "1.00000000000000000001"),
        ("1700000000000000000.1", "1700000000000000000.2"),
    ],
    "float64 keeps fewer digits below 2.2e-308 and nothing below 5e-324; scale the column in all "
    "files, leave it out with ": [("0", "1e-400"), ("1e-320", "1.0000001e-320"), ("-1e-350", "0")],
}


@pytest.mark.parametrize("texts", MERGED.values(), ids=MERGED)
def test_different_numbers_that_are_equal_in_float64_are_reported(
    tmp_path: Path, texts: tuple[str, str]
) -> None:
    one, other = texts
    assert float(one) == float(other)
    assert Fraction(one) != Fraction(other)
    for values in ((one, other, "0.5"), (f'"{one}"', "0.25", f" {other}")):
        text = "".join(f"{k % 2},{k}.5,{value}\n" for k, value in enumerate(values))
        (note,) = decode(tmp_path, "label,x,long\n" + text).notes
        assert "column 'long' has different numbers" in note
        assert f"such as {min(texts)} and {max(texts)};" in note


@pytest.mark.parametrize(
    ("remedy", "texts"), [(remedy, pair) for remedy, pairs in REMEDIES.items() for pair in pairs]
)
def test_remedy_for_numbers_equal_in_float64_depends_on_the_numbers(
    tmp_path: Path, remedy: str, texts: tuple[str, str]
) -> None:
    text = "".join(f"{k % 2},{value}\n" for k, value in enumerate((*texts, "0.5")))
    (note,) = decode(tmp_path, "label,x\n" + text).notes
    end = "" if remedy.startswith("sub") else ", or ignore this if the difference does not matter"
    assert note.endswith(f"; {remedy}dataset.drop_columns=['x']{end}")
    assert ("above 2^53" in note) == remedy.startswith("sub")


def test_two_long_numbers_that_equal_a_short_one_in_float64_are_reported(tmp_path: Path) -> None:
    """The short text can stand for either of the two long numbers, which are equal in float64."""
    texts = ("0.3333333333333333", "0.33333333333333333333", "0.33333333333333333334")
    text = "".join(f"{k % 2},{value}\n" for k, value in enumerate(texts))
    (note,) = decode(tmp_path, "label,x\n" + text).notes
    assert f"such as {texts[1]} and {texts[2]};" in note


def test_file_whose_long_numbers_all_differ_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowReader, "_records", lambda reader: pytest.fail("read again"))
    values = np.random.default_rng(0).standard_normal(100).tolist()
    text = "".join(f"{k % 2},{value!r}\n" for k, value in enumerate(values))
    assert decode(tmp_path, "label,x\n" + text).notes == ()


EQUAL = {
    "one number": ("12345678901234567890", "12345678901234567890"),
    "zeros at the end": ("0.1", "0.10000000000000000000000"),
    "zeros before": ("1.5", "0000000000000000000001.50"),
    "with and without an exponent": ("1000000000000000000000", "1e21"),
    "digits of the same float64": ("0.1", "0.10000000000000001"),
    "more digits of the same float64": ("0.1000000000000000055511151231257827", "0.1"),
    "different float64": ("0.12345678901234567", "0.12345678901234569"),
    "an exponent beyond Decimal's": ("0", "0e-99999999999999999999"),
    "rounded down": ("0.3333333333333333", "0.33333333333333333333"),
    "cut off": ("0.6666666666666666", "0.66666666666666666667"),
    "rounded up": ("-7.3890560989306502E-9", "-7.38905609893065022723e-9"),
}


@pytest.mark.parametrize("texts", EQUAL.values(), ids=EQUAL)
def test_numbers_that_differ_in_float64_or_may_be_equal_are_not_reported(
    tmp_path: Path, texts: tuple[str, str]
) -> None:
    text = "".join(f"{k % 2},{value}\n" for k, value in enumerate((*texts, "0.5")))
    assert decode(tmp_path, "label,x\n" + text).notes == ()


def test_numbers_with_decimal_comma_that_are_equal_in_float64_are_reported(tmp_path: Path) -> None:
    text = "label;x\n0;0,12345678901234567890\n1;0,12345678901234567891\n0;1\n"
    (note,) = decode(tmp_path, text, decimal="comma").notes
    assert "column 'x' has different numbers" in note


def test_floats_written_by_numpy_are_not_reported(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(400).repeat(2)
    for form in ("%.18e", "%.17g", "%.25f"):
        text = "".join(f"{k % 2},{form % value}\n" for k, value in enumerate(values))
        assert decode(tmp_path, "label,x\n" + text).notes == ()
