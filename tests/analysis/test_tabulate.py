"""A comparison as cells of text and as records of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.records import pivot_records, records
from nnopt.analysis.settings import Condition
from nnopt.analysis.tabulate import MAX_VALUE_CHARACTERS, pivot, tabulate
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
    table, exact = pivot(comparison, "b", "c"), pivot_records(comparison, "b", "c")
    assert table.header == ("b", "a", "c=1", "c=2")
    cells = [tuple(cell.text for cell in row) for row in table.rows]
    assert cells == [("1", "1", "0.1", "0.3"), ("2", "1", "0.2", "–"), ("1", "2", "0.4", "–")]
    assert exact[0] == {"b": "1", "a": "1", "c=1": 0.1, "c=2": 0.3}


def results(
    key: str, metric: str, values: Mapping[Value, Sequence[float | None]], **settings: Value
) -> list[Run]:
    """Return runs with the seeds 0, 1, ... for each value of a key. None means a missing number."""
    return [
        Run(
            Path(f"{value}-{seed}"),
            seed,
            "done",
            None,
            {key: value, **settings},
            {} if x is None else {metric: x},
            frozenset(),
            0,
        )
        for value, numbers in values.items()
        for seed, x in enumerate(numbers)
    ]


ACCURACIES = {"a": [0.80, 0.85, 0.90, 0.84], "b": [0.81, 0.83, 0.92, 0.84]}
TIMES = {"a": [300, 350, 280, 500, 310], "b": [900, None, None, 1100, None]}
TARGET = {"target.metric": "validation_accuracy", "target.value": 0.9}


def test_table_with_margin_has_p_of_equivalence_and_a_note() -> None:
    runs = results("lr", "test_accuracy", ACCURACIES)
    baseline = [Condition("lr", "=", ("a",))]
    comparison = compare_runs(runs, ["test_accuracy"], baseline, {"test_accuracy": 0.04})
    table = tabulate(comparison)
    assert table.header[-3:] == ("p (Holm)", "p equivalence", "verdict")
    assert [cell.text for cell in table.rows[1][-2:]] == ["0.011", "equivalent within 0.04"]
    assert "two one-sided paired t tests with the margin 0.04; seeds" in table.notes[2]
    (_, record) = records(comparison)
    assert record["test_accuracy_margin"] == 0.04
    # SciPy: max of ttest_1samp([0.01, -0.02, 0.02, 0], -0.04 and 0.04), one-sided
    assert record["test_accuracy_p_equivalence"] == pytest.approx(0.01093770, rel=1e-6)
    assert record["test_accuracy_seeds_to_decide"] is None
    narrow = records(compare_runs(runs, ["test_accuracy"], baseline, {"test_accuracy": 0.01}))[1]
    seeds = narrow["test_accuracy_seeds_to_decide"]
    assert isinstance(seeds, int)
    assert narrow["test_accuracy_verdict"] == f"undecided (about {seeds} seeds would decide)"


def test_table_of_interquartile_means_tests_differences_of_means() -> None:
    runs = results("lr", "test_accuracy", ACCURACIES)
    baseline = [Condition("lr", "=", ("a",))]
    plain = compare_runs(runs, ["test_accuracy"], baseline)
    robust = compare_runs(runs, ["test_accuracy"], baseline, estimator="iqm")
    table = tabulate(robust)
    assert table.title == "test_accuracy, interquartile mean over seeds: 8 runs, 2 settings"
    assert [row[2].text for row in table.rows] == ["0.845", "0.835"]
    assert table.notes[0] == "* the best interquartile mean"
    assert table.notes[1].startswith("difference: of the means, to lr=a, over the common seeds")
    assert [x.difference for row in robust.rows for x in row.outcomes] == [
        x.difference for row in plain.rows for x in row.outcomes
    ]
    assert records(robust)[0]["test_accuracy_iqm"] == pytest.approx(0.845)
    assert "test_accuracy_mean" not in records(robust)[0]


def test_table_of_times_has_counts_medians_and_probabilities() -> None:
    runs = results("lr", "steps_to_target", TIMES, **TARGET)
    comparison = compare_runs(runs, ["steps_to_target"], [Condition("lr", "=", ("b",))])
    table = tabulate(comparison)
    assert table.header[1:] == (
        "reached",
        "steps_to_target",
        "95 % interval",
        "P(earlier)",
        "p (Holm)",
        "verdict",
    )
    cells = [[cell.text for cell in row] for row in table.rows]
    assert cells[0] == ["a", "5 of 5", "310", "–", "1.00", "0.008", "better"]
    assert cells[1] == ["b", "2 of 5", "not reached", "–", "–", "–", "baseline"]
    assert table.title == "steps_to_target, median over seeds: 10 runs, 2 settings"
    assert "Mann-Whitney test; runs that did not reach the target rank last" in table.notes[1]
    assert not any("t test" in note for note in table.notes)
    one, other = records(comparison)
    prefix = "steps_to_target_"
    assert [one[f"{prefix}{x}"] for x in ("n", "reached", "median")] == [5, 5, 310]
    assert [other[f"{prefix}{x}"] for x in ("n", "reached", "median")] == [5, 2, None]
    assert one[f"{prefix}p"] == pytest.approx(2 / 252)


def test_pivot_table_of_times_shows_the_counts() -> None:
    one = results("lr", "steps_to_target", TIMES, **TARGET, l2=0)
    other = results("lr", "steps_to_target", {"a": [None, 3.0]}, **TARGET, l2=1)
    comparison = compare_runs([*one, *other], ["steps_to_target"])
    table, exact = pivot(comparison, "lr", "l2"), pivot_records(comparison, "lr", "l2")
    cells = [[cell.text for cell in row] for row in table.rows]
    assert cells[0] == ["a", "310 (5 of 5)", "not reached (1 of 2)"]
    assert cells[1] == ["b", "not reached (2 of 5)", "–"]
    assert exact[0] == {"lr": "a", "l2=0": 310, "l2=1": None}


def test_title_names_the_location_of_each_metric() -> None:
    runs = results("lr", "steps_to_target", TIMES, **TARGET)
    both = [replace(run, metrics={**run.metrics, "test_loss": 0.5}) for run in runs]
    table = tabulate(compare_runs(both, ["test_loss", "steps_to_target"]))
    assert table.title.startswith(
        "test_loss, mean ± standard deviation over seeds; steps_to_target, median over seeds: 10"
    )
    assert table.header[1:] == (
        *("test_loss n", "test_loss", "test_loss 95 % interval"),
        *("steps_to_target reached", "steps_to_target", "steps_to_target 95 % interval"),
    )
