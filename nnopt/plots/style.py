"""The look all plots share, and how a figure becomes a file, fast.

Figures are drawn straight on the Agg canvas, without pyplot and its global state. What makes
matplotlib slow is measuring text to find room for it, so margins are given in inches, titles and
axis labels have fixed places, and formulas are not typeset ("$" is an ordinary character).

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; line styles and
markers tell the same in grey.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from nnopt.io.atomic_files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter, Locator

DPI = 110
CHARACTERS_PER_INCH = 9  # of a title, on average
LARGEST = 1e100  # what exceeds it is as good as infinite, and would overflow a log scale

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "d", "*")  # 11, prime to the 8 colours

INK, FAINT, GRID, PALE = "#222222", "#6B6B6B", "#DDDDDD", "#F3F3F3"

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# Tried in this order for each character; those that are not installed are left out.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
)

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.03,  # a fixed place: else every text of the axes is measured first
    "axes.titlepad": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "nnopt",  # equal figures give equal bytes
}


@contextmanager
def drawing(
    path: Path | Sequence[Path], width: float, height: float, title: str = ""
) -> Iterator[Figure]:
    """A figure of so many inches, to be filled, then written to ``path``, or to each of several: as
    SVG where the suffix says so, else as PNG.

    The title takes the uppermost 0.45 inches, from the left. Raises OutputError.
    """
    matplotlib = load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says, the plots look the same
        matplotlib.rcParams.update(cast(dict[Any, Any], STYLE))
        matplotlib.rcParams["font.family"] = _installed_fonts()
        figure = Figure((width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        if title:
            most = int(width * CHARACTERS_PER_INCH)
            y = 1 - 0.15 / height
            figure.text(
                0.15 / width, y, readable(title, most), va="top", fontsize=12, weight="bold"
            )
        yield figure
        pictures = {x: _encoded(figure, x) for x in ([path] if isinstance(path, Path) else path)}
    for place, picture in pictures.items():
        write_bytes(place, picture)


def _encoded(figure: Figure, path: Path) -> bytes:
    """The figure as the file of this suffix holds it."""
    picture = io.BytesIO()
    if path.suffix == ".svg":
        figure.savefig(picture, format="svg", metadata={"Date": None})
    else:
        figure.savefig(picture, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return picture.getvalue()


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes whose frame lies so many inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def caption(figure: Figure, left: float, top: float, text: str) -> None:
    """A panel's title, above the upper edge of its frame, so many inches from the lower left."""
    across, up = figure.get_size_inches()
    figure.text(left / across, (top + 0.08) / up, text, fontsize=9.5, va="bottom")


def text_width(texts: Sequence[str], points: float = 9) -> float:
    """Inches that the longest of these takes, on average over its characters."""
    return 0.0086 * points * max(map(len, texts), default=0)


def title_width(title: str) -> float:
    """Inches of a figure whose title is not cut."""
    return (len(title) + 1) / CHARACTERS_PER_INCH


def label(axes: Axes, x: str, y: str, left: float = 0.55, below: float = 0.36) -> None:
    """Axis labels, so many inches left of and below the frame."""
    frame = axes.get_position()
    across, up = axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    axes.set_xlabel(x)
    axes.xaxis.set_label_coords(0.5, -below / (frame.height * up))
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-left / (frame.width * across), 0.5)


def few_ticks(axis: Axis, most: int = 5, integer: bool = False) -> None:
    """Round ticks, at most so many intervals, with plain numbers: no offset, no common factor."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    fewest = 1 if integer else 2
    steps = [1, 2, 2.5, 5, 10]
    axis.set_major_locator(MaxNLocator(most, steps=steps, integer=integer, min_n_ticks=fewest))
    axis.set_major_formatter(FuncFormatter(_plain))


def spans_decades(values: NDArray[np.float64], decades: float = 2) -> bool:
    """Does the largest positive value exceed the smallest by more than so many powers of ten?"""
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(len(positive) and positive.max() / 10**decades > positive.min())


def log_scale(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis over what has been drawn, with the ticks of ``log_ticks``."""
    from matplotlib.ticker import NullLocator

    axis: Axis
    if which == "x":
        axes.set_xscale("log", nonpositive="mask")
        axis, ticks = axes.xaxis, log_ticks(*axes.get_xlim(), most=8)
    else:
        axes.set_yscale("log", nonpositive="mask")
        axis, ticks = axes.yaxis, log_ticks(*axes.get_ylim())
    locator, formatter = ticks
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)


def log_ticks(low: float, high: float, most: int = 6) -> tuple[Locator, Formatter]:
    """About 3 to ``most`` ticks for a logarithmic axis, however few or many decades it spans.

    Numbers are plain from 0.0001 to 10,000, such as 0.01; beyond that all are powers, 10⁻⁶, in
    characters rather than typeset, which would be slow.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    plain = low >= 0.0001 and high < 20_000
    decades = np.log10(high) - np.log10(low)
    locator: Locator
    if decades < 0.8:
        locator = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    elif decades < 2.5:
        locator = LogLocator(subs=(1, 2, 5) if decades < 1.8 else (1, 3))
    else:
        locator = LogLocator(numticks=most)
    return locator, FuncFormatter(_plain if plain else _power)


def _plain(value: float, position: int) -> str:
    return f"{value:.10g}".replace("-", "−")


def _power(value: float, position: int) -> str:
    """10⁶, 3·10⁻⁴; 1 and 10 as they are."""
    factor, exponent = f"{value:.3e}".split("e")
    factor, power = f"{float(factor):g}", int(exponent)
    if power in (0, 1):
        return _plain(value, position)
    raised = "10" + str(power).translate(SUPERSCRIPTS)
    return raised if factor == "1" else f"{factor}·{raised}"


def readable(text: str, most: int | None = None) -> str:
    """``text`` as the fonts at hand can show it, in at most so many characters.

    Characters without a glyph become their code, like \\u732b.
    """
    if not text.isascii() or not text.isprintable():
        text = "".join(c if _has_glyph(c) else ascii(c)[1:-1] for c in text)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def rgb(colour: str) -> NDArray[np.float64]:
    """Red, green and blue in 0..1 of a colour like "#0072B2"."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


@cache
def load_matplotlib() -> ModuleType:
    """Import matplotlib without the backend that the environment names.

    No figure is shown, and a name that matplotlib does not know would make its import fail.
    """
    named = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib
    finally:
        if named is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = named
    return matplotlib


@cache
def _installed_fonts() -> list[str]:
    load_matplotlib()
    from matplotlib.font_manager import fontManager

    present = {font.name for font in fontManager.ttflist}
    return [name for name in FONTS if name in present]


@cache
def _charmaps() -> list[Collection[int]]:
    """For each font, the codes of the characters it has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    names = _installed_fonts()
    return [get_font(findfont(FontProperties(family=name))).get_charmap() for name in names]


def _has_glyph(character: str) -> bool:
    code = ord(character)
    return character.isprintable() and any(code in charmap for charmap in _charmaps())
