"""Parts of a report: thinned curves, embedded or linked plots, JSON, and the machine."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import unquote

import pytest
from PIL import Image

from nnopt.report.about import _machine
from nnopt.report.curves import MIN_EPOCHS, read_curves, short
from nnopt.report.page import as_json
from nnopt.report.plots import embed_or_link, plots_of
from nnopt.report.points import Point

Write = Callable[..., None]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.123456, 0.12346), (15.0, 15), (1e-7, 1e-7), (math.nan, None), (math.inf, None), (0, 0)],
)
def test_shortened_number_is_rounded_to_significant_digits(
    value: float, expected: float | None
) -> None:
    actual = short(value, 5)
    assert (actual, type(actual)) == (expected, type(expected))


def test_curves_of_runs_of_similar_length_keep_the_same_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_metrics: Write
) -> None:
    monkeypatch.setattr("nnopt.report.curves.MAX_PAGE_VALUES", 0)  # at most MIN_EPOCHS remain
    lengths = {"short": MIN_EPOCHS, "long": 10 * MIN_EPOCHS, "longer": 10 * MIN_EPOCHS + 3}
    for name, epochs in lengths.items():
        (tmp_path / name).mkdir()
        write_metrics(tmp_path / name, 1.0, epochs)
    found = read_curves([*((tmp_path / name, None) for name in lengths), None, (tmp_path, None)])
    assert found[3:] == [None, None]
    few, many, more = found[:3]
    assert few
    assert many
    assert more
    assert few.epochs == list(range(1, MIN_EPOCHS + 1))
    assert few.every == 1
    assert many.every == more.every == 16
    assert many.epochs == [*range(1, 200, 16), 200]
    assert more.epochs == [*range(1, 203, 16), 203]
    assert many.steps == [10 * epoch for epoch in many.epochs]
    assert many.seconds == [epoch / 2 for epoch in many.epochs]
    assert many.columns["lr"] == 0.1
    assert many.columns["validation_loss"] == [short(1 / epoch, 5) for epoch in many.epochs]


def test_plots_of_one_kind_are_all_embedded_or_all_linked(
    tmp_path: Path, write_plot: Write
) -> None:
    """The large plots of both points exceed the limit and are linked. All others are embedded."""
    for point in ("a #1", "b"):
        write_plot(tmp_path / point / "plots" / "confusion.png", 16)
        write_plot(tmp_path / point / "plots" / "weights.png", 256)
        write_plot(tmp_path / point / "plots" / "curves.png", 16)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "bars.svg").write_text("<svg/>")
    (tmp_path / "plots" / "bars.png").write_text("")
    (tmp_path / "plots" / "notes.txt").write_text("")
    sweep = plots_of(tmp_path)
    assert sweep == [tmp_path / "plots" / "bars.svg"]
    runs = [path for point in ("a #1", "b") for path in plots_of(tmp_path / point)]
    assert [path.stem for path in runs[:3]] == ["confusion", "weights", "curves"]
    page = tmp_path / "pages" / "page.html"
    found = embed_or_link(sweep, runs, page, 40_000)
    embedded = [path for path, source in found.items() if source.startswith("data:")]
    assert (len(embedded), len(found)) == (5, 7)
    assert found[sweep[0]] == "data:image/svg+xml;base64,PHN2Zy8+"
    for path in runs:
        source = found[path]
        if path.stem == "weights":
            assert (page.parent / unquote(source)).resolve() == path.resolve()
        else:
            picture = base64.b64decode(source.removeprefix("data:image/webp;base64,"))
            assert Image.open(io.BytesIO(picture)).size == (16, 16)


def test_plots_that_are_damaged_are_left_out(tmp_path: Path, write_plot: Write) -> None:
    write_plot(tmp_path / "plots" / "good.png")
    (tmp_path / "plots" / "bad.png").write_bytes(b"\x89PNG half of it")
    found = embed_or_link([], plots_of(tmp_path), tmp_path / "page.html", 10**6)
    assert [path.stem for path in found] == ["good"]


def test_json_does_not_close_the_script_element() -> None:
    assert as_json({"a": "</script><!--&"}) == ('{"a":"\\u003c/script\\u003e\\u003c!--\\u0026"}')


def test_description_of_machine_includes_accelerator() -> None:
    machine = {"cpu": "Xeon", "usable_cores": 2, "logical_cores": 4, "platform": "Linux"}
    plain = "Xeon, 2 of 4 cores, Linux"
    cases: list[tuple[dict[str, str] | None, str]] = [
        (None, plain),
        ({"device": "mps"}, f"mps, {plain}"),
        ({"device": "cuda:0", "name": "NVIDIA H200"}, f"NVIDIA H200, {plain}"),
    ]
    for accelerator, message in cases:
        summary = {"machine": machine | {"accelerator": accelerator}}
        assert _machine(cast(Point, SimpleNamespace(summary=summary))) == message
    before = cast(Point, SimpleNamespace(summary={"machine": machine}))
    assert _machine(before) == plain  # an older version wrote this summary without accelerator
