"""Draw the picture of the README: the spiral, trained in both backends with learning rate 0.1.

    python docs/images/make.py

Writes spiral.png beside this file; takes a minute, most of it PyTorch's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnopt.backends import load_backend
from nnopt.config.compose import make_plan
from nnopt.plots import style
from nnopt.recipe.prepare import prepare
from nnopt.recipe.run import run
from nnopt.results.metrics import softmax
from nnopt.results.metrics_file import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 400
REACH = 1.1  # of the axes, to each side
FLOOR = 1e-17  # a difference of nothing, on a logarithmic axis
COLOURS = np.array([style.rgb(colour) for colour in style.PALETTE[:3]])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        losses = {
            (backend, dtype): train(backend, dtype, Path(folder) / f"{backend}-{dtype}")
            for backend in ("numpy", "torch")
            for dtype in ("float32", "float64")
        }
        weights = dict(np.load(Path(folder) / "numpy-float32" / "model_best.npz"))
    with style.drawing(Path(__file__).with_name("spiral.png"), 11.6, 3.9) as figure:
        draw_plane(style.panel(figure, 0.1, 0.1, 3.7, 3.7), weights)
        draw_losses(style.panel(figure, 4.6, 0.6, 3.0, 2.85), losses)
        draw_distance(style.panel(figure, 8.45, 0.6, 3.0, 2.85), losses)


def train(backend: str, dtype: str, folder: Path) -> np.ndarray:
    """The training loss of each epoch."""
    folder.mkdir()
    words = [f"backend={backend}", f"backend.dtype={dtype}", "plots=false"]
    words += ["optimizer.lr=0.1", "regularizer.grad_clip=0"]
    run(make_plan(words).points[0], folder)
    return np.array([row.train_loss for row in read_metrics(folder / "metrics.csv")])


def draw_plane(axes: Axes, weights: dict[str, np.ndarray]) -> None:
    """The plane in the classes' colours, mixed by their probabilities, with the test points."""
    config = make_plan([]).points[0].config
    prepared = prepare(config)
    dataset, test = prepared.dataset, prepared.dataset.test
    network = load_backend("numpy").build_network(prepared.architecture, config)
    network.load(weights)
    side = np.linspace(-REACH, REACH, GRID)
    plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    scaled = plane * dataset.normalization.scale + dataset.normalization.shift
    probabilities = softmax(network.predict(scaled.astype(np.float32)))
    image = 1 - 0.45 * (1 - probabilities @ COLOURS).reshape(GRID, GRID, 3)
    axes.imshow(image, extent=(-REACH, REACH, -REACH, REACH), origin="lower")
    for label, colour in enumerate(style.PALETTE[:3]):
        x, y = test.inputs[test.rows[test.labels[test.rows] == label]].T
        axes.plot(x, y, "o", color=colour, markersize=4.6, markeredgewidth=0.5, markeredgecolor="w")
    axes.axis("off")


def draw_losses(axes: Axes, losses: dict[tuple[str, str], np.ndarray]) -> None:
    epochs = np.arange(1, len(losses["numpy", "float32"]) + 1)
    numpy, torch = losses["numpy", "float32"], losses["torch", "float32"]
    axes.plot(epochs, numpy, color=style.SKY, linewidth=5, label="NumPy")
    axes.plot(epochs, torch, color=style.INK, linewidth=1.2, label="PyTorch")
    style.log_scale(axes)
    style.few_ticks(axes.xaxis, integer=True)
    style.label(axes, "epoch", "training loss")
    axes.set_title("one YAML, trained twice")
    axes.legend()


def draw_distance(axes: Axes, losses: dict[tuple[str, str], np.ndarray]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    for dtype, colour, form in (
        ("float32", style.VERMILLION, "--"),
        ("float64", style.BLUE, "-"),
    ):
        apart = np.abs(losses["numpy", dtype] - losses["torch", dtype])
        epochs = np.arange(1, len(apart) + 1)
        axes.plot(epochs, np.maximum(apart, FLOOR), form, color=colour, label=dtype)
    style.log_scale(axes)
    axes.set_ylim(FLOOR, 1)
    axes.yaxis.set_major_locator(FixedLocator([1e-16, 1e-12, 1e-8, 1e-4, 1]))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-").replace("e+00", ""))
    )
    style.few_ticks(axes.xaxis, integer=True)
    style.label(axes, "epoch", "difference of the two losses")
    axes.set_title("they differ by rounding")
    axes.legend(loc="upper right")


if __name__ == "__main__":
    main()
