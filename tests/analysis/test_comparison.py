"""Comparisons of settings: baselines, verdicts, the best setting, and checks of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nnopt.analysis.comparison import Comparison, compare_runs, sort_rows
from nnopt.analysis.same_data import (
    check_same_data,
    split_by_data_files,
    unify_file_names,
    with_unified_file_names,
)
from nnopt.analysis.settings import read_condition
from nnopt.analysis.verdict import verdict
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, Value

METRIC = "test_accuracy"


def runs_of(
    accuracies: Sequence[float | None],
    sources: frozenset[str] = frozenset(),
    metric: str = METRIC,
    **settings: Value,
) -> list[Run]:
    """Return one run for each accuracy, with the seeds 0, 1, ...; None means a failed run."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    values = {"dataset": "spiral"} | dotted
    return [
        Run(
            Path(f"run{seed}"),
            seed,
            "failed" if x is None else "done",
            None,
            values,
            {} if x is None else {metric: x},
            sources,
            0.0,
        )
        for seed, x in enumerate(accuracies)
    ]


def compared(runs: list[Run], *baseline: str, metric: str = METRIC) -> Comparison:
    known = [key for run in runs for key in run.settings]
    return compare_runs(runs, [metric], [read_condition(word, known) for word in baseline])


def verdicts(comparison: Comparison) -> list[str]:
    metric = comparison.metrics[0]
    return [verdict(row, row.outcomes[0], metric) for row in comparison.rows]


BASE = [0.80, 0.85, 0.90]


def test_verdict_describes_every_kind_of_difference() -> None:
    runs = [
        *runs_of(BASE, optimizer="a-baseline"),
        *runs_of([0.9, 0.952, 1.0], optimizer="b-better"),
        *runs_of([0.7, 0.752, 0.8], optimizer="c-worse"),
        *runs_of([0.81, 0.83, 0.92], optimizer="d-unclear"),
        *runs_of([0.80, 0.85, 0.90], optimizer="e-equal"),
        *runs_of([0.81, 0.86, 0.91], optimizer="f-shifted"),
        *runs_of([0.91], optimizer="g-one"),
        *runs_of([None, None, None, 0.9], optimizer="h-none"),
    ]
    assert verdicts(compared(runs, "optimizer=a-baseline")) == [
        "baseline",
        "better",
        "worse",
        "not distinguishable",
        "equal for every seed",
        "the same difference every time",
        "one common seed",
        "no common seed",
    ]
    assert set(verdicts(compared(runs))) == {""}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("test_loss", "worse"), ("train_seconds", "worse"), ("best_epoch", "higher")],
)
def test_verdict_depends_on_the_direction_of_the_metric(metric: str, expected: str) -> None:
    runs = runs_of(BASE, metric=metric, epochs=1)
    runs += runs_of([0.9, 0.952, 1.0], metric=metric, epochs=2)
    comparison = compared(runs, "epochs=1", metric=metric)
    assert verdicts(comparison) == ["baseline", expected]
    best = [row.outcomes[0].is_best for row in comparison.rows]
    assert best == [metric != "best_epoch", False]


def test_holm_correction_for_more_comparisons_hides_a_weak_difference() -> None:
    """The difference is significant as the only comparison, but not as one of eight."""
    strong = runs_of([0.9, 0.97, 0.98], lr=1) + runs_of(BASE, lr=0)
    alone = compared(strong, "lr=0")
    others = [run for k in range(2, 9) for run in runs_of([0.81, 0.83, 0.92], lr=k)]
    among = compared(strong + others, "lr=0")
    assert verdicts(alone)[1] == "better"
    assert verdicts(among)[1] == "not distinguishable"
    assert among.tests == 8


def test_baseline_of_a_setting_differs_only_in_the_given_key() -> None:
    runs = []
    for lr in (0.1, 0.2):
        for l2 in (0.0, 1e-3):
            runs += runs_of([lr + l2, lr + 0.5 + 2 * l2], optimizer__lr=lr, regularizer__l2=l2)
    comparison = compared(runs, "regularizer.l2=0")
    found = {
        (row.setting.values["optimizer.lr"], row.setting.values["regularizer.l2"]): row.outcomes[0]
        for row in comparison.rows
    }
    for lr in (0.1, 0.2):
        assert found[lr, 0.0].difference is None
        difference = found[lr, 1e-3].difference
        assert difference is not None
        assert difference.change is not None
        assert difference.change.location == pytest.approx(1.5e-3)  # independent of lr


def test_baseline_applies_only_to_settings_with_the_same_test_set() -> None:
    runs = [
        *runs_of(BASE, dataset="mnist", optimizer="sgd"),
        *runs_of([0.9, 0.952, 1.0], dataset="mnist", optimizer="adam"),
        *runs_of([0.1, 0.152, 0.2], dataset="cifar10", optimizer="adam"),
    ]
    comparison = compared(runs, "optimizer=sgd")
    settings = [row.setting.values for row in comparison.rows]
    names = [(values["dataset"], values["optimizer"]) for values in settings]
    found = dict(zip(names, verdicts(comparison), strict=True))
    assert found["mnist", "adam"] == "better"
    assert found["cifar10", "adam"] not in ("better", "worse")
    across = compared(runs, "optimizer=sgd", "dataset=mnist")
    assert "worse" in verdicts(across)


def test_test_set_reduced_by_validation_samples_is_a_different_test_set() -> None:
    runs = [
        *runs_of(BASE, lr=1, dataset__validation__source="none"),
        *runs_of([0.9, 0.952, 1.0], lr=1, dataset__validation__source="train"),
        *runs_of([0.5, 0.6, 0.7], lr=1, dataset__validation__source="test"),
        *runs_of([0.5, 0.6, 0.65], lr=2, dataset__validation__source="test"),
    ]
    rows = compared(runs).rows
    best = {
        row.setting.values["dataset.validation.source"] for row in rows if row.outcomes[0].is_best
    }
    assert best == {"train", "test"}


def test_settings_without_a_baseline_are_noted() -> None:
    runs = runs_of(BASE, lr=1, l2=0) + runs_of(BASE, lr=2, l2=0)
    runs += runs_of(BASE, lr=1, l2=5) + runs_of(BASE, lr=3, l2=5)
    comparison = compared(runs, "l2=0")
    assert verdicts(comparison).count("") == 1
    assert "1 setting has no baseline" in comparison.notes[0]


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (["l2=7"], "no setting has l2=7; values of l2: 0, 5"),
        (["epochs=1"], "epochs is no column of this table; keys that vary: lr, l2"),
        (
            ["l2=0"],
            "l2=0 is ambiguous: it matches 2 settings, .* add one of these keys to --baseline",
        ),
    ],
)
def test_unknown_or_ambiguous_baseline_is_refused(baseline: list[str], message: str) -> None:
    runs = [*runs_of(BASE, lr=1, l2=0, epochs=1), *runs_of(BASE, lr=2, l2=0, epochs=1)]
    runs += runs_of(BASE, lr=3, l2=5, epochs=1)
    with pytest.raises(ConfigError, match=message):
        compared(runs, *baseline)


def test_failed_runs_are_counted_and_not_averaged() -> None:
    comparison = compared(runs_of([0.5, None, 0.7], lr=1) + runs_of([None, None], lr=2))
    first, second = comparison.rows
    assert first.outcomes[0].estimate is not None
    assert first.outcomes[0].estimate.location == pytest.approx(0.6)
    assert first.setting.left_out == {"failed": 1}
    assert second.outcomes[0].estimate is None
    assert comparison.notes == ("left out: 3 failed",)


def test_best_setting_of_each_test_set_is_marked() -> None:
    settings = [("circles", "unit", 0.9), ("circles", "none", 0.8), ("moons", "unit", 0.7)]
    settings += [("moons", "none", 0.75)]
    runs = []
    for name, normalization, x in settings:
        runs += runs_of([x], dataset=name, dataset__normalization=normalization)
    best = [
        (row.setting.values["dataset"], row.outcomes[0].estimate.location)
        for row in compared(runs).rows
        if row.outcomes[0].is_best and row.outcomes[0].estimate
    ]
    assert best == [("circles", 0.9), ("moons", 0.75)]


def test_rows_are_sorted_by_key_or_metric() -> None:
    runs = runs_of([0.5], lr=1) + runs_of([0.9], lr=2) + runs_of([0.7], lr=10)
    runs += runs_of([None], lr=0)
    comparison = compared(runs)

    def order(name: str, reverse: bool = False) -> list[Value]:
        return [row.setting.values["lr"] for row in sort_rows(comparison, name, reverse)]

    assert order(METRIC) == [2, 10, 1, 0]
    assert order(METRIC, reverse=True) == [1, 10, 2, 0]  # a missing result stays last
    assert order("lr", reverse=True) == [10, 2, 1, 0]
    with pytest.raises(ConfigError, match="did you mean 'test_accuracy'"):
        order("test_acuracy")


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="'test_acc'; did you mean 'test_accuracy'"):
        compared(runs_of(BASE), metric="test_acc")


def test_metric_without_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="no finished run has a test_loss; known metrics: test"):
        compared(runs_of(BASE), metric="test_loss")
    with pytest.raises(ConfigError, match="target_reached is true or false, so it has no mean"):
        compared(runs_of(BASE), metric="target_reached")


def test_runs_on_different_datasets_are_refused() -> None:
    runs = runs_of(BASE, dataset="mnist") + runs_of(BASE, dataset="cifar10")
    with pytest.raises(ConfigError, match=r"\(cifar10, mnist\); .*--where dataset=cifar10"):
        check_same_data(runs)
    check_same_data(runs, may_differ=True)
    check_same_data(runs[:3])


def test_runs_tested_on_different_files_are_refused() -> None:
    runs = runs_of([0.1], frozenset({"ab"}), lr=1) + runs_of([0.9], frozenset({"cd"}), lr=1)
    with pytest.raises(ConfigError, match="were tested on different files"):
        check_same_data(runs, may_differ=True)
    assert len(compared(runs).rows) == 1
    message = compared(split_by_data_files(runs))
    assert message.keys == ("dataset.files",)
    assert [row.outcomes[0].is_best for row in message.rows] == [False, False]  # test sets differ
    assert split_by_data_files(runs[:1]) == runs[:1]


def test_comparison_of_runs_trained_on_different_files_has_a_note() -> None:
    def trained_on(train: str, accuracy: float) -> list[Run]:
        found = runs_of([accuracy], frozenset({train, "test"}), **{"dataset.train": train})
        return [replace(run, named_files={"dataset.test": "test"}) for run in found]

    runs = trained_on("a", 0.1) + trained_on("b", 0.9)
    check_same_data(runs)
    message = compared(split_by_data_files(runs))
    assert [row.outcomes[0].is_best for row in message.rows] == [False, True]
    (note,) = message.notes
    assert "files of different content: dataset.train=a,b; the test file is the same" in note
    other = [
        replace(run, named_files={"dataset.test": "other"}, sources=frozenset({"b", "other"}))
        for run in runs[1:]
    ]
    with pytest.raises(ConfigError, match="were tested on different files"):
        check_same_data([*runs, *other])


def csv_runs(path: str, digest: str | None, accuracies: Sequence[float | None]) -> list[Run]:
    files = {} if digest is None else {"dataset.train": digest}
    return [
        replace(run, named_files=files)
        for run in runs_of(accuracies, frozenset(files.values()), dataset__train=path)
    ]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([("a.csv", "x"), ("/data/a.csv", "x")], ["a.csv", "a.csv"]),
        ([("/data/a.csv", "x"), ("~/a.csv", "x"), ("sub/a.csv", "x")], ["~/a.csv"] * 3),
        ([("a.csv", "x"), ("/data/a.csv", "y")], ["a.csv", "/data/a.csv"]),
        ([("a.csv", "x"), ("b.csv", "x")], ["a.csv", "b.csv"]),
        ([("a.csv", "x"), ("/data/a.csv", None)], ["a.csv", "/data/a.csv"]),
        ([("a.csv", "x"), ("/data/a.csv", "x"), ("/data/a.csv", None)], ["a.csv"] * 3),
        (
            [("a.csv", "x"), ("/data/a.csv", "x"), ("/data/a.csv", "y")],
            ["a.csv", "a.csv", "/data/a.csv"],
        ),
        (
            [("a.csv", "x"), ("/data/a.csv", "x"), ("/data/a.csv", "y"), ("/data/a.csv", None)],
            ["a.csv", "a.csv", "/data/a.csv", "/data/a.csv"],
        ),
        (
            [("a.csv", "x"), ("/data/a.csv", "x"), ("a.csv", "y"), ("/data/a.csv", "y")],
            ["a.csv"] * 4,
        ),
    ],
)
def test_different_paths_of_a_file_get_the_same_name(
    files: list[tuple[str, str | None]], names: list[str]
) -> None:
    runs = [run for path, digest in files for run in csv_runs(path, digest, [0.5])]
    for order in (1, -1):
        found = unify_file_names(runs[::order])[::order]
        assert [run.settings["dataset.train"] for run in found] == names


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("dataset.train=/data/a.csv", ("a.csv",)),
        ("dataset.train=a.csv", ("a.csv",)),
        ("dataset.train!=/data/a.csv,a.csv", ("a.csv",)),
        ("dataset.train=/tmp/a.csv", ("a.csv", "o/a.csv")),
        ("dataset.train=/o/a.csv", ("o/a.csv",)),
        ("dataset.train=b.csv", ("b.csv",)),
        ("dataset=/data/a.csv", ("/data/a.csv",)),
    ],
)
def test_condition_on_a_path_also_matches_other_paths_of_the_file(
    word: str, values: tuple[str]
) -> None:
    files = [("a.csv", "x"), ("/data/a.csv", "x"), ("/tmp/a.csv", "x"), ("/tmp/a.csv", "y")]
    files += [("o/a.csv", "y"), ("/o/a.csv", "y")]
    runs = [run for path, digest in files for run in csv_runs(path, digest, [0.5])]
    condition = read_condition(word, ["dataset", "dataset.train"])
    found = with_unified_file_names(condition, runs, unify_file_names(runs))
    assert found == replace(condition, values=values)


def test_losses_of_different_loss_functions_are_not_compared() -> None:
    """The smallest number is that of the mean squared error, whose unit is another one."""
    losses = {"cross_entropy": [0.8, 0.7], "mse": [0.2, 0.1]}
    runs = [
        run
        for loss, values in losses.items()
        for rate in (1, 2)
        for run in runs_of(
            [x * rate for x in values], metric="test_loss", loss=loss, focal_gamma=rate, lr=rate
        )
    ]
    found = compared(runs, "loss=cross_entropy", "lr=1", metric="test_loss")
    best = [(row.setting.values["loss"], row.setting.values["lr"]) for row in found.rows
            if row.outcomes[0].is_best]  # fmt: skip
    assert best == [("cross_entropy", 1), ("mse", 1)]
    assert verdicts(found) == ["baseline", "worse", "", ""]
    (note,) = found.notes
    assert note.startswith("test_loss: not comparable, and not compared, between settings with")
    assert "different loss or focal_gamma" in note
    accuracy = [replace(run, metrics={METRIC: run.metrics["test_loss"]}) for run in runs]
    assert compared(accuracy, "loss=mse", "lr=2").notes == ()
