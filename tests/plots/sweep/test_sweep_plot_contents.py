"""The contents of the plots of a sweep, for ordinary and extreme results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnopt.analysis.comparison import Comparison, compare_runs
from nnopt.plots import style
from nnopt.plots.sweep.by_key import plot_by_key
from nnopt.plots.sweep.curves import LearningCurves, line_of, plot_sweep_curves, values_of
from nnopt.plots.sweep.groups import choose_axis, group_settings, is_logarithmic
from nnopt.plots.sweep.heat_map import heat_map_keys, plot_heat_map
from nnopt.plots.sweep.labels import COLOURS, key_labels, value_labels
from nnopt.plots.sweep.layout import UNNAMED_COLOUR
from nnopt.plots.sweep.means import plot_means
from nnopt.plots.sweep.metric import axis_limits
from nnopt.plots.sweep.parallel import plot_parallel
from nnopt.results.collect import Run, Value
from nnopt.results.metrics_file import EpochRow

CheckPng = Callable[[Path], np.ndarray]
Figures = list[Figure]

T_2 = 4.302652729911275  # 97.5 % quantile of Student's t with two degrees of freedom


def run_of(settings: Mapping[str, Value], seed: int = 0, **metrics: float | str) -> Run:
    """Return a run with these settings and metrics. The default ``status`` is "done"."""
    status = str(metrics.pop("status", "done"))
    numbers = {key: float(value) for key, value in metrics.items()} if status == "done" else {}
    return Run(Path("x"), seed, status, None, {**settings}, numbers, frozenset(), float(seed))


def compared(runs: Sequence[Run], metric: str = "test_accuracy") -> Comparison:
    return compare_runs(runs, [metric])


def grid(**metrics: Callable[[float, float], float]) -> list[Run]:
    """Return a run for each pair of learning rate and L2. Each metric is a function of the pair."""
    return [
        run_of(
            {"regularizer.l2": l2, "optimizer.lr": lr},
            **{name: metric(lr, l2) for name, metric in metrics.items()},
        )
        for l2, lr in product((0.0, 1e-3, 1e-2), (0.01, 0.1))
    ]


def history(losses: Sequence[float], validation: bool = True) -> list[EpochRow]:
    return [
        EpochRow(
            epoch=k + 1,
            step=k + 1,
            lr=0.1,
            train_loss=loss,
            train_accuracy=0.5,
            validation_loss=2 * loss if validation else None,
            validation_accuracy=1 - loss / 10 if validation else None,
            penalty=0.0,
            gradient_norm=1.0,
            seconds=0.1,
        )
        for k, loss in enumerate(losses)
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def note_of(figure: Figure) -> str:
    """Return the footnote. The figure lists its lines from bottom to top."""
    faint = [text for text in figure.texts if text.get_fontsize() == 8.5]
    return " ".join(text.get_text() for text in reversed(faint))


def lines_of(axes: Axes, colour: str) -> list[tuple[list[float], list[float]]]:
    return [
        ([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()])  # type: ignore[union-attr]
        for line in axes.lines
        if line.get_color() == colour
    ]


# curves -------------------------------------------------------------------------------------------


def test_line_has_mean_and_band_over_seeds() -> None:
    values = np.array([[4.0, 3, 2, np.nan], [2, 2, np.nan, np.nan], [3, 1, 6, 5]])
    line = line_of(values, logarithmic=False)
    np.testing.assert_allclose(line.centre, [3, 2, 4, 5])
    np.testing.assert_allclose(line.high - line.centre, [1, 1, np.nan, np.nan])  # √(2 / (3 - 1))
    np.testing.assert_allclose(line.centre - line.low, [1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(line.complete, [True, True, False, False])
    geometric = line_of(np.array([[0.1, 1.0], [10.0, 1.0]]), logarithmic=True)
    np.testing.assert_allclose(geometric.centre, [1, 1])
    deviation = np.std(np.log([0.1, 10]), ddof=1)
    np.testing.assert_allclose(geometric.low, [np.exp(-deviation), 1])
    alone = line_of(np.array([[1.0, 2.0]]), logarithmic=False)
    assert np.isnan([*alone.low, *alone.high]).all()


def test_histories_of_different_lengths_are_padded() -> None:
    seeds = [history([1.0, 0.5]), history([1.0]), history([1e200, 0.5])]
    found = values_of(seeds, "train_loss")
    np.testing.assert_array_equal(found, [[1, 0.5], [1, np.nan], [np.nan, 0.5]])
    np.testing.assert_allclose(values_of(seeds[:1], "validation_accuracy"), [[90, 95]])


def curves_of(comparison: Comparison, *losses: Sequence[Sequence[float]]) -> list[LearningCurves]:
    """Return the curves of a comparison; ``losses`` has, for each row, the losses of each seed."""
    return [
        LearningCurves(row, tuple(map(history, seeds)), diverged=not row.setting.runs)
        for row, seeds in zip(comparison.rows, losses, strict=True)
    ]


def test_sweep_curves_contain_mean_and_band(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    runs = [run_of({"optimizer": "adam"}, seed, test_accuracy=0.9 + seed / 100) for seed in (0, 1)]
    runs.append(run_of({"optimizer": "sgd"}, test_accuracy=0.5))
    runs.append(run_of({"optimizer": "zero"}, status="diverged"))
    seeds = ([[1.0, 0.8, 0.6], [0.8, 0.6]], [[0.9, 0.9, 0.9]], [[1.0, 1.5, float("nan")]])
    comparison = compared(runs)
    plot_sweep_curves(comparison, curves_of(comparison, *seeds), [tmp_path / "a.png"])
    check_png(tmp_path / "a.png")
    loss, accuracy = figures[0].axes
    assert loss.get_ylabel() == "training loss (mean per sample)"
    assert accuracy.get_ylabel() == "validation accuracy (%)"
    thin, whole = lines_of(loss, style.BLUE)
    assert thin == ([1, 2, 3], pytest.approx([0.9, 0.7, 0.6]))
    assert whole[1][:2] == pytest.approx([0.9, 0.7])
    assert np.isnan(whole[1][2])  # the second seed has ended earlier
    band = loss.collections[1].get_paths()[0].vertices  # collection 0 has the grey lines
    spread = np.std([1.0, 0.8], ddof=1)
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.7 - spread, 0.9 + spread))
    (cross,) = [line for line in loss.lines if line.get_marker() == "X"]
    assert (cross.get_xdata(), cross.get_ydata()) == ([2], [loss.get_ylim()[1]])
    assert 1 < loss.get_ylim()[1] < 1.2  # the diverged loss does not stretch the axis
    labels = texts(figures[0])
    assert labels[0] == "Learning curves: 3 settings"
    assert [text for text in labels if text in ("optimizer", "adam", "sgd")]
    assert "90.50 ± 0.71" in labels
    assert "1 diverged" in labels
    note = note_of(figures[0])
    assert note.startswith("mean ± 1 standard deviation (band) over 1 to 2 seeds a setting")
    assert "thin: the mean of the seeds that have not stopped; ✗ diverged" in note


def test_only_the_best_of_many_sweep_curves_have_labels(tmp_path: Path, figures: Figures) -> None:
    runs = [run_of({"batch_size": n}, test_loss=n / 100) for n in range(1, 13)]
    comparison = compared(runs, "test_loss")
    losses = [[[1.0, n / 1000]] for n in range(1, 13)]
    plot_sweep_curves(comparison, curves_of(comparison, *losses), [tmp_path / "a.png"])
    loss, validation = figures[0].axes
    assert validation.get_ylabel() == "validation loss (mean per sample)"
    assert loss.get_yscale() == "log"
    grey = loss.collections[0]
    assert isinstance(grey, LineCollection)
    assert len(grey.get_segments()) == 5
    labels = texts(figures[0])
    assert labels[0] == "Learning curves: the best 7 of 12 settings"
    assert "5 other settings" in labels
    assert {str(n) for n in range(1, 8)} <= set(labels)
    assert "8" not in labels
    assert note_of(figures[0]) == "1 seed a setting"
    styles = {
        (line.get_color(), line.get_linestyle(), line.get_marker())
        for line in loss.lines
        if line.get_marker()
    }
    assert len({marker for _, _, marker in styles} - {"", "None"}) == 7


def test_sweep_curves_without_validation_show_training(tmp_path: Path, figures: Figures) -> None:
    comparison = compared([run_of({}, test_accuracy=0.5)])
    course = LearningCurves(
        comparison.rows[0], (history([1.0, 0.5], validation=False),), diverged=False
    )
    plot_sweep_curves(comparison, [course], [tmp_path / "a.png"])
    assert figures[0].axes[1].get_ylabel() == "training accuracy (%)"
    assert texts(figures[0])[0] == "Learning curves"


# means --------------------------------------------------------------------------------------------


def test_means_plot_contains_mean_interval_and_seeds(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    values = {"adam": (0.90, 0.92, 0.94), "rmsprop": (0.80, 0.81, 0.85), "sgd": (0.88,)}
    runs = [
        run_of({"optimizer": name}, seed, test_accuracy=value)
        for name, found in values.items()
        for seed, value in enumerate(found)
    ]
    runs += [run_of({"optimizer": "sgd"}, 7, status="diverged")]
    runs += [run_of({"optimizer": "zero"}, n, status="failed") for n in range(2)]
    plot_means(compared(runs), [tmp_path / "a.png"])
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "test accuracy (%)"
    assert lines_of(axes, style.VERMILLION) == [(pytest.approx([92]), [0])]  # the star
    means = [x[0] for x, _ in lines_of(axes, style.BLUE)]
    assert means == pytest.approx([82, 88])
    interval = lines_of(axes, style.INK)[0]
    half = T_2 * 2 / 3**0.5
    assert interval == (pytest.approx([92 - half, 92 + half]), [0, 0])
    assert lines_of(axes, style.SKY)[1] == (pytest.approx([80, 81, 85]), [-1] * 3)
    labels = texts(figures[0])
    assert labels[0] == "Test accuracy of 4 settings"
    for text in ("92.0 ± 2.0", "88", "1, 1 diverged", "2 failed", "mean ± std"):
        assert text in labels
    assert note_of(figures[0]) == (
        "mean and its 95 % interval over 1 to 3 seeds a setting; faint: single seeds; ★ best mean"
    )


def test_means_plot_of_generalization_gap_shows_negative_end_of_interval(
    tmp_path: Path, figures: Figures
) -> None:
    """All gaps are positive, but the interval of their mean contains negative values."""
    values = {"adam": (0.001, 0.002, 0.012), "sgd": (0.004, 0.005, 0.009)}
    runs = [
        run_of({"optimizer": name}, seed, generalization_gap=value)
        for name, found in values.items()
        for seed, value in enumerate(found)
    ]
    plot_means(compared(runs, "generalization_gap"), [tmp_path / "a.png"])
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "generalization gap (percentage points)"
    ends, _ = lines_of(axes, style.INK)[0]
    gaps = 100 * np.array(values["adam"])
    half = T_2 * gaps.std(ddof=1) / 3**0.5
    assert ends == pytest.approx([gaps.mean() - half, gaps.mean() + half])
    assert axes.get_xlim()[0] < ends[0] < 0


def test_means_plot_of_many_settings_shows_the_best(tmp_path: Path, figures: Figures) -> None:
    runs = [run_of({"batch_size": n}, test_loss=n / 100) for n in range(100, 141)]
    runs.append(run_of({"batch_size": 1}, status="failed"))
    plot_means(compared(runs, "test_loss"), [tmp_path / "a.png"])
    labels = texts(figures[0])
    assert labels[0] == "Test loss of the best 30 of 42 settings"
    assert "129" in labels
    assert "130" not in labels
    assert note_of(figures[0]) == (
        "1 seed a setting; ★ best mean; the other 11: 1.3 to 1.4; 1 more have no value"
    )


def test_outlier_among_means_does_not_stretch_the_axis(tmp_path: Path, figures: Figures) -> None:
    accuracies = {"a": 0.1, "b": 0.981, "c": 0.982, "d": 0.983, "e": 0.984}
    runs = [run_of({"name": name}, test_accuracy=x) for name, x in accuracies.items()]
    plot_means(compared(runs), [tmp_path / "a.png"])
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert 97 < low < 98.1
    assert 98.4 < high < 99
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert list(arrow.get_xdata()) == [low]
    assert "◀ mean below the axis" in note_of(figures[0])


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ([1, 2, 3, 4], "higher", (1, 4)),
        ([-90, 2, 3, 4, 5], "higher", (-7, 5)),  # -7 = 2 - 3 (5 - 2); 2: lower quartile, 5: maximum
        ([1, 2, 3, 4, 90], "lower", (1, 13)),
        ([1, 2, 3, 4, 90], None, (1, 90)),
        ([1, 90], "lower", (1, 90)),
        ([5, 5, 5, 5], "lower", (5, 5)),
        ([5, float("nan"), float("inf")], "higher", (5, 5)),
        ([], "higher", (0, 1)),
    ],
)
def test_axis_limits_ignore_outliers(
    values: list[float], direction: str | None, expected: tuple[float, float]
) -> None:
    assert axis_limits(values, direction) == expected


# labels -------------------------------------------------------------------------------------------


def test_labels_of_keys_and_values_are_short_and_distinct() -> None:
    assert key_labels(["optimizer", "optimizer.lr"]) == ("optimizer", "lr")
    assert key_labels(["a.name", "b.name", "c.x"]) == ("a.name", "b.name", "x")
    layers = tuple(f"{{dense: {n}}}" for n in range(30))
    settings: list[dict[str, Value]] = [
        {"a": layers, "b": None, "c": 0.123456789, "d": (64, 32)},
        {"a": (*layers, "tanh"), "b": True, "c": 1e-05},
        {"a": (), "b": "text", "c": 0.0, "d": (64,)},
    ]
    rows = compared([run_of(values, test_accuracy=0.5) for values in settings]).rows
    labels = {value_labels(row, ["b", "c", "d"]) for row in rows}
    expected = {("null", "0.1235", "[64, 32]"), ("true", "1e-05", "–"), ("text", "0", "[64]")}
    assert labels == expected
    first, second = (text for row in rows if len(text := value_labels(row, ["a"])[0]) > 2)
    assert first != second
    assert max(len(first), len(second)) <= 24


# heat map -----------------------------------------------------------------------------------------


def images(figure: Figure) -> list[np.ndarray]:
    """Return the values (Y, X) of each heat map, the lowest row first."""
    return [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in figure.axes if axes.images]


def test_heat_map_contains_means(tmp_path: Path, figures: Figures, check_png: CheckPng) -> None:
    runs = grid(test_accuracy=lambda lr, l2: 0.9 - l2 - lr / 10)
    runs[-1] = run_of(runs[-1].settings, status="diverged")
    comparison = compared(runs)
    keys = heat_map_keys(comparison)
    assert keys == ("optimizer.lr", "regularizer.l2")
    plot_heat_map(comparison, keys, [tmp_path / "a.png"])
    check_png(tmp_path / "a.png")
    (shown,) = images(figures[0])
    np.testing.assert_allclose(shown, [[89.9, 89], [89.8, 88.9], [88.9, np.nan]])
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["89.9", "89.0", "89.8", "88.9", "88.9"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.001", "0.01"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1"]
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    (hatched,) = [box for box in boxes if box.get_hatch()]
    assert (hatched.get_x(), hatched.get_y()) == (0.5, 1.5)
    (frame,) = [box for box in boxes if to_hex(box.get_edgecolor()) == style.ORANGE.lower()]
    assert (round(frame.get_x()), round(frame.get_y())) == (0, 0)
    assert note_of(figures[0]) == "1 seed; darker is better; frame: best; hatched: no run finished"


def test_values_of_other_keys_are_facets_of_the_heat_map(tmp_path: Path, figures: Figures) -> None:
    def runs_of(others: Sequence[Any]) -> list[Run]:
        return [
            run_of({**run.settings, "batch_size": other}, test_loss=run.metrics["test_loss"] + k)
            for k, other in enumerate(others)
            for run in grid(test_loss=lambda lr, l2: 1 + lr + l2)
        ]

    keys = ("optimizer.lr", "regularizer.l2")
    plot_heat_map(compared(runs_of([8, 16]), "test_loss"), keys, [tmp_path / "a.png"])
    first, second = images(figures[0])
    np.testing.assert_allclose(second - first, np.ones((3, 2)))
    assert "batch_size=8" in texts(figures[0])
    plot_heat_map(compared(runs_of(range(8)), "test_loss"), keys, [tmp_path / "b.png"])
    (mean,) = images(figures[1])
    np.testing.assert_allclose(mean, first + 3.5)
    assert "mean over 8 settings of batch_size; 1 seed a setting" in note_of(figures[1])


def test_heat_map_keys_are_numeric_keys_that_fill_enough_cells() -> None:
    def keys(values: Sequence[tuple[Value, Value]]) -> tuple[str, str] | None:
        return heat_map_keys(
            compared([run_of({"a": a, "b": b}, test_accuracy=0.5) for a, b in values])
        )

    # The longer axis is horizontal.
    assert keys(list(product((1, 2), (1, 2, 3)))) == ("b", "a")
    assert keys(list(product((1, 2), (None, 2, 3)))) == ("b", "a")
    assert keys([(k, k) for k in range(5)]) is None  # only a fifth of the cells is filled
    assert keys(list(product((1, 2), ("x", "y")))) is None
    assert keys(list(product((1, 2), (True, False)))) is None
    assert keys(list(product((1, 2), (None, 3)))) is None


# parallel coordinates -----------------------------------------------------------------------------


def test_parallel_plot_contains_an_axis_for_each_key(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    runs = [
        run_of({"optimizer": name, "optimizer.lr": lr, "batch_size": size}, test_loss=lr * size)
        for name, lr, size in product(("adam", "sgd"), (0.1, 0.2), (1, 4))
    ]
    runs.append(run_of({**runs[0].settings, "batch_size": 9}, status="failed"))
    plot_parallel(compared(runs, "test_loss"), [tmp_path / "a.png"])
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    lost, weak, strip = axes.collections
    assert isinstance(lost, LineCollection)
    assert isinstance(weak, LineCollection)
    assert isinstance(strip, LineCollection)
    assert len(lost.get_segments()) == 1
    assert len(weak.get_segments()) == 8 - 3
    strong = [line for line in axes.lines if line.get_linewidth() == 2.8]
    assert len(strong) == 3
    ends = [float(np.asarray(line.get_ydata())[-1]) for line in strong]
    assert max(ends) == pytest.approx(1)  # the lowest loss is on top
    names = [text.get_text() for text in axes.texts]
    for text in ("optimizer", "lr", "batch_size", "test loss", "mean per sample", "adam", "0.2"):
        assert text in names
    assert "no result" in names
    assert note_of(figures[0]) == "1 seed; darker is better; broad: the best 3"


def test_parallel_plot_of_random_numbers_is_to_scale(tmp_path: Path, figures: Figures) -> None:
    draw = np.random.default_rng(0)
    runs = [
        run_of(
            {"optimizer.lr": float(10**x), "regularizer.dropout": x / 5, "batch_size": k},
            test_accuracy=0.5 + x / 10,
        )
        for k, x in enumerate(draw.uniform(0.5, 3, 12))
    ]
    plot_parallel(compared(runs), [tmp_path / "a.png"])
    (axes,) = figures[0].axes
    lines = axes.collections[1]
    assert isinstance(lines, LineCollection)
    # The logarithm of the learning rate, the dropout rate and the accuracy are linear functions of
    # x, so a line has the same height on their axes.
    for line in lines.get_segments():
        on = {int(x): y for x, y in np.asarray(line) if x in (0, 1, 2, 3)}
        assert on[0] == pytest.approx(on[1], abs=1e-9)
        assert on[0] == pytest.approx(on[3], abs=1e-9)


# by key -------------------------------------------------------------------------------------------


def draw_by_key(comparison: Comparison, folder: Path) -> None:
    grouping = group_settings(comparison)
    assert grouping is not None
    plot_by_key(comparison, grouping, [folder / "a.png"])


def settings_grid(**values: Sequence[Value]) -> list[Run]:
    """Return a run for each combination of values. ``__`` in a name means a dot."""
    names = [name.replace("__", ".") for name in values]
    return [
        run_of(dict(zip(names, row, strict=True)), test_accuracy=0.5 + n / 1000)
        for n, row in enumerate(product(*values.values()))
    ]


def test_axis_is_the_numeric_key_with_the_most_values() -> None:
    def chosen(**values: Sequence[Value]) -> str | None:
        axis = choose_axis(compared(settings_grid(**values)))
        return axis and axis.key

    assert chosen(batch_size=[1, 2, 3], optimizer__lr=[0.1, 0.2]) == "batch_size"
    assert chosen(batch_size=[1, 2, 3], optimizer__lr=[0.1, 0.2, 0.3]) == "optimizer.lr"
    assert chosen(batch_size=range(1, 7), optimizer__lr=[1, 2, 3, 4]) == "optimizer.lr"
    assert chosen(a=range(4), b=range(5)) == "b"
    assert chosen(a=range(4), b=range(4)) == "a"
    assert chosen(optimizer=["sgd", "adam"], regularizer__l2=[None, 0.1, 0.2]) == "regularizer.l2"
    assert chosen(optimizer=["sgd", "adam"], flip=[True, False]) is None
    assert chosen(optimizer=["sgd", "adam"], optimizer__lr=["auto", 0.1]) is None


def test_numeric_key_that_rises_along_with_the_axis_does_not_separate_lines() -> None:
    pairs = [(16, 0.4), (32, 0.2), (64, 0.1), (128, 0.1)]
    runs = [
        run_of({"batch_size": size, "optimizer.lr": lr, "optimizer": name}, test_accuracy=lr)
        for (size, lr), name in product(pairs, ("sgd", "adam"))
    ]
    grouping = group_settings(compared(runs))
    assert grouping is not None
    assert (grouping.axis.key, grouping.keys) == ("batch_size", ("optimizer",))
    assert grouping.along == ("optimizer.lr",)
    assert [[row.setting.values["optimizer"] for row in group] for group in grouping.groups] == [
        ["adam"] * 4,
        ["sgd"] * 4,
    ]
    runs[0] = run_of({**runs[0].settings, "optimizer.lr": 0.1}, test_accuracy=0.5)
    grouping = group_settings(compared(runs))
    assert grouping is not None
    assert grouping.keys == ("optimizer", "optimizer.lr")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 1], True),
        ([16, 32, 64, 128], True),
        ([1, 2, 3, 4], False),
        ([0.1, 0.2, 0.3], False),
        ([-1, 1, 10], False),
        ([0, 1e-5, 1e-4, 1e-3], True),
        ([0, 0.1, 0.3, 0.5], False),
        ([0, 1], False),
    ],
)
def test_axis_is_logarithmic_if_values_allow_it(values: list[float], expected: bool) -> None:
    assert is_logarithmic(values) is expected


def test_plot_by_key_contains_a_line_and_a_band_for_each_setting(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    runs = [
        run_of({"optimizer": name, "optimizer.lr": lr}, seed, test_accuracy=0.9 - lr + seed / 100)
        for name, lr, seed in product(("adam", "sgd"), (0.01, 0.1, 0.5), (0, 1, 2))
        if not (name == "sgd" and lr == 0.5)
    ]
    runs += [run_of({"optimizer": "sgd", "optimizer.lr": 0.5}, status="diverged")]
    runs += [run_of({"optimizer": "adam", "optimizer.lr": "auto"}, test_accuracy=0.88)]
    draw_by_key(compared(runs), tmp_path)
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning rate (optimizer.lr)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.01", "0.1", "0.5"]
    adam, sgd = lines_of(axes, style.BLUE), lines_of(axes, style.VERMILLION)
    assert ([0.01, 0.1, 0.5], pytest.approx([90, 81, 41])) in adam
    assert ([0.01, 0.1], pytest.approx([90, 81])) in sgd
    assert ([0.5], [axes.get_ylim()[0]]) in sgd  # the cross
    half = T_2 * 1 / 3**0.5
    bands = [x for x in axes.collections if isinstance(x, PolyCollection)]
    assert [to_hex(x.get_facecolor()[0]) for x in bands] == [  # type: ignore[index]
        style.BLUE.lower(),
        style.VERMILLION.lower(),
    ]
    corners = bands[0].get_paths()[0].vertices
    for lr, mean in ((0.01, 90), (0.1, 81), (0.5, 41)):
        heights = corners[np.isclose(corners[:, 0], lr), 1]  # type: ignore[index, call-overload]
        assert (heights.min(), heights.max()) == pytest.approx((mean - half, mean + half))
    ((_, automatic),) = lines_of(axes, style.FAINT)
    assert automatic == pytest.approx([88, 88])
    note = note_of(figures[0])
    assert "grey dashes: optimizer.lr=auto; ★ best mean; ✗ no run finished" in note
    assert "▼" not in note
    assert "best at" in texts(figures[0])


def test_zero_is_left_of_a_logarithmic_axis(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    runs = [
        run_of({"regularizer.l2": l2}, seed, test_accuracy=0.5 + l2 + seed / 100)
        for l2, seed in product((0, 1e-4, 1e-3, 1e-2), (0, 1, 2))
    ]
    draw_by_key(compared(runs), tmp_path)
    check_png(tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "log"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0", "0.0001", "0.001", "0.01"]
    zero = axes.get_xticks()[0]
    assert axes.get_xlim()[0] < zero < 1e-4
    lines = lines_of(axes, style.BLUE)
    assert ([1e-4, 1e-3, 1e-2], pytest.approx([51.01, 51.1, 52])) in lines
    assert ([zero], [pytest.approx(51)]) in lines
    assert "//" in [text.get_text() for text in axes.texts]


def test_evenly_spaced_values_have_a_linear_axis(tmp_path: Path, figures: Figures) -> None:
    draw_by_key(compared(settings_grid(depth=range(1, 6))), tmp_path)
    (axes,) = figures[0].axes
    assert axes.get_xscale() == "linear"
    assert [label.get_text() for label in axes.get_xticklabels()] == list("12345")


def test_only_the_best_of_many_lines_are_named(tmp_path: Path, figures: Figures) -> None:
    runs = settings_grid(norm=["a", "b"], optimizer=[*"uvwxyz"], batch_size=[8, 16, 32])
    draw_by_key(compared(runs), tmp_path)
    shown = texts(figures[0])
    assert "Test accuracy by batch_size: the best 7 of 12 lines" in shown
    assert {"norm", "optimizer", "5 other lines"} <= set(shown)
    assert len([x for x in figures[0].axes[0].lines if x.get_color() == UNNAMED_COLOUR]) >= 5


def test_random_search_is_drawn_as_dots(tmp_path: Path, figures: Figures) -> None:
    rates = np.geomspace(1e-5, 1, 30)
    sizes = np.random.default_rng(0).permutation(30)
    runs = [
        run_of({"optimizer.lr": float(lr), "batch_size": int(n)}, test_loss=float(1 / lr))
        for n, lr in zip(sizes, rates, strict=True)
    ]
    draw_by_key(compared(runs, "test_loss"), tmp_path)
    (axes,) = figures[0].axes
    assert axes.get_yscale() == "log"
    dots = lines_of(axes, style.BLUE)
    assert sorted(x[0] for x, _ in dots) == pytest.approx(rates.tolist())
    assert lines_of(axes, style.INK) == [([pytest.approx(1)], [pytest.approx(1)])]  # the star
    assert note_of(figures[0]) == "1 seed a setting; every dot a setting; ★ best mean"


def ends_of_tick_labels(axes: Axes) -> list[tuple[float, float]]:
    """Return the left and the right end of the label of each tick, from left to right."""
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    labels = [x for x in axes.get_xticklabels() if low <= x.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return sorted((box.x0, box.x1) for box in boxes)


@pytest.mark.parametrize("step", [0, 3])
def test_labels_of_ticks_of_irregular_values_do_not_touch(
    tmp_path: Path, figures: Figures, step: int
) -> None:
    """With one batch size, the rates are a line, else dots, as in a random search."""
    rates = [0.1114, 0.1805, 0.2166, 0.3215, 0.5305, 0.6556, 0.9056]
    runs = [
        run_of({"optimizer.lr": rate, "batch_size": 1 + step * n % 7}, test_loss=1 / rate)
        for n, rate in enumerate(rates)
    ]
    draw_by_key(compared(runs, "test_loss"), tmp_path)
    ends = ends_of_tick_labels(figures[0].axes[0])
    assert len(ends) >= 3
    gaps = [left - right for (_, right), (left, _) in pairwise(ends)]
    assert min(gaps) > 2  # pixels


def test_outlier_in_plot_by_key_does_not_stretch_the_axis(tmp_path: Path, figures: Figures) -> None:
    accuracies = {0.001: 0.98, 0.01: 0.982, 0.1: 0.984, 1.0: 0.981, 10.0: 0.1}
    runs = [
        run_of({"optimizer.lr": lr, "batch_size": n}, test_accuracy=value)
        for n, (lr, value) in enumerate(accuracies.items())
    ]
    draw_by_key(compared(runs), tmp_path)
    (axes,) = figures[0].axes
    low, high = axes.get_ylim()
    assert 96 < low < high < 99
    assert ([10], [low]) in lines_of(axes, style.BLUE)  # the arrow
    note = note_of(figures[0])
    assert "batch_size varies along the axis" in note
    assert "▼ mean below the axis" in note
    assert "▲" not in note


# compression --------------------------------------------------------------------------------------


def pruned_runs() -> list[Run]:
    """Return three seeds of a dense setting, and of two criteria at two sparsities.

    The number of epochs depends on the sparsity, as in an iterative schedule.
    """
    runs = []
    for seed in range(3):
        dense = {"pruning": "none", "pruning.sparsity": None, "epochs": 2}
        runs.append(run_of(dense, seed, test_accuracy=0.97 + 0.001 * seed))
        for sparsity, epochs, ratio in ((0.5, 4, 2.0), (0.9, 6, 10.0)):
            for name, accuracy in (("magnitude", 0.99), ("random", 0.98 - 0.02 * sparsity)):
                settings = {"pruning": name, "pruning.sparsity": sparsity, "epochs": epochs}
                values = {"test_accuracy": accuracy, "compression_ratio": ratio}
                runs.append(run_of(settings, seed, **values))
    return runs


def test_compression_plot_has_a_line_for_each_criterion_and_the_dense_mean(
    tmp_path: Path, figures: Figures, check_png: CheckPng
) -> None:
    comparison = compared(pruned_runs())
    grouping = group_settings(comparison)
    assert grouping is not None
    assert (grouping.keys, grouping.along) == (("pruning",), ("epochs",))
    positions = [[grouping.axis.value(row) for row in group] for group in grouping.groups]
    assert positions == [[2, 10], [2, 10]]
    draw_by_key(comparison, tmp_path)
    check_png(tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    first, second = (lines_of(axes, COLOURS[k])[0] for k in (0, 1))
    assert first == ([2, 10], [pytest.approx(99), pytest.approx(99)])
    assert second == ([2, 10], [pytest.approx(97), pytest.approx(96.2)])
    (dense,) = lines_of(axes, style.FAINT)
    assert dense[1] == [pytest.approx(97.1)] * 2
    assert [x.get_text() for x in axes.get_xticklabels()] == ["2\n50 %", "10\n10 %"]
    (span,) = (x for x in axes.patches if isinstance(x, Rectangle))
    half = 100 * T_2 * 0.001 / np.sqrt(3)
    assert span.get_y() == pytest.approx(97.1 - half)
    assert span.get_height() == pytest.approx(2 * half)
    shown = texts(figures[0])
    assert {"magnitude", "random", "≥ dense up to", "10"} <= set(shown)
    assert "grey dashes: without pruning" in note_of(figures[0])


def test_largest_compression_without_loss_is_in_the_legend(
    tmp_path: Path, figures: Figures
) -> None:
    """Only magnitude pruning is at least as accurate as the dense network, up to a ratio of 10."""
    draw_by_key(compared(pruned_runs()), tmp_path)
    shown = texts(figures[0])
    header = shown.index("≥ dense up to")
    assert shown[header + 1 : header + 3] == ["10", "–"]


def test_single_way_of_pruning_needs_no_legend(tmp_path: Path, figures: Figures) -> None:
    runs = [run for run in pruned_runs() if run.settings["pruning"] == "magnitude"]
    draw_by_key(compared(runs), tmp_path)
    assert "≥ dense up to" not in texts(figures[0])
    assert lines_of(figures[0].axes[0], style.FAINT) == []


def test_collapsed_network_is_an_arrow_at_the_edge(tmp_path: Path, figures: Figures) -> None:
    """An outlier does not stretch the axis."""
    runs = pruned_runs()
    settings = {"pruning": "magnitude", "pruning.sparsity": 0.99, "epochs": 9}
    runs += [run_of(settings, seed, test_accuracy=0.1, compression_ratio=90.0) for seed in range(3)]
    draw_by_key(compared(runs), tmp_path)
    axes = figures[0].axes[0]
    low, _ = axes.get_ylim()
    assert low > 50
    arrows = [line for line in axes.lines if line.get_marker() == "v"]
    assert [([*x.get_xdata()], [*x.get_ydata()]) for x in arrows] == [([90.0], [low])]  # type: ignore[misc]
