"""Names of pixel columns, and the order of the pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import csv_config

from nnopt.data.csv_columns import find_columns
from nnopt.errors import DataError

SHAPE = (1, 2, 2)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        ("pixel3 pixel1 pixel0 pixel2", "pixel0 pixel1 pixel2 pixel3"),
        ("px_10 PX_9 px_11 px_12", "PX_9 px_10 px_11 px_12"),
        ("2x1 1x1 2x2 1x2", "1x1 1x2 2x1 2x2"),
        ("pixelr4 pixelr1 pixelr3 pixelr2", "pixelr1 pixelr2 pixelr3 pixelr4"),
        ("pixel_r0_c1 pixel_r0_c0 pixel_r1_c1 pixel_r1_c0", None),
        ("pixel_a2 pixel_a1 pixel_b2 pixel_b1", None),
    ],
)
def test_pixel_columns_are_sorted_unless_their_names_have_an_unknown_form(
    names: str, ordered: str | None
) -> None:
    found = find_columns(["label", *names.split()], csv_config(train="a"), Path("a.csv"))
    assert found.shape == SHAPE
    assert " ".join(found.feature_names) == (ordered or names)


def test_column_names_with_row_and_column_numbers_give_image_shape() -> None:
    names = [f"{row}x{column}" for column in range(3) for row in range(2)]
    found = find_columns(["label", *names], csv_config(train="a"), Path("a.csv"))
    assert found.shape == (1, 2, 3)
    assert found.feature_names == sorted(names)


@pytest.mark.parametrize("names", ["v2 v1 v4 v3", "pixels pixelated x y", "x1 1 2 3"])
def test_columns_without_pixel_names_are_features_in_the_order_of_the_file(names: str) -> None:
    found = find_columns(["label", *names.split()], csv_config(train="a"), Path("a.csv"))
    assert (found.shape, found.feature_names) == ((), names.split())


@pytest.mark.parametrize("names", ["pixel5 pixel1 pixel2 pixel3", "px1 px2 px2_ px3"])
def test_gap_or_different_name_among_pixel_columns_is_refused(names: str) -> None:
    with pytest.raises(DataError, match=r"gaps or repeat|and also"):
        find_columns(["label", *names.split()], csv_config(train="a"), Path("a.csv"))
