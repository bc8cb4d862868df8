"""The search space and the settings of a search, checked before the search starts."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import Any

import pytest

from nnopt.config import search_space as space_module
from nnopt.config.compose import Plan, make_plan
from nnopt.config.search_parameters import Drawn, Parameter
from nnopt.config.search_space import check_metric
from nnopt.errors import ConfigError
from nnopt.schema import OptunaConfig

OPTUNA = ["hydra/sweeper=optuna", "dataset.samples_per_class=20"]


def plan_of(*overrides: str) -> Plan:
    return make_plan([*OPTUNA, *overrides], multirun=True)


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan_of(*overrides)
    return caught.value.problems


def drawn(plan: Plan, **values: Drawn) -> list[str]:
    assert plan.space is not None

    def suggest(parameter: Parameter) -> Drawn:
        return values[parameter.key.rpartition(".")[2]]

    with plan.space.composing():
        return plan.space.draw(suggest)


def test_sample_points_have_each_choice_and_both_ends_of_intervals() -> None:
    plan = plan_of("optimizer.lr=interval(0.1,0.5)", "optimizer=sgd,adam", "batch_size=8,16,32")
    assert plan.is_sweep
    assert plan.varied == ("optimizer.lr", "optimizer", "batch_size")
    found = {
        (p.config.optimizer.name, p.config.optimizer.lr, p.config.batch_size) for p in plan.points
    }
    first = ("sgd", 0.1, 8)
    assert found == {first, ("adam", 0.1, 8), ("sgd", 0.5, 8), ("sgd", 0.1, 16), ("sgd", 0.1, 32)}


def test_draw_omits_key_that_the_drawn_optimizer_does_not_have() -> None:
    plan = plan_of(
        "optimizer=sgd,adam", "optimizer.lr=0.1,0.2", "optimizer.beta1=interval(0.8,0.9)"
    )
    values: dict[str, Any] = {"lr": "0.1", "beta1": 0.85}
    assert drawn(plan, optimizer="sgd", **values) == ["optimizer=sgd", "optimizer.lr=0.1"]
    assert drawn(plan, optimizer="adam", **values)[2] == "optimizer.beta1=0.85"
    assert {p.config.optimizer.beta1 for p in plan.points if p.config.optimizer.name == "adam"} == {
        0.8,
        0.9,
    }


def test_only_intervals_of_integer_keys_are_restricted_to_integers() -> None:
    plan = plan_of("batch_size=interval(8,64)", "optimizer.lr=interval(1,2)")
    assert plan.space is not None
    assert [p.is_whole for p in plan.space.parameters] == [True, False]  # type: ignore[union-attr]


def test_all_problems_of_keys_in_search_space_are_reported() -> None:
    messages = problems_of(
        "optimizer.lr=interval(-1,1)", "optimizer.rate=0.1,0.2", "batch_size=0,8", "epochs=1,2"
    )
    assert len(messages) == 3
    assert any("optimizer.lr = -1.0: needs to be at least 0" in problem for problem in messages)
    assert any("batch_size = 0" in problem for problem in messages)
    assert any("unknown key 'optimizer.rate'" in problem for problem in messages)


def test_all_problems_of_search_settings_are_reported() -> None:
    messages = problems_of(
        "hydra.sweeper.trials=0", "hydra.sweeper.sampler=tpa", "hydra.sweeper.trails=3", "seed=0,1"
    )
    assert len(messages) == 3
    text = " ".join(messages)
    assert "did you mean 'hydra.sweeper.trials'" in text
    assert "hydra.sweeper.trials = 0" in text
    assert "'tpe'" in text


def test_search_metric_of_test_set_or_of_absent_validation_set_is_refused() -> None:
    (problem,) = problems_of("epochs=1,2", "hydra.sweeper.metric=test_accuracy")
    assert "best of many trials is biased" in problem
    without = ["dataset.validation.source=none", "test_weights=last"]
    plan = plan_of("epochs=1,2", *without, "hydra.sweeper.metric=final_train_loss")
    assert isinstance(plan.sweeper, OptunaConfig)
    with pytest.raises(ConfigError, match="needs validation data"):
        check_metric(replace(plan.sweeper, metric="best_validation_loss"), plan.points)


@pytest.mark.parametrize("searched", ["loss=mse,cross_entropy", "focal_gamma=interval(0,5)"])
def test_search_by_the_values_of_different_losses_prints_a_warning(
    caplog: pytest.LogCaptureFixture, searched: str
) -> None:
    base = [] if searched.startswith("loss") else ["loss=focal"]
    for metric, count in (("best_validation_loss", 1), ("best_validation_accuracy", 0)):
        caplog.clear()
        plan_of(searched, *base, f"hydra.sweeper.metric={metric}")
        assert len(caplog.messages) == count
    caplog.clear()
    plan_of("optimizer.lr=1,2", "loss=focal", "hydra.sweeper.metric=best_validation_loss")
    assert not caplog.messages


def test_sample_points_omit_refused_combination(caplog: pytest.LogCaptureFixture) -> None:
    overrides = ["optimizer=sgd", "optimizer.lr=interval(0.1,1)", "regularizer.weight_decay=1.5,0"]
    caplog.set_level(logging.WARNING, "nnopt")
    plan = plan_of(*overrides)
    assert "are refused, and count as failed trials: optimizer.lr = 1.0" in caplog.text
    assert {p.config.optimizer.lr for p in plan.points} == {0.1}
    assert (
        "times regularizer.weight_decay"
        in problems_of(*overrides[:2], "regularizer.weight_decay=11")[0]
    )


def test_trial_has_point_for_each_seed() -> None:
    plan = plan_of("epochs=1,2", "seed=range(3,6)")
    assert plan.space is not None
    assert plan.varied == ("epochs", "seed")
    with plan.space.composing():
        assert [p.config.seed for p in plan.space.points(["epochs=2"])] == [3, 4, 5]
    assert "uses the mean" in problems_of("epochs=1,2", "seed=interval(0,9)")[0]
    assert "needs a key with several values" in problems_of("seed=0,1")[0]


def test_value_on_command_line_replaces_interval_in_params() -> None:
    params = "hydra.sweeper.params={optimizer.lr:'interval(0.1,1)',epochs:'1,2'}"
    plan = plan_of(params, "optimizer.lr=0.3")
    assert plan.varied == ("epochs",)
    assert {p.config.optimizer.lr for p in plan.points} == {0.3}


def test_warning_about_wide_interval_recommends_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nnopt")
    plan_of(
        "optimizer.lr=interval(1e-4,1)",
        "regularizer.l2=tag(log, interval(1e-4,1))",
        "regularizer.l1=interval(0.1,1)",
    )
    (record,) = caplog.records
    assert "'optimizer.lr=tag(log, interval(0.0001, 1))'" in record.getMessage()


def test_search_without_optuna_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return None if name == "optuna" else importlib.util.find_spec(name)

    monkeypatch.setattr(space_module, "find_spec", find_spec)
    (problem,) = problems_of("epochs=1,2")
    assert "pip install 'nnopt[search]'" in problem


def test_search_without_multirun_is_refused() -> None:
    with pytest.raises(ConfigError, match="-m"):
        make_plan(OPTUNA)
