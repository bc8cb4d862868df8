"""The look all plots share: no global state, no warnings, any text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from nnopt.errors import OutputError
from nnopt.plots import style
from nnopt.plots.schedule import plot_schedule


def test_importing_the_plots_does_not_import_matplotlib() -> None:
    program = (
        "import sys, nnopt.plots.curves, nnopt.plots.schedule, nnopt.plots.confusion\n"
        "import nnopt.plots.samples, nnopt.plots.decision_boundary, nnopt.plots.weights\n"
        "import nnopt.plots.filters, nnopt.plots.feature_maps, nnopt.plots.layer_statistics\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_pyplot_is_never_imported(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from nnopt.plots.schedule import plot_schedule\n"
        "plot_schedule(np.ones(9), 3, Path(sys.argv[1]), 't')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True)


def test_the_users_settings_neither_matter_nor_change(tmp_path: Path) -> None:
    plot_schedule(np.ones(9), 3, tmp_path / "a.png", "t")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        plot_schedule(np.ones(9), 3, tmp_path / "b.png", "t")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*missing/a\.png"):
        plot_schedule(np.ones(9), 3, tmp_path / "missing" / "a.png", "t")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    program = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from nnopt.plots.schedule import plot_schedule\n"
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
        ("\U000f0000", "\\U000f0000"),  # private use: no font has it
    ],
)
def test_readable(text: str, expected: str) -> None:
    assert style.readable(text) == expected


def test_readable_text_is_cut() -> None:
    assert style.readable("abcdef", 6) == "abcdef"
    assert style.readable("abcdefg", 6) == "abcde…"


def test_colours_differ_in_grey_or_by_marker() -> None:
    """Any two of the first 88 classes differ in colour or marker."""
    looks = {
        (style.PALETTE[k % len(style.PALETTE)], style.MARKERS[k % len(style.MARKERS)])
        for k in range(88)
    }
    assert len(looks) == 88
    luminance = [style.rgb(colour) @ [0.299, 0.587, 0.114] for colour in style.PALETTE[:2]]
    assert abs(luminance[0] - luminance[1]) > 0.05
