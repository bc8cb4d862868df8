"""CSV files of many origins, each with the expected results or message."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command

from nnopt.data.load import _decode


def run(attempt: Command, workplace: Path, *arguments: str, folder: str = "out") -> dict[str, Any]:
    """Train on CSV files, and return the summary of the run."""
    attempt("run", "dataset=csv", f"hydra.run.dir={folder}", *arguments).is_done()
    summary: dict[str, Any] = json.loads((workplace / folder / "summary.json").read_text())
    return summary


def write_table(path: Path, header: str, rows: np.ndarray) -> None:
    lines = [",".join(f"{value:g}" for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")


TRAIN = ("epochs=10", "batch_size=8", "plots=false")


@pytest.fixture
def two_labels(workplace: Path) -> None:
    """Write a table of x, a label determined by x, and a random label."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 200)
    table = np.stack([x, x > 0, random.integers(0, 2, 200)], axis=1)
    write_table(workplace / "two.csv", "x,decided,chance", table)


@pytest.mark.usefixtures("two_labels")
def test_cache_entry_depends_on_the_label_column(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = *TRAIN, f"backend={backend}", "dataset.train=two.csv"
    accuracies = [
        run(attempt, workplace, *overrides, f"dataset.label={label}", folder=f"{number}-{label}")
        for number, label in enumerate(["decided", "chance", "decided"])
    ]
    first, other, again = (summary["test_accuracy"] for summary in accuracies)
    assert first > 0.9
    assert other < 0.8
    assert again == first


@pytest.mark.usefixtures("two_labels")
def test_sweep_over_label_columns_learns_the_label_of_each_point(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = *TRAIN, f"backend={backend}", "dataset.train=two.csv", "hydra.sweep.dir=out"
    attempt("run", "-m", "dataset=csv", *overrides, "dataset.label=decided,chance").is_done()
    accuracies = {
        summary["config"]["dataset"]["label"]: summary["test_accuracy"]
        for path in (workplace / "out").glob("*/summary.json")
        for summary in [json.loads(path.read_text())]
    }
    assert accuracies["decided"] > 0.9
    assert accuracies["chance"] < 0.8


def test_swapped_training_and_test_files_give_swapped_parts(
    attempt: Command, workplace: Path, backend: str
) -> None:
    """The network predicts class 0. Its accuracy is the fraction of class 0 in the test file."""
    shares = {"fold1": 0.7, "fold2": 0.9}
    for fold, share in shares.items():
        table = np.stack([np.zeros(40), np.arange(40) >= 40 * share], axis=1)
        write_table(workplace / f"{fold}.csv", "x,label", table)
    for train, test in (("fold1", "fold2"), ("fold2", "fold1")):
        overrides = *TRAIN, f"dataset.train={train}.csv", f"dataset.test={test}.csv"
        summary = run(attempt, workplace, *overrides, f"backend={backend}", folder=train)
        assert summary["test_accuracy"] == pytest.approx(shares[test])


# The same table in other forms -------------------------------------------------------------------

ROWS = 60
X, Y = np.random.default_rng(3).uniform(-1, 1, (2, ROWS)).round(3)
KIND = np.where(X + Y > 0, 1, 0)


def table(
    separator: str = ",",
    header: str = "x,y,label",
    row: Callable[[float, float, int], list[Any]] = lambda x, y, kind: [x, y, kind],
    end: str = "",
) -> str:
    """Return the table of X, Y and KIND; ``row`` formats the cells of a row."""
    lines = [header.replace(",", separator)] if header else []
    lines += [separator.join(map(str, row(*cells))) for cells in zip(X, Y, KIND, strict=True)]
    return "".join(f"{line}{end}\n" for line in lines)


def packed(name: str, text: str, *others: str) -> bytes:
    """Return a ZIP archive of a file ``name`` with content ``text``, and empty files ``others``."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, text)
        for other in others:
            archive.writestr(other, "")
    return file.getvalue()


def with_comma(number: float) -> str:
    return str(number).replace(".", ",")


LEARN = ("epochs=3", "batch_size=8", "plots=false", "dataset.train=a.csv")

SAME: dict[str, tuple[str | bytes, list[str]]] = {
    "semicolons": (table(";"), []),
    "tabs": (table("\t"), []),
    "pipes": (table("|"), []),
    "tab before a name with a semicolon": (
        table("\t", header="label\t;x\ty", row=lambda x, y, k: [k, x, y]),
        [],
    ),
    "semicolon set": (table(";"), ["dataset.separator=semicolon"]),
    "Excel's line about the separator": ("sep=;\n" + table(";"), []),
    "decimal commas": (
        table(";", row=lambda x, y, k: [with_comma(x), with_comma(y), k]),
        ["dataset.decimal=comma"],
    ),
    "quoted decimal commas": (
        table(row=lambda x, y, k: [f'"{with_comma(x)}"', f'"{with_comma(y)}"', k]),
        ["dataset.decimal=comma"],
    ),
    "gzip": (gzip.compress(table().encode()), []),
    "ZIP": (packed("t/a.csv", table(), "__MACOSX/t/._a.csv", "readme.md"), []),
    "no header": (table(header=""), ["dataset.header=false", "dataset.label=2"]),
    "no header, last column": (table(header=""), ["dataset.header=false", "dataset.label=-1"]),
    "label by its place": (table(), ["dataset.label=2"]),
    "label called 784": (table(header="x,y,784"), ["dataset.label=784"]),
    "labels 0.0 and 1.0": (table(row=lambda x, y, k: [x, y, f"{k}.0"]), []),
    "labels -1 and +1": (table(row=lambda x, y, k: [x, y, ["-1", "+1"][k]]), []),
    "labels 007 and 7": (
        table(row=lambda x, y, k: [x, y, ["3", "7" if x > 0 else "007"][k]]),
        [],
    ),
    "separator at the end of the header": (table(header="x,y,label,"), []),
    "separator at the end of each line": (table(end=","), ["dataset.drop_columns=[3]"]),
    "index of pandas": (
        table(header=",x,y,label", row=lambda x, y, k: [int(x * 999), x, y, k]),
        ["dataset.drop_columns=[0]"],
    ),
    "column to drop": (
        table(header="name,x,y,label", row=lambda x, y, k: ['"a, b"', x, y, k]),
        ["dataset.drop_columns=[name]"],
    ),
    "quoted cells": (table(header='"x","y","label"', row=lambda *c: [f'"{x}"' for x in c]), []),
    "spaces, blank lines, CR LF and a byte order mark": (
        ("\ufeff\n \n" + table(header="x, y, label").replace("\n", "\r\n\r\n")).encode(),
        [],
    ),
    "NaN-free names as labels": (table(row=lambda x, y, k: [x, y, ["NA", "null"][k]]), []),
}


def losses(attempt: Command, workplace: Path, *overrides: str, folder: str = "out") -> Any:
    summary = run(attempt, workplace, *overrides, folder=folder)
    return [summary[key] for key in ("test_loss", "test_accuracy", "final_train_loss")]


@pytest.mark.parametrize(("content", "overrides"), SAME.values(), ids=SAME)
def test_csv_dialects_give_equal_losses(
    attempt: Command, workplace: Path, backend: str, content: str | bytes, overrides: list[str]
) -> None:
    (workplace / "a.csv").write_text(table())
    expected = losses(attempt, workplace, *LEARN, f"backend={backend}", folder="expected")
    content = content.encode() if isinstance(content, str) else content
    (workplace / "a.csv").write_bytes(content)
    _decode.cache_clear()
    assert losses(attempt, workplace, *LEARN, f"backend={backend}", *overrides) == expected


# Tables that are refused -------------------------------------------------------------------------

PIXELS = ",".join(f"pixel{k}" for k in range(4))

REFUSED: dict[str, tuple[str | bytes, list[str], int, str]] = {
    "name twice after a blank line": ("\nlabel,a,label\n0,1,1\n", [], 3, "one column 'label'"),
    "name twice after spaces": ("label,a, a\n0,1,1\n", [], 3, "one column 'a'"),
    "index of pandas": (",a,label\n0,1,0\n1,2,1\n", [], 3, "dataset.drop_columns=[0]"),
    "index read and written": ("Unnamed: 0,a,label\n0,1,0\n", [], 3, "dataset.drop_columns=[0]"),
    "column without a name": ("a,,label\n0,1,0\n", [], 3, "column 2 of 3 has no name"),
    "id with pixels": (f"id,{PIXELS},label\n0,1,2,3,4,5\n", [], 3, "dataset.drop_columns=[id]"),
    "gap in the pixels": ("pixel0,pixel1,pixel2,pixel4,label\n1,2,3,4,0\n", [], 3, "have gaps"),
    "semicolons and a wrong label": ("a;b\n0;1\n", [], 3, "no column 'label'"),
    "two possible separators": (
        "1;5,2;5,0\n",
        ["dataset.header=false", "dataset.label=2"],
        2,
        "comma or",
    ),
    "decimal commas": ("a;label\n1,5;0\n", [], 3, "dataset.decimal=comma"),
    "thousands": (
        "a;label\n1.234,5;0\n",
        ["dataset.decimal=comma"],
        3,
        "column 'a' holds '1.234,5'",
    ),
    "point among decimal commas": ("a;label\n1.5;0\n", ["dataset.decimal=comma"], 3, "'1.5'"),
    "no header": ("0,0,1\n5,6,2\n", ["dataset.label=2"], 3, "dataset.header=false"),
    "no header, all names differ": ("5.1,3.5,1\n5,6,2\n", ["dataset.label=2"], 3, "header=false"),
    "no header, no label": ("5.1,3.5,setosa\n5,6,a\n", [], 3, "dataset.header=false"),
    "header but header=false": (
        "a,label\n1,0\n",
        ["dataset.header=false", "dataset.label=1"],
        3,
        "dataset.header=true",
    ),
    "label without a header": ("1,0\n", ["dataset.header=false"], 2, "give a number from 0 to 1"),
    "drop of an unknown column": (
        "a,label\n1,0\n",
        ["dataset.drop_columns=[c]"],
        3,
        "'c' (dataset.drop_columns)",
    ),
    "drop of the label": (
        "a,label\n1,0\n",
        ["dataset.drop_columns=[label]"],
        2,
        "column of labels",
    ),
    "label of 5,000 digits": (f"a,label\n1,{'7' * 5000}\n", [], 3, "at most 256 characters"),
    "cell of 200,000 digits": (
        f"a,label\n{'7' * 200_000},1\n",
        [],
        3,
        "field limit",
    ),
    "header field of 200 KB": (f"{'a' * 200_000},label\n1,1\n", [], 3, "field limit"),
    "line of 20 MB": ("a,label\n" + "1" * 20_000_000 + ",1\n", [], 3, "16,777,216 characters"),
    "quotation mark never closed": ('a,label\n1,"x\n2,y\n', [], 3, "quotation mark"),
    "quotation mark never closed in a number": ('a,label\n"1,x\n2,y\n', [], 3, "mark"),
    "quotation mark never closed in the header": ('a,"label\n1,0\n', [], 3, "never closed"),
    "quotation mark not doubled": ('a,label\n1,"x" y"\n', [], 3, "quotation mark"),
    "row too long": ("a,label\n1,0\n1,0,0\n", [], 3, "row 2 (counted after the header) has 3"),
    "row too short": ("a,label\n1,0\n1\n", [], 3, "has 1 cells, but there are 2 columns"),
    "ZIP of two tables": (packed("a.csv", "", "b.csv"), [], 3, "2 CSV files ('a.csv', 'b.csv')"),
    "ZIP without a table": (packed("xl/book.xml", ""), [], 3, "no CSV file"),
    "damaged gzip": (gzip.compress(table().encode())[:-9], [], 3, "cannot be unpacked"),
    "xz": (b"\xfd7zXZ\x00", [], 3, "unpack it"),
    "order of channels of features": (table(), ["dataset.shape_order=hwc"], 2, "has features"),
    "escape sequence in a label": ("a,label\n1,\x1b[31m\n", [], 3, r"label '\x1b[31m'"),
    "labels that are quantities": ("a,label\n1,0.5\n2,1.5\n", [], 3, "a quantity is no class"),
    "empty label": ("a,label\n1,0\n2,\n", [], 3, "label '' in row 2"),
    "empty file": ("", [], 3, "is empty"),
    "header alone": ("a,label\n", [], 3, "0 rows"),
    "UTF-16": ("a,label\n1,0\n".encode("utf-16"), [], 3, "not UTF-8 text, perhaps UTF-16"),
    "UTF-16 without its mark": ("a,label\n1,0\n".encode("utf-16-le"), [], 3, "perhaps UTF-16"),
    "labels in exponents": ("a,label\n1,1e3\n2,2e3\n", [], 3, "in digits, such as 1000"),
    "commas in thousands": ('a,label\n"1,000",0\n', [], 3, "if it separates thousands"),
    "other name of the label": ("a,class\n1,0\n", [], 3, "its columns are 'a', 'class'"),
    "comment above the header": ("# a\na,label\n1,0\n", [], 3, "if it has none, delete it"),
}


@pytest.mark.parametrize(
    ("content", "overrides", "code", "fragment"), REFUSED.values(), ids=REFUSED
)
def test_malformed_csv_table_is_refused(
    attempt: Command,
    workplace: Path,
    content: str | bytes,
    overrides: list[str],
    code: int,
    fragment: str,
) -> None:
    content = content.encode() if isinstance(content, str) else content
    (workplace / "a.csv").write_bytes(content)
    result = attempt("run", "dataset=csv", *LEARN, *overrides)
    result.is_refused(code, fragment, "a.csv")
    assert len(result.err) < 1000


# Two files ---------------------------------------------------------------------------------------


def test_reordered_test_columns_are_matched_by_name(
    attempt: Command, workplace: Path, backend: str
) -> None:
    (workplace / "a.csv").write_text(table())
    orders = {"b.csv": "x,y,label", "c.csv": "label,y,x"}
    for name, header in orders.items():
        order = [("x", "y", "label").index(column) for column in header.split(",")]
        text = table(header=header, row=lambda *cells, order=order: [cells[k] for k in order])
        (workplace / name).write_text(text)
    overrides = *LEARN, f"backend={backend}"
    one, other = (
        losses(attempt, workplace, *overrides, f"dataset.test={name}", folder=name[:1])
        for name in orders
    )
    assert one == other


OTHER_COLUMNS = {
    "missing": ("x,label", "it lacks 'y'"),
    "extra": ("x,y,z,label", "it has also 'z'"),
    "other names": ("x,Y,label", "it lacks 'y' and it has also 'Y'"),
    "no labels": ("x,y", "test files without labels cannot be used"),
}


@pytest.mark.parametrize(("header", "fragment"), OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_csv_test_file_with_other_columns_is_refused(
    attempt: Command, workplace: Path, header: str, fragment: str
) -> None:
    (workplace / "a.csv").write_text(table())
    (workplace / "b.csv").write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    attempt("run", "dataset=csv", *LEARN, "dataset.test=b.csv").is_refused(3, "b.csv", fragment)


def test_csv_test_file_equal_to_the_training_file_is_reported(
    attempt: Command, workplace: Path, backend: str
) -> None:
    (workplace / "a.csv").write_text(table())
    overrides = *LEARN, f"backend={backend}", "dataset.validation.source=none", "test_weights=last"
    result = attempt("run", "dataset=csv", *overrides, "dataset.test=a.csv")
    result.is_done("60 of 60 test samples have the same inputs as a training sample")


def test_repeated_csv_rows_are_reported(attempt: Command, workplace: Path, backend: str) -> None:
    rows = "".join(f"{k % 3},{k % 3},{k % 2}\n" for k in range(60))
    (workplace / "a.csv").write_text("x,y,label\n" + rows)
    attempt("run", "dataset=csv", *LEARN, f"backend={backend}").is_done("12 of 12 test samples")


# Pixels ------------------------------------------------------------------------------------------


def images(order: list[int], names: list[str]) -> str:
    """Return a table of images whose class depends on pixel 2; ``order`` permutes the columns."""
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (80, 12))
    labels = np.arange(80) % 2
    values[:, 2] = np.where(labels, 255, 0)
    lines = [",".join(["label", *(names[k] for k in order)])]
    lines += [
        ",".join(map(str, [label, *row[order]])) for label, row in zip(labels, values, strict=True)
    ]
    return "\n".join(lines) + "\n"


NUMBERED = [f"pixel{k}" for k in range(12)]
BY_TEXT = sorted(range(12), key=str)
LAYERS = "[{conv2d: {channels: 4, kernel: 1}}, relu, flatten, {dense: classes}]"
CONVOLVE = ("architecture=layers", f"architecture.layers={LAYERS}")
ROWS_AND_COLUMNS = [f"{k // 4 + 1}x{k % 4 + 1}" for k in range(12)]
FROM_ONE = [f"Pixel_{k + 1:03}" for k in range(12)]
OTHERS = [f"p{k}" for k in range(12)]
SHAPE = ["dataset.shape=[1,3,4]"]
AS_IMAGES: dict[str, tuple[str, list[str]]] = {
    "columns in text order": (images(BY_TEXT, NUMBERED), SHAPE),
    "reversed": (images(list(range(12))[::-1], NUMBERED), SHAPE),
    "numbers from 1 on": (images(BY_TEXT, FROM_ONE), SHAPE),
    "rows and columns": (images(BY_TEXT, ROWS_AND_COLUMNS), []),
    "other numbered names": (images(BY_TEXT, OTHERS), SHAPE),
    "other names": (images(list(range(12)), list("abcdefghijkl")), SHAPE),
}


@pytest.mark.parametrize(("text", "overrides"), AS_IMAGES.values(), ids=AS_IMAGES)
def test_reordered_pixels_give_equal_images(
    attempt: Command, workplace: Path, backend: str, text: str, overrides: list[str]
) -> None:
    overrides = [*LEARN, *CONVOLVE, f"backend={backend}", *overrides]
    (workplace / "a.csv").write_text(images(list(range(12)), NUMBERED))
    expected = losses(attempt, workplace, *overrides, "dataset.shape=[1,3,4]", folder="expected")
    (workplace / "a.csv").write_text(text)
    _decode.cache_clear()
    assert losses(attempt, workplace, *overrides) == expected


def test_csv_pixels_with_channels_last_give_equal_images(
    attempt: Command, workplace: Path, backend: str
) -> None:
    overrides = *LEARN, *CONVOLVE, f"backend={backend}", "dataset.shape=[3,2,2]"
    (workplace / "a.csv").write_text(images(list(range(12)), list("abcdefghijkl")))
    expected = losses(attempt, workplace, *overrides, folder="expected")
    last = [channel * 4 + pixel for pixel in range(4) for channel in range(3)]
    (workplace / "a.csv").write_text(images(last, list("abcdefghijkl")))
    _decode.cache_clear()
    assert losses(attempt, workplace, *overrides, "dataset.shape_order=hwc") == expected


# Precision ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", ["standard", "unit"])
def test_network_learns_to_distinguish_times_less_than_a_minute_apart(
    attempt: Command, workplace: Path, backend: str, dtype: str, rule: str
) -> None:
    seconds = np.random.default_rng(0).permutation(np.arange(300) % 60)
    lines = [f"{1_700_000_000 + second},{int(second > 30)}" for second in seconds]
    (workplace / "a.csv").write_text("time,label\n" + "\n".join(lines) + "\n")
    overrides = "plots=false", "epochs=20", "dataset.train=a.csv", f"dataset.normalization={rule}"
    overrides = *overrides, f"backend={backend}", f"backend.dtype={dtype}"
    assert run(attempt, workplace, *overrides)["test_accuracy"] > 0.95


@pytest.mark.parametrize(("dtype", "warns"), [("float32", True), ("float64", False)])
def test_csv_values_merged_by_float32_are_reported(
    attempt: Command, workplace: Path, backend: str, dtype: str, warns: bool
) -> None:
    lines = [f"{1_700_000_000 + k},{k % 2}" for k in np.random.default_rng(0).permutation(60)]
    (workplace / "a.csv").write_text("time,label\n" + "\n".join(lines) + "\n")
    overrides = f"backend={backend}", f"backend.dtype={dtype}", "dataset.normalization=none"
    result = attempt("run", "dataset=csv", *LEARN, *overrides, "optimizer.lr=1e-30")
    assert ("feature 'time' " in result.err) == warns, result.err
    assert ("different values, but only" in result.err) == warns


# A sweep that is moved ---------------------------------------------------------------------------


@pytest.fixture
def moved_sweep(attempt: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a sweep of seeds 0 and 1, delete the point of seed 1, and move sweep and CSV file.

    Return the folder that contains both.
    """
    project = workplace / "before"
    project.mkdir()
    (project / "a.csv").write_text(table())
    monkeypatch.chdir(project)
    overrides = "dataset=csv", *LEARN, "seed=0,1", "hydra.sweep.dir=sweeps/s", "data.root=data"
    attempt("run", "-m", *overrides).is_done()
    (one,) = project.glob("sweeps/s/*-s1-*")
    shutil.rmtree(one)
    project.rename(workplace / "after")
    monkeypatch.chdir(workplace)
    _decode.cache_clear()
    return workplace / "after"


@pytest.mark.parametrize("overrides", [(), ("seed=2",)], ids=["what is missing", "more points"])
def test_resume_command_completes_sweep_moved_with_its_csv(
    attempt: Command, workplace: Path, moved_sweep: Path, overrides: tuple[str, ...]
) -> None:
    attempt("resume", "after/sweeps/s", *overrides).is_done()
    summaries = [json.loads(x.read_text()) for x in moved_sweep.glob("sweeps/s/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["done"] * (2 + len(overrides))
    assert len({tuple(summary["data"]["sources"].values()) for summary in summaries}) == 1
    assert not (workplace / "before").exists()


def test_resume_command_on_moved_sweep_with_changed_csv_is_refused(
    attempt: Command, moved_sweep: Path
) -> None:
    (moved_sweep / "a.csv").write_text(table().replace("0.1", "0.2"))
    attempt("resume", "after/sweeps/s").is_refused(4, "a.csv", "changed since")
