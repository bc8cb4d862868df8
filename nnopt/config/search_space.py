"""Reads the search space, and checks sample points. This module does not import Optuna."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec

from hydra.core.override_parser.types import Override

from nnopt.config.grid import parse_params, single_overrides
from nnopt.config.hydra import composing, config_groups, group_problems
from nnopt.config.point import Point
from nnopt.config.resolve import ConfigResolver
from nnopt.config.search_parameters import (
    Drawn,
    Numbers,
    Parameter,
    read_parameter,
    to_override,
)
from nnopt.config.validate import known_keys, takes_whole_numbers
from nnopt.errors import CombinationError, ConfigError, Problems, refused_value, suggest
from nnopt.io.paths import in_folder
from nnopt.results.metrics import LOSS_KEYS
from nnopt.schema import OptunaConfig
from nnopt.schema.reader import unknown_key

log = logging.getLogger("nnopt")

Draws = list[tuple[Parameter, Drawn]]
"""Pairs of a parameter and the drawn value, for one trial."""

COLUMNS = {
    "best_validation_accuracy": "validation_accuracy",
    "best_validation_loss": "validation_loss",
    "final_train_accuracy": "train_accuracy",
    "final_train_loss": "train_loss",
}
"""Metric of a search -> column of ``metrics.csv`` that has the same metric for each epoch."""

WIDE_INTERVAL_RATIO = 100
"""If the ratio of an interval's ends is at least this number, nnopt recommends tag(log, ...)."""


@dataclass(frozen=True)
class Space:
    """The search space. A trial has one point for each item of ``seeds``."""

    keys: tuple[str, ...]  # the varied keys, including the seed, in the order of the command line
    parameters: tuple[Parameter, ...]  # choices of files first, then the other keys
    fixed: tuple[str, ...]  # the overrides of every point
    seeds: tuple[tuple[str, ...], ...]  # the override of each seed, or ((),) if the seed is fixed
    resolver: ConfigResolver
    config_dir: str | None  # the value of --config-dir
    working: str  # the folder in which the search was started

    @contextmanager
    def composing(self) -> Iterator[None]:
        """Let Hydra find YAML files as if nnopt ran in the folder in which the search started."""
        with ExitStack() as stack:
            with in_folder(self.working):
                stack.enter_context(composing(self.config_dir))
            yield

    def draw(self, suggest: Callable[[Parameter], Drawn]) -> list[str]:
        """Use ``suggest`` to draw the overrides of a trial. Omit keys that the files lack."""
        return [to_override(parameter, value) for parameter, value in self._draw(suggest)]

    def points(self, overrides: Sequence[str]) -> list[Point]:
        """Return the points of one trial, one for each seed. Raises ConfigError."""
        return [self.resolver.point([*self.fixed, *overrides, *seed]) for seed in self.seeds]

    def points_of(self, settings: OptunaConfig) -> int:
        """Return the number of points of all trials of a search."""
        return settings.trials * len(self.seeds)

    def samples(self) -> list[Point]:
        """Return points that together contain each choice and both ends of each range.

        Points with a refused combination are left out, with a warning. Raises ConfigError if a
        value is not allowed, if a key exists in no choice of files, or if all points are refused.
        """
        problems, refused = Problems(), dict[str, None]()
        points: dict[str, Point] = {}
        drawn: set[str] = set()
        for draws in self._samples():
            drawn |= {parameter.key for parameter, _ in draws}
            overrides = [to_override(parameter, value) for parameter, value in draws]
            try:
                point = self.resolver.point([*self.fixed, *overrides, *self.seeds[0]])
            except CombinationError as error:
                refused |= dict.fromkeys(error.problems)
            except ConfigError as error:
                problems += error.problems
            else:
                points.setdefault(point.id, point)
        for parameter in self.parameters:
            if parameter.key not in drawn:
                known = known_keys(self.resolver.files(self.fixed))
                problems.append(unknown_key(parameter.key, known))
        if problems or not points:
            raise ConfigError([*(problems or refused)])
        if refused:
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            effect = "some combinations are refused, and count as failed trials"
            log.warning("%s: %s%s", effect, next(iter(refused)), more)
        return list(points.values())

    def _samples(self) -> Iterator[Draws]:
        first = {parameter.key: parameter.samples()[0] for parameter in self.parameters}
        tried = {p.key for p in self._files}
        for chosen in [{}, *[{p.key: value} for p in self._files for value in p.samples()[1:]]]:
            values = {**first, **chosen}
            draws = self._draw(lambda p, values=values: values[p.key])  # type: ignore[misc]
            yield draws
            for parameter, _ in draws:
                if parameter.key in tried:
                    continue
                tried.add(parameter.key)
                for value in parameter.samples()[1:]:
                    yield [(p, value if p is parameter else v) for p, v in draws]

    def _draw(self, suggest: Callable[[Parameter], Drawn]) -> Draws:
        draws = [(p, suggest(p)) for p in self._files]
        files = self.resolver.files([*self.fixed, *(to_override(p, value) for p, value in draws)])
        known = set(known_keys(files))
        others = [p for p in self.parameters if p not in self._files and p.key in known]
        return draws + [(p, suggest(p)) for p in others]

    @cached_property
    def _files(self) -> list[Parameter]:
        return [p for p in self.parameters if p.key in config_groups()]


def read_space(
    settings: OptunaConfig,
    parsed: Sequence[Override],
    resolver: ConfigResolver,
    config_dir: str | None,
) -> Space:
    """Return the search space of ``settings.params`` and of overrides, which take precedence.

    Requires ``composing()``. Raises ConfigError with all problems of settings and keys.
    """
    problems = Problems(_setting_problems(settings))
    with problems.collect():
        params = parse_params(settings.params, "hydra.sweeper.params")
        problems += group_problems(params)
    problems.check()
    last = {override.key_or_group: override for override in (*params, *parsed)}
    swept = [override for override in last.values() if override.is_sweep_override()]
    fixed = [override for override in last.values() if not override.is_sweep_override()]
    texts = tuple(text for override in fixed for text in single_overrides(override))
    keys = tuple(override.key_or_group for override in swept)
    seeds = _seeds(last.get("seed"))
    space = Space(keys, (), texts, seeds, resolver, config_dir, os.getcwd())
    return replace(space, parameters=_parameters(swept, space))


def _setting_problems(settings: OptunaConfig) -> list[str]:
    problems = []
    if find_spec("optuna") is None:
        problems.append(
            "hydra/sweeper=optuna needs the package optuna, which is not installed; run: "
            "pip install 'nnopt[search]'"
        )
    metric = settings.metric
    if metric not in COLUMNS:
        reason = suggest(metric, COLUMNS)
        if metric.startswith("test_"):
            reason = (
                "the test result of the best of many trials is biased; search by "
                "best_validation_accuracy instead"
            )
        problems.append(refused_value("hydra.sweeper.metric", metric, reason))
    return problems


def check_metric(settings: OptunaConfig, points: Sequence[Point]) -> None:
    """Raise ConfigError if the metric needs validation data, and a point has no such data.

    If the metric is a loss, and the loss function is searched, only a warning is printed, so that
    searches of earlier versions can be resumed.
    """
    if settings.metric.endswith("loss"):
        for key in LOSS_KEYS:
            if len({getattr(point.config, key) for point in points}) > 1:
                log.warning(
                    f"hydra.sweeper.metric = {settings.metric!r} has another meaning for each "
                    f"value of {key}, so the search favours the value with the smallest numbers; "
                    f"search by {settings.metric.replace('loss', 'accuracy')}"
                )
    sources = {point.config.dataset.validation.source for point in points}
    if "none" in sources and "validation" in settings.metric:
        raise ConfigError(
            f"hydra.sweeper.metric = {settings.metric!r} needs validation data, but "
            "dataset.validation.source = 'none'; set dataset.validation.source=train, because a "
            "search must not use the test set, or hydra.sweeper.metric=final_train_loss"
        )


def _seeds(override: Override | None) -> tuple[tuple[str, ...], ...]:
    """Return the override of each seed. Seeds are not sampled, because a trial runs all seeds."""
    if override is None or not override.is_sweep_override():
        return ((),)
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line!r}: the seed cannot be searched; seed=range(3) trains every "
            "trial with 3 seeds, and uses the mean"
        )
    return tuple((text,) for text in single_overrides(override))


def _parameters(swept: Sequence[Override], space: Space) -> tuple[Parameter, ...]:
    """Return the parameters, with choices of files first. Raises ConfigError with all problems."""
    parameters: list[Parameter] = []
    problems = Problems()
    sampled = [override for override in swept if override.key_or_group != "seed"]
    for override in sorted(sampled, key=lambda o: o.key_or_group not in config_groups()):
        with problems.collect():
            key = override.key_or_group
            whole = key not in config_groups() and _is_whole(key, space, parameters)
            parameters.append(read_parameter(override, whole))
            _recommend_log(parameters[-1])
    if not (parameters or problems):
        problems.append(
            "a search needs a key with several values, such as optimizer=sgd,adam, or with an "
            "interval, such as 'optimizer.lr=tag(log, interval(1e-4, 1))'"
        )
    problems.check()
    return tuple(parameters)


def _is_whole(key: str, space: Space, parameters: Sequence[Parameter]) -> bool:
    """Return whether a key accepts only integers for at least one sampled choice of files."""
    files = [parameter for parameter in parameters if parameter.key in config_groups()]
    choices = [(), *[(to_override(p, value),) for p in files for value in p.samples()]]
    return any(takes_whole_numbers(key, space.resolver.files([*space.fixed, *x])) for x in choices)


def _recommend_log(parameter: Parameter) -> None:
    """Warn if an interval of several powers of ten is sampled on a linear scale."""
    if not isinstance(parameter, Numbers) or parameter.log or parameter.low <= 0:
        return
    key, low, high = parameter.key, parameter.low, parameter.high
    if high / low >= WIDE_INTERVAL_RATIO and parameter.step is None:
        log.warning(
            f"{key} is sampled uniformly from {low:g} to {high:g}, 9 of 10 times above "
            f"{low + (high - low) / 10:.3g}; '{key}=tag(log, interval({low:g}, {high:g}))' samples "
            "each power of ten equally often"
        )
