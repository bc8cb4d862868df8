"""The style of all plots, and functions that write figures to files quickly.

Figures are drawn on the Agg canvas, without pyplot and its global state. Measuring text is slow in
matplotlib. Therefore all positions are given in inches, and formulas are not typeset.
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

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Box = tuple[float, float, float, float]  # left, bottom, width, height in inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.ticker import Formatter, Locator

DPI = 110
CHARACTERS_PER_INCH = 9  # average for a title
BAR_WIDTH, BAR_GAP = 0.12, 0.1  # width of a colour bar and gap to the axes, in inches
LARGEST = 1e100  # larger values would overflow a log scale, and are treated as infinite

# The colours of Okabe and Ito (2008), which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, YELLOW, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "d", "*")  # 11, coprime to 8 colours

INK, FAINT, GRID, PALE = "#222222", "#6B6B6B", "#DDDDDD", "#F3F3F3"

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# For each character, the first installed font with a glyph is used.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Arial Unicode MS"),
)

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.03,  # without a fixed position, matplotlib measures every text
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
    "image.aspect": "auto",
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
    """Create a figure, let the caller draw into it, and write it to files.

    A file with the suffix ``.svg`` is an SVG, any other a PNG. The width and the height are in
    inches. The title is in the uppermost 0.45 inches and is cut at the width of the figure.

    Raises:
        OutputError: A file cannot be written.
    """
    matplotlib = load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's matplotlibrc has no effect
        matplotlib.rcParams.update(cast(dict[Any, Any], STYLE))
        matplotlib.rcParams["font.family"] = _installed_fonts()
        figure = Figure((width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        if title:
            shown = readable(title, int(width * CHARACTERS_PER_INCH))
            write(figure, 0.15, height - 0.15, shown, va="top", fontsize=12, weight="bold")
        yield figure
        encoded = {x: _encode(figure, x) for x in ([path] if isinstance(path, Path) else path)}
    for file, data in encoded.items():
        write_bytes(file, data)


def _encode(figure: Figure, path: Path) -> bytes:
    """Return the figure in the format of the suffix."""
    file = io.BytesIO()
    if path.suffix == ".svg":
        figure.savefig(file, format="svg", metadata={"Date": None})
    else:
        figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return file.getvalue()


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes to the figure. The arguments are the position and size of their frame, in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def figure_of(axes: Axes) -> Figure:
    """Return the figure that contains the axes."""
    return cast("Figure", axes.get_figure(root=True))


def box_of(axes: Axes) -> Box:
    """Return the position and size of the frame of axes in inches."""
    across, up = figure_of(axes).get_size_inches()
    left, bottom, width, height = axes.get_position().bounds
    return left * across, bottom * up, width * across, height * up


def write(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Draw a text at a position in inches from the lower left corner."""
    figure.text(x, y, text, transform=figure.dpi_scale_trans, **options)


def caption(axes: Axes, text: str) -> None:
    """Draw a title above the upper left corner of the axes, at a fixed distance from them."""
    left, bottom, _, height = box_of(axes)
    write(figure_of(axes), left, bottom + height + 0.08, text, fontsize=9.5, va="bottom")


def colour_bar(
    image: AxesImage, label: str = "", gap: float = BAR_GAP, height: float | None = None
) -> Colorbar:
    """Draw the colour scale of an image to the right of its axes, with the same upper edge.

    The gap to the axes and the height of the scale are in inches. By default, the scale is as high
    as the axes.
    """
    left, bottom, width, high = box_of(image.axes)
    height = high if height is None else height
    figure = figure_of(image.axes)
    axes = panel(figure, left + width + gap, bottom + high - height, BAR_WIDTH, height)
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_linewidth(0.5)
    bar.minorticks_off()
    axes.set_ylabel(label, fontsize=9)
    axes.yaxis.set_label_coords(1 + 0.55 / BAR_WIDTH, 0.5)
    return bar


def text_width(texts: Sequence[str], points: float = 9) -> float:
    """Return the approximate width in inches of the longest text."""
    return 0.0086 * points * max(map(len, texts), default=0)


def shape_text(shape: Sequence[int]) -> str:
    """Format a shape, as ``32×14×14``."""
    return "×".join(map(str, shape))


def label(axes: Axes, x: str, y: str, left: float = 0.55, below: float = 0.36) -> None:
    """Label both axes. left, below: distances of the labels from the frame, in inches."""
    _, _, width, height = box_of(axes)
    axes.set_xlabel(x)
    axes.xaxis.set_label_coords(0.5, -below / height)
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-left / width, 0.5)


def epoch_axis(axes: Axes, first: float, last: float) -> None:
    """Set the limits of the horizontal axis, with a margin, and ticks at integers."""
    margin = max(0.5, 0.03 * (last - first + 1))
    axes.set_xlim(first - margin, last + margin)
    few_ticks(axes.xaxis, 6, integer=True)


def few_ticks(axis: Axis, most: int = 5, integer: bool = False) -> None:
    """Set ticks at round numbers, as plain text without an offset or a common factor.

    ``most`` is the maximum number of intervals.
    """
    locator, formatter = round_ticks(most, integer)
    axis.set_major_locator(locator)
    axis.set_major_formatter(formatter)


def round_ticks(most: int = 5, integer: bool = False) -> tuple[Locator, Formatter]:
    """Return the tick locator and the formatter that ``few_ticks`` sets."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    fewest, steps = 1 if integer else 2, [1, 2, 2.5, 5, 10]
    locator = MaxNLocator(most, steps=steps, integer=integer, min_n_ticks=fewest)
    return locator, FuncFormatter(_plain)


def spans_decades(values: Floats, decades: float = 2) -> bool:
    """Return whether the positive values span more than ``decades`` powers of ten."""
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(len(positive) and positive.max() / 10**decades > positive.min())


def log_scale(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic. The limits of the axis must be final: they determine the ticks."""
    from matplotlib.ticker import NullLocator

    is_x = which == "x"
    axis: Axis = axes.xaxis if is_x else axes.yaxis
    set_scale = axes.set_xscale if is_x else axes.set_yscale
    set_scale("log", nonpositive="mask")
    locator, formatter = log_ticks(*axis.get_view_interval(), most=8 if is_x else 6)
    axis.set(major_locator=locator, minor_locator=NullLocator(), major_formatter=formatter)


def set_scale(axes: Axes, which: Literal["x", "y"], logarithmic: bool, most: int = 5) -> None:
    """Make an axis logarithmic or linear, and set the ticks. ``most``: see ``few_ticks``."""
    if logarithmic:
        log_scale(axes, which)
    else:
        few_ticks(axes.xaxis if which == "x" else axes.yaxis, most)


def log_ticks(low: float, high: float, most: int = 6) -> tuple[Locator, Formatter]:
    """Return a locator of about 3 to ``most`` ticks on a logarithmic axis, and a formatter.

    Ticks from 0.0001 to 10,000 are plain numbers, such as 0.01. If a tick is outside, all ticks are
    powers such as 10⁻⁶, in Unicode characters, because typesetting formulas is slow.
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
    """Return a number as text such as 10⁶ or 3·10⁻⁴; numbers from 1 to 99 have no power of ten."""
    factor, exponent = f"{value:.3e}".split("e")
    factor, power = f"{float(factor):g}", int(exponent)
    if power in (0, 1):
        return _plain(value, position)
    raised = "10" + str(power).translate(SUPERSCRIPTS)
    return raised if factor == "1" else f"{factor}·{raised}"


def readable(text: str, most: int | None = None) -> str:
    r"""Return the text, cut to at most ``most`` characters.

    A character without a glyph in the installed fonts is replaced by its code, such as \u732b.
    """
    if not text.isascii() or not text.isprintable():
        text = "".join(c if _has_glyph(c) else ascii(c)[1:-1] for c in text)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def evenly_spaced(count: int, most: int) -> Ints:
    """Return at most ``most`` evenly spaced indices of ``count`` items, with the first and last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def column_of(rows: Sequence[Any], name: str) -> Floats:
    """Return an attribute of all rows as an array, with NaN for missing and infinite values."""
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)
    values[~(np.abs(values) < LARGEST)] = np.nan
    return values


def rgb(colour: str) -> Floats:
    """Return the red, green and blue components, in [0, 1], of a colour such as "#0072B2"."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


@cache
def load_matplotlib() -> ModuleType:
    """Import matplotlib without the environment variable MPLBACKEND.

    The import would fail if the variable named an unknown backend. nnopt writes figures to files
    and shows none on a screen, so the variable is not needed.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if named is not None:
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
    """Return for each installed font the codes of its characters."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    names = _installed_fonts()
    return [get_font(findfont(FontProperties(family=name))).get_charmap() for name in names]


def _has_glyph(character: str) -> bool:
    code = ord(character)
    return character.isprintable() and any(code in charmap for charmap in _charmaps())
