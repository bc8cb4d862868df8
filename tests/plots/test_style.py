"""The style of all plots: it has no global state and accepts any text without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from nnopt.errors import OutputError
from nnopt.plots import style
from nnopt.plots.run.curves import plot_schedule


def test_import_of_plots_does_not_import_matplotlib() -> None:
    program = (
        "import sys\n"
        "from nnopt.plots.run import curves, confusion, decision_boundary\n"
        "from nnopt.plots.run import weights, images, feature_maps, layer_statistics\n"
        "import nnopt.plots.sweep.draw\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_drawing_does_not_import_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from nnopt.plots.run.curves import plot_schedule\n"
        "plot_schedule(np.ones(9), 3, Path(sys.argv[1]), 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)


def test_drawing_neither_uses_nor_changes_user_settings(tmp_path: Path) -> None:
    plot_schedule(np.ones(9), 3, tmp_path / "a.png", "t")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        plot_schedule(np.ones(9), 3, tmp_path / "b.png", "t")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_into_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*missing/a\.png"):
        plot_schedule(np.ones(9), 3, tmp_path / "missing" / "a.png", "t")


def test_drawing_with_unwritable_home_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from nnopt.plots.run.curves import plot_schedule\n"
        "plot_schedule(np.ones(9), 3, Path(sys.argv[1]), 't')"
    )
    hidden = {"MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.png")],
        env={**environment, "HOME": str(tmp_path / "home")},
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain $x$ text", "plain $x$ text"),
        ("größe, ключ, λ → ✗", "größe, ключ, λ → ✗"),
        ("a\nb\x00", "a\\nb\\x00"),
        ("\udcff", "\\udcff"),
        ("\U000f0000", "\\U000f0000"),  # private use area: no font has this character
    ],
)
def test_missing_glyphs_are_replaced_by_codes(text: str, expected: str) -> None:
    assert style.readable(text) == expected


def test_long_text_is_cut() -> None:
    assert style.readable("abcdef", 6) == "abcdef"
    assert style.readable("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.9, 1.2e3, ["1", "10", "100", "1000"]),
        (1.1, 1.9, ["1.2", "1.4", "1.6", "1.8"]),
        (0.9, 25, ["1", "2", "5", "10", "20"]),
        (0.02, 2, ["0.03", "0.1", "0.3", "1"]),
        (0.9, 1.1e6, ["1", "10²", "10⁴", "10⁶"]),
        (1e-7, 2e-6, ["10⁻⁷", "2·10⁻⁷", "5·10⁻⁷", "10⁻⁶", "2·10⁻⁶"]),
        (1e-40, 1e20, ["10⁻⁴⁰", "10⁻²⁸", "10⁻¹⁶", "10⁻⁴", "10⁸", "10²⁰"]),
    ],
)
def test_log_scale_ticks_have_expected_texts(low: float, high: float, expected: list[str]) -> None:
    figure = matplotlib.figure.Figure()
    axes = figure.add_subplot()
    axes.set_ylim(low, high)
    style.log_scale(axes)
    figure.draw_without_rendering()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert [text.get_text() for value, text in ticks if low <= value <= high] == expected


def test_styles_of_classes_differ_in_colour_or_marker() -> None:
    """The first 88 classes have different styles. The first two colours differ in brightness."""
    styles = {
        (style.PALETTE[k % len(style.PALETTE)], style.MARKERS[k % len(style.MARKERS)])
        for k in range(88)
    }
    assert len(styles) == 88
    luminance = [style.rgb(colour) @ [0.299, 0.587, 0.114] for colour in style.PALETTE[:2]]
    assert abs(luminance[0] - luminance[1]) > 0.05
