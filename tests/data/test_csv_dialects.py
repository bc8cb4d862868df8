"""Tables that pandas writes in any dialect are read back unchanged."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data_files import csv_config
from hypothesis import given, settings
from hypothesis import strategies as st

from nnopt.data import csv_file
from nnopt.data.source import Decoded

FLOATS = st.floats(-3e38, 3e38, allow_nan=False)
WORDS = st.text(
    st.characters(blacklist_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Zs"]), min_size=1, max_size=8
).filter(lambda text: text.strip() == text and text.lower() != "nan")
NAMES = st.text("abcxyz;,|\"' é", min_size=1, max_size=6).map(str.strip).filter(bool)
MARKS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}


def decode(path: Path, **changes: object) -> Decoded:
    return csv_file.locate(csv_config(path.name, **changes), path.parent, path.parent).decode()


@given(data=st.data())
@settings(max_examples=40)
def test_table_written_by_pandas_is_read_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows, width = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 4)))
    names = data.draw(st.lists(NAMES, min_size=width, max_size=width, unique=True))
    names = [f"{name}_{number}" for number, name in enumerate(names)]
    values = np.array([[data.draw(FLOATS) for _ in range(width)] for _ in range(rows)])
    labels = [f"k{data.draw(WORDS)}" for _ in range(rows)]
    separator, decimal = data.draw(st.sampled_from(list(MARKS))), data.draw(st.sampled_from(".,"))
    place = data.draw(st.integers(0, width))
    frame = pd.DataFrame(values, columns=names)
    frame.insert(place, "label", labels)
    path = tmp_path_factory.mktemp("table") / "a.csv"
    options: dict[str, Any] = {
        "sep": separator,
        "decimal": decimal,
        "index": data.draw(st.booleans()),
        "quoting": data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "lineterminator": data.draw(st.sampled_from(["\n", "\r\n"])),
        "encoding": data.draw(st.sampled_from(["utf-8", "utf-8-sig"])),
    }
    frame.to_csv(path, **options)
    if data.draw(st.booleans()):
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = decode(
        path,
        separator=data.draw(st.sampled_from([None, MARKS[separator]])),
        decimal="point" if decimal == "." else "comma",
        drop_columns=(0,) if options["index"] else (),
    )
    inputs, numbers = found.parts["train"]
    assert inputs.tolist() == values.tolist()  # equal to the last bit
    assert [found.classes[number] for number in numbers] == labels
    assert list(found.features) == names


@given(data=st.data())
@settings(max_examples=40)
def test_columns_of_the_test_file_are_found_in_any_order(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [*data.draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)), "label"]
    values = np.arange(2 * len(names)).reshape(2, len(names))
    frame = pd.DataFrame(values, columns=names)
    folder = tmp_path_factory.mktemp("table")
    frame.to_csv(folder / "a.csv", index=False)
    order = data.draw(st.permutations(names))
    frame[order].to_csv(folder / "b.csv", index=False)
    found = decode(folder / "a.csv", test="b.csv", shape=(len(names) - 1,))
    assert found.parts["train"][0].tolist() == found.parts["test"][0].tolist()
    assert found.parts["train"][1].tolist() == found.parts["test"][1].tolist() == [0, 1]


@given(data=st.data())
@settings(max_examples=40)
def test_pixels_in_any_order_are_sorted(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    start = data.draw(st.integers(0, 3))
    side = data.draw(st.integers(1, 4))
    names = [f"pixel{number}" for number in range(start, start + side * side)]
    order = data.draw(st.permutations(range(side * side)))
    pixels = np.arange(2 * side * side).reshape(2, -1)
    frame = pd.DataFrame(pixels, columns=names)[[names[place] for place in order]]
    path = tmp_path_factory.mktemp("table") / "a.csv"
    frame.assign(label=[0, 1]).to_csv(path, index=False)
    assert decode(path).parts["train"][0].reshape(2, -1).tolist() == pixels.tolist()
