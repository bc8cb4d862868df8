"""A comparison as cells of text and as records of numbers."""

from __future__ import annotations

from pathlib import Path

from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.tabulate import MAX_VALUE_CHARACTERS, pivot, records, tabulate
from nnopt.results.collect import Run, Value


def comparison_of(key: str, *values: Value, metric: str = "test_accuracy") -> Comparison:
    """Return a comparison with one run for each value."""
    runs = [
        Run(Path(str(n)), 0, "done", None, {key: value}, {metric: n / 8}, frozenset(), 0)
        for n, value in enumerate(values, start=1)
    ]
    return compare_runs(runs, [metric])


def test_long_values_are_cut_and_stay_distinct() -> None:
    layers = ["{dense: 64}"] * 20
    one, other = (*layers, "relu"), (*layers, "tanh")
    comparison = comparison_of("architecture.layers", one, other, (8,))
    shown = [row[0].text for row in tabulate(comparison).rows]
    assert shown[0] == "[8]"
    assert len({*shown}) == 3
    assert all(
        len(text) == MAX_VALUE_CHARACTERS and text.startswith("[{dense: 64}") for text in shown[1:]
    )
    assert records(comparison)[1]["architecture.layers"] == f"[{', '.join(one)}]"


def test_metric_named_like_a_key_is_renamed() -> None:
    comparison = comparison_of("epochs", 1, 2, metric="epochs")
    assert tabulate(comparison).header == ("epochs", "n", "epochs_done", "95 % interval")
    assert [row["epochs_done_mean"] for row in records(comparison)] == [1 / 8, 2 / 8]
    by_metric = sort_rows(comparison, "epochs_done", reverse=True)
    assert [row.setting.values["epochs"] for row in by_metric] == [2, 1]


def test_other_keys_follow_the_first_column_of_a_pivot_table() -> None:
    runs = [
        Run(Path(f"{a}{b}{c}"), 0, "done", None, {"a": a, "b": b, "c": c}, {"x": v}, frozenset(), 0)
        for a, b, c, v in [(1, 1, 1, 0.1), (1, 2, 1, 0.2), (1, 1, 2, 0.3), (2, 1, 1, 0.4)]
    ]
    comparison = compare_runs(runs, ["x"])
    table, exact = pivot(comparison, "b", "c")
    assert table.header == ("b", "a", "c=1", "c=2")
    cells = [tuple(cell.text for cell in row) for row in table.rows]
    assert cells == [("1", "1", "0.1", "0.3"), ("2", "1", "0.2", "–"), ("1", "2", "0.4", "–")]
    assert exact[0] == {"b": "1", "a": "1", "c=1": 0.1, "c=2": 0.3}
