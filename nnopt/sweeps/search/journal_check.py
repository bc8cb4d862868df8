"""Checks that Optuna's journal, which may be a download, contains only values of nnopt."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nnopt.config.search_parameters import Choice, Parameter

VALUES = {TrialState.COMPLETE: (1, 1), TrialState.PRUNED: (0, 1)}
"""State -> minimum and maximum number of values. A pruned trial may have one: its last report."""


def check_last_line(data: bytes) -> None:
    """Raise ValueError if the last line is complete but is not JSON.

    Optuna does not report an invalid line until another line follows. An incomplete last line is
    no error: a killed process leaves such a line, and ``FileLock`` removes it.
    """
    if data.endswith(b"\n"):
        json.loads(data[:-1].rpartition(b"\n")[2])


def check_study(study: Study) -> None:
    """Raise ValueError if the study contains a value that nnopt would not have stored."""
    if len(study.directions) != 1:
        raise ValueError("its study has several objectives")
    asked = study.user_attrs.get("asked")
    trials = study.get_trials(deepcopy=False)
    if not (isinstance(asked, dict) or (asked is None and not trials)):
        raise ValueError("its study does not record the searched keys")
    for number, trial in enumerate(trials):
        if trial.number != number:
            raise ValueError(f"trial {number + 1} is missing")
        _check_trial(trial)


def check_trials(study: Study, parameters: Sequence[Parameter], ids: set[str]) -> None:
    """Raise ValueError unless all trials belong to the search with these parameters and points."""
    known = {parameter.key: parameter for parameter in parameters}
    for trial in study.get_trials(deepcopy=False):
        for key, distribution in trial.distributions.items():
            if key not in known or not _fits(known[key], distribution, trial.params[key]):
                raise ValueError(
                    f"trial {trial.number + 1} has drawn {key!r} from the values of another search"
                )
        points = trial.user_attrs.get("points")
        if trial.state == TrialState.COMPLETE and not (points and ids.issuperset(points)):
            raise ValueError(f"trial {trial.number + 1} has missing or unknown points")


def _fits(parameter: Parameter, distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(parameter, Choice):
        return (
            isinstance(distribution, CategoricalDistribution)
            and tuple(distribution.choices) == tuple(parameter.texts)
            and value in parameter.texts
        )
    kind = IntDistribution if parameter.is_whole else FloatDistribution
    return isinstance(distribution, kind) and _is_finite(value)


def _check_trial(trial: FrozenTrial) -> None:
    values, reports = trial.values or [], trial.intermediate_values.items()
    points, error = trial.user_attrs.get("points", []), trial.user_attrs.get("error")
    least, most = VALUES.get(trial.state, (0, 0))
    if not isinstance(values, list) or not all(map(_is_finite, values)):
        problem = "a value that is not a finite number"
    elif not least <= len(values) <= most:
        problem = f"{len(values)} values in the state {trial.state.name}"
    elif not all(type(step) is int and isinstance(x, int | float) for step, x in reports):
        problem = "a report that is not a number for an epoch"
    elif not (isinstance(points, list) and all(isinstance(point, str) for point in points)):
        problem = "points that are not a list of ids"
    elif not isinstance(error, str | None):
        problem = "an error that is not a text"
    else:
        return
    raise ValueError(f"trial {trial.number + 1} has {problem}")


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
