"""The importance of the keys of a search: values, intervals, and reasons for omission."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.importance import get_param_importances
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from nnopt.sweeps.search.study import MIN_TRIALS, importances, why_no_importances

DISTRIBUTIONS = {
    "optimizer.lr": FloatDistribution(1e-4, 1, log=True),
    "regularizer.l2": FloatDistribution(0, 1),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
}


def study_of(count: int, value: Callable[[float, float], float], failed: int = 0) -> Study:
    """Return a random search whose value depends on the learning rate and on L2."""
    random = np.random.default_rng(3)
    study = optuna.create_study(direction="maximize")
    for number in range(count + failed):
        lr, l2 = 10 ** random.uniform(-4, 0), random.uniform()
        params = {"optimizer.lr": lr, "regularizer.l2": l2}
        params["optimizer"] = str(random.choice(["sgd", "adam"]))
        state = TrialState.COMPLETE if number < count else TrialState.FAIL
        result = value(lr, l2) if number < count else None
        study.add_trial(
            create_trial(state=state, params=params, distributions=DISTRIBUTIONS, value=result)
        )
    return study


def mostly_rate(lr: float, l2: float) -> float:
    return float(-((np.log10(lr) + 2) ** 2) - 0.1 * l2)


def test_importances_equal_those_of_optuna_and_sum_to_one() -> None:
    study = study_of(80, mostly_rate)
    found = importances(study)
    assert found[0].key == "optimizer.lr"
    assert sum(one.weight for one in found) == pytest.approx(1)
    expected = get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    assert {one.key: one.weight for one in found} == pytest.approx(expected)
    assert all(one.interval is None for one in found)


def test_intervals_of_importances_are_repeatable_and_wider_with_fewer_trials() -> None:
    few, many = study_of(12, mostly_rate), study_of(200, mostly_rate)
    widths = []
    for study in (few, many):
        found = importances(study, resamples=20)
        assert found == importances(study, resamples=20)
        intervals = [one.interval for one in found]
        assert all(x is not None and 0 <= x[0] <= x[1] <= 1 for x in intervals)
        first = next(one.interval for one in found if one.key == "optimizer.lr")
        assert first is not None
        widths.append(first[1] - first[0])
    assert widths[0] > 2 * widths[1]


def test_importances_of_few_trials_are_omitted() -> None:
    study = study_of(MIN_TRIALS - 1, mostly_rate, failed=20)
    assert importances(study) == []
    reason = f"it needs at least {MIN_TRIALS} finished trials, but there are {MIN_TRIALS - 1}"
    assert why_no_importances(study) == reason
    assert why_no_importances(study_of(MIN_TRIALS, mostly_rate)) is None


def test_importances_of_one_key_or_of_equal_values_are_omitted() -> None:
    assert why_no_importances(study_of(30, lambda lr, l2: 1.0)) == "all trials have the same value"
    study = optuna.create_study()
    only = {"optimizer.lr": DISTRIBUTIONS["optimizer.lr"]}
    for number in range(30):
        trial = create_trial(
            params={"optimizer.lr": 0.01 + number / 100}, distributions=only, value=number
        )
        study.add_trial(trial)
    assert why_no_importances(study) == "the search has only one key"
    assert importances(study, resamples=5) == []


@pytest.mark.slow
def test_finished_search_prints_and_draws_importances(
    nnopt: Callable[..., int], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "-m", "hydra/sweeper=optuna", "hydra.sweep.dir=s", "epochs=1"]
    command += ["dataset.samples_per_class=20", "regularizer.l2=interval(0,1)", "batch_size=8,16"]
    assert nnopt(*command, "plots=sweep", "hydra.sweeper.trials=9") == 0
    output = capsys.readouterr().out
    assert "importance of keys: not computed, because it needs at least 10 finished" in output
    assert not (workplace / "s/plots/importance.png").exists()
    assert nnopt("resume", "s", "hydra.sweeper.trials=12") == 0
    output = capsys.readouterr().out
    assert "importance (PED-ANOVA): " in output
    assert "uncertain, because the trials are few" in output
    for suffix in ("png", "svg"):
        assert (workplace / f"s/plots/importance.{suffix}").stat().st_size > 1000
    assert "A new study created in memory" not in (workplace / "s/search.log").read_text()
