"""Keys that vary, conditions on runs, and groups of runs that differ only in the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnopt.analysis.settings import group_runs, read_condition, unknown_name, varying_keys
from nnopt.errors import ConfigError
from nnopt.results.collect import Run, Value


def run(seed: int = 0, status: str = "done", ended: float = 0.0, **settings: Value) -> Run:
    """Return a run with the given settings; the keyword ``optimizer__lr`` sets ``optimizer.lr``."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    metrics = {"test_accuracy": 0.5 + ended}
    values = {**dotted, "seed": seed}
    return Run(Path(f"{seed}"), seed, status, None, values, metrics, frozenset(), ended)


def test_varying_keys_exclude_keys_that_vary_only_with_their_group() -> None:
    sgd = {"optimizer": "sgd", "optimizer__lr": 0.1}
    adam = {"optimizer": "adam", "optimizer__lr": 0.001, "optimizer__beta1": 0.9}
    assert varying_keys([run(0, **sgd), run(1, **sgd)]) == []
    assert varying_keys([run(**sgd), run(**adam)]) == ["optimizer"]
    lower = adam | {"optimizer__lr": 0.01}
    assert varying_keys([run(**sgd), run(**adam), run(**lower)]) == ["optimizer", "optimizer.lr"]
    beta = adam | {"optimizer__beta1": 0.8}
    assert varying_keys([run(**sgd), run(**adam), run(**beta)]) == ["optimizer", "optimizer.beta1"]
    assert varying_keys([run(**adam), run(**lower)]) == ["optimizer.lr"]


def test_varying_keys_of_a_group_are_adjacent() -> None:
    one = {"optimizer": "sgd", "optimizer__lr": 0.1, "epochs": 1}
    two = {"optimizer": "adam", "optimizer__lr": 0.1, "epochs": 2, "optimizer__beta1": 0.9}
    three = two | {"optimizer__beta1": 0.8}
    runs = [run(**one), run(**two), run(**three)]
    assert varying_keys(runs) == ["optimizer", "optimizer.beta1", "epochs"]


def test_varying_keys_exclude_keys_that_older_runs_lack() -> None:
    old, new = run(0, epochs=3), run(1, epochs=3, regularizer__swa=0.0)
    assert varying_keys([old, new]) == []
    assert len(group_runs([old, new], [])) == 1


def test_varying_keys_include_a_group_only_if_all_runs_record_its_choice() -> None:
    none = {"regularizer": "none", "regularizer__l2": 0.0}
    l2 = {"regularizer": "l2", "regularizer__l2": 1e-3}
    assert varying_keys([run(**none), run(**l2)]) == ["regularizer"]
    untold = {"regularizer__l2": 0.1}
    assert varying_keys([run(**none), run(**l2), run(**untold)]) == ["regularizer.l2"]


def test_settings_are_sorted_and_contain_all_seeds() -> None:
    values: list[Any] = [100.0, None, 9, 0.5, "adam", (64,), (8, 8), True]
    runs = [run(seed, lr=value) for value in values for seed in (1, 0)]
    settings = group_runs(runs, ["lr"])
    found = [setting.values["lr"] for setting in settings]
    assert found == [None, 0.5, True, 9, 100.0, (8, 8), (64,), "adam"]
    assert all(list(setting.runs) == [0, 1] for setting in settings)


def test_runs_that_are_not_done_are_left_out_and_counted() -> None:
    runs = [run(0), run(1, "diverged"), run(2, "failed"), run(3, "failed")]
    (setting,) = group_runs(runs, [])
    assert list(setting.runs) == [0]
    assert setting.left_out == {"diverged": 1, "failed": 2}


def test_newest_incomplete_run_of_a_seed_is_used_and_counted_once() -> None:
    first, second = run(0, "diverged", ended=0.3), run(0, "pruned", ended=0.2)
    finished, replaced = run(1, ended=0.1), run(1, "diverged", ended=0.2)
    for runs in ([first, second, finished, replaced], [replaced, finished, second, first]):
        (setting,) = group_runs(runs, [])
        assert setting.incomplete == {0: first}
        assert setting.runs == {1: finished}
        assert setting.left_out == {"diverged": 2}
        assert setting.repeated == 1


def test_newest_run_of_a_seed_is_used() -> None:
    runs = [run(0, ended=0.2), run(0, ended=0.3), run(0, ended=0.1), run(1)]
    (setting,) = group_runs(runs, [])
    assert setting.repeated == 2
    assert setting.metric("test_accuracy") == {0: 0.8, 1: 0.5}


KNOWN = ["optimizer", "optimizer.lr", "architecture.hidden", "plots", "weight_decay"]
VALUES: dict[str, Value] = {
    "optimizer": "adam",
    "optimizer.lr": 0.001,
    "architecture.hidden": (64, 32),
    "plots": False,
    "weight_decay": None,
}


@pytest.mark.parametrize(
    "word",
    [
        "optimizer=adam",
        "optimizer.name=adam",
        "optimizer=sgd,adam",
        "optimizer!=sgd",
        "optimizer.lr=1e-3",
        "optimizer.lr=.0010",
        "optimizer.lr<=0.001",
        "optimizer.lr >= 0.001",
        "optimizer.lr<1",
        "optimizer.lr>0",
        "architecture.hidden=[64,32]",
        "architecture.hidden=[8],[64, 32]",
        "plots=False",
        "weight_decay=null",
        "weight_decay!=0",
    ],
)
def test_condition_holds_for_matching_values(word: str) -> None:
    assert read_condition(word, KNOWN).holds(VALUES)
    operator = "=" if "!=" in word else "!="
    if "<" not in word and ">" not in word:
        opposite = word.replace("!=", "=") if operator == "=" else word.replace("=", "!=", 1)
        assert not read_condition(opposite, KNOWN).holds(VALUES)


@pytest.mark.parametrize(
    "word",
    [
        "optimizer=Adam",
        "optimizer.lr=0.01",
        "optimizer.lr<0.001",
        "weight_decay<1",
        "plots=0",
        "plots<1",
    ],
)
def test_condition_does_not_hold_for_other_values(word: str) -> None:
    assert not read_condition(word, KNOWN).holds(VALUES)


def test_alternatives_of_a_condition_can_be_nested_lists() -> None:
    text = "[{residual: [relu, tanh]}, relu, [1, 2], 3],[64, 32],x"
    values = read_condition(f"architecture.hidden={text}", KNOWN).values
    assert values == ("[{residual: [relu, tanh]}, relu, [1, 2], 3]", "[64, 32]", "x")


def test_condition_on_missing_key_holds_only_with_unequal_operator() -> None:
    for word, holds in {"optimizer.lr=1": False, "optimizer.lr!=1": True, "plots<1": False}.items():
        assert read_condition(word, KNOWN).holds({}) == holds


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer", "write KEY=VALUE"),
        ("=adam", "write KEY=VALUE"),
        ("optimizr=adam", "did you mean 'optimizer'"),
        ("lr=0.1", r"did you mean 'optimizer\.lr'"),
        ("optimizer.lr<high", "'high' is no number"),
    ],
)
def test_malformed_condition_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_condition(word, KNOWN)


def test_condition_for_a_baseline_accepts_only_equality() -> None:
    with pytest.raises(ConfigError, match=r"write KEY=VALUE$"):
        read_condition("optimizer!=sgd", KNOWN, operators=("=",))


def test_all_names_are_listed_if_none_is_similar_to_an_unknown_name() -> None:
    assert str(unknown_name("metric", "zzz", ["a", "b"])) == "unknown metric 'zzz'; allowed: a, b"
