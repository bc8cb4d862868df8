"""What a search draws from, and the points that draws make: checked before a search begins, without
Optuna, which is not imported here.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec

from hydra.core.override_parser.types import Override

from nnopt.config.grid import parse_params, words_of
from nnopt.config.hydra import composing, config_groups, group_problems
from nnopt.config.point import Point
from nnopt.config.resolve import Composer
from nnopt.config.search_parameters import Drawn, Numbers, Parameter, read_parameter, word
from nnopt.config.validate import known_keys, takes_whole_numbers
from nnopt.errors import CombinationError, ConfigError
from nnopt.schema import OptunaConfig
from nnopt.schema.reader import unknown_key

log = logging.getLogger("nnopt")

Draws = list[tuple[Parameter, Drawn]]

COLUMNS = {
    "best_validation_accuracy": "validation_accuracy",
    "best_validation_loss": "validation_loss",
    "final_train_accuracy": "train_accuracy",
    "final_train_loss": "train_loss",
}
"""Metric to search by -> the column of ``metrics.csv`` that tells how a run is getting on."""

WIDE = 100
"""An interval whose ends differ by such a factor is told about tag(log, ...)."""


@dataclass(frozen=True)
class Space:
    """What can be drawn.

    keys: that vary, in the order of the command line, the seed too if there are several.
    parameters: choices of files first, then the other keys.
    fixed: the words that hold for every point. seeds: words that set the seed; each trial has a
    point for each of them. One that is empty, if the seed is not swept over.
    config_dir, working: folders with the user's YAML files, as for ``make_plan``, and the one that
    it worked in.
    """

    keys: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...]
    seeds: tuple[tuple[str, ...], ...]
    composer: Composer
    config_dir: str | None
    working: str

    @contextmanager
    def composing(self) -> Iterator[None]:
        """Within it the other methods can be called: YAML files are those that it began with."""
        with ExitStack() as stack:
            with self.there():
                stack.enter_context(composing(self.config_dir))
            yield

    def there(self) -> AbstractContextManager[None]:
        """Within it relative paths are of the folder that the search began in, if that exists."""
        return chdir(self.working) if os.path.isdir(self.working) else nullcontext()

    def draw(self, suggest: Callable[[Parameter], Drawn]) -> list[str]:
        """The words of one trial. ``suggest`` draws a parameter; keys that the chosen files do not
        have are not drawn."""
        return [word(parameter, value) for parameter, value in self._draw(suggest)]

    def points(self, words: Sequence[str]) -> list[Point]:
        """The points of one trial, one for each seed. Raises ConfigError if a rule refuses them."""
        return [self.composer.point([*self.fixed, *words, *seed]) for seed in self.seeds]

    def points_of(self, settings: OptunaConfig) -> int:
        """How many points a search has when all its trials have run."""
        return settings.trials * len(self.seeds)

    def samples(self) -> list[Point]:
        """Points with each choice and the ends of each range, every other key at its first value;
        without those that a rule refuses, of which a warning tells.

        Raises ConfigError if a value is not allowed, whatever the others are; if no choice of files
        has a key; or if every point is refused.
        """
        problems: dict[str, None] = {}
        refused: dict[str, None] = {}
        points: dict[str, Point] = {}
        drawn: set[str] = set()
        for draws in self._samples():
            drawn |= {parameter.key for parameter, _ in draws}
            words = [word(parameter, value) for parameter, value in draws]
            try:
                point = self.composer.point([*self.fixed, *words, *self.seeds[0]])
            except CombinationError as error:
                refused |= dict.fromkeys(error.problems)
            except ConfigError as error:
                problems |= dict.fromkeys(error.problems)
            else:
                points.setdefault(point.id, point)
        for parameter in self.parameters:
            if parameter.key not in drawn:
                known = known_keys(self.composer.files(self.fixed))
                problems[unknown_key(parameter.key, known)] = None
        if problems or not points:
            raise ConfigError(list(problems or refused))
        if refused:
            more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            what = "draws like this will be refused, and count as failed trials"
            log.warning("%s: %s%s", what, next(iter(refused)), more)
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
        files = self.composer.files([*self.fixed, *(word(p, value) for p, value in draws)])
        known = set(known_keys(files))
        others = [p for p in self.parameters if p not in self._files and p.key in known]
        return draws + [(p, suggest(p)) for p in others]

    @cached_property
    def _files(self) -> list[Parameter]:
        return [p for p in self.parameters if p.key in config_groups()]


def read_space(
    settings: OptunaConfig, parsed: Sequence[Override], composer: Composer, config_dir: str | None
) -> Space:
    """What a search is to draw from. To be called within ``composing``.

    parsed: the command line's overrides, which win over ``settings.params``.
    Raises ConfigError with all problems of the settings and the keys.
    """
    problems = _setting_problems(settings)
    try:
        params = parse_params(settings.params, "hydra.sweeper.params")
        problems += group_problems(params)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    last = {override.key_or_group: override for override in (*params, *parsed)}
    swept = [override for override in last.values() if override.is_sweep_override()]
    fixed = [override for override in last.values() if not override.is_sweep_override()]
    words = tuple(text for override in fixed for text in words_of(override))
    keys = tuple(override.key_or_group for override in swept)
    seeds = _seeds(last.get("seed"))
    space = Space(keys, (), words, seeds, composer, config_dir, os.getcwd())
    return replace(space, parameters=_parameters(swept, space))


def _setting_problems(settings: OptunaConfig) -> list[str]:
    problems = []
    if find_spec("optuna") is None:
        problems.append(
            "hydra/sweeper=optuna needs the package optuna, which is not installed; run: "
            "pip install 'nnopt[search]'"
        )
    metric = settings.metric
    if metric.startswith("test_"):
        problems.append(
            f"hydra.sweeper.metric = {metric!r}: the test result of the best of many trials would "
            "be no honest estimate any more; search by best_validation_accuracy instead"
        )
    elif metric not in COLUMNS:
        close = difflib.get_close_matches(metric, COLUMNS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        problems.append(f"hydra.sweeper.metric = {metric!r}: {hint}allowed: {', '.join(COLUMNS)}")
    return problems


def check_metric(settings: OptunaConfig, points: Sequence[Point]) -> None:
    """Raises ConfigError if there is nothing to validate with."""
    without = any(point.config.dataset.validation.source == "none" for point in points)
    if without and "validation" in settings.metric:
        raise ConfigError(
            f"hydra.sweeper.metric = {settings.metric!r} needs validation data, but "
            "dataset.validation.source = 'none'; set dataset.validation.source=train, since the "
            "test set must not choose, or hydra.sweeper.metric=final_train_loss"
        )


def _seeds(override: Override | None) -> tuple[tuple[str, ...], ...]:
    """Several seeds are no parameter of a search: each trial has all of them."""
    if override is None or not override.is_sweep_override():
        return ((),)
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line!r}: a seed is not searched for; seed=range(3) trains every "
            "trial with 3 seeds, and their mean counts"
        )
    return tuple((text,) for text in words_of(override))


def _parameters(swept: Sequence[Override], space: Space) -> tuple[Parameter, ...]:
    """Choices of files first. Raises ConfigError with all problems."""
    files: list[Parameter] = []
    others: list[Parameter] = []
    problems: list[str] = []
    for override in sorted(swept, key=lambda o: o.key_or_group not in config_groups()):
        key = override.key_or_group
        if key == "seed":
            continue
        is_file = key in config_groups()
        try:
            parameter = read_parameter(override, not is_file and _is_whole(key, space, files))
        except ConfigError as error:
            problems += error.problems
        else:
            (files if is_file else others).append(parameter)
            _advise(parameter)
    if not (files or others or problems):
        problems.append(
            "a search needs a key to draw: several values, such as optimizer=sgd,adam, or an "
            "interval, such as 'optimizer.lr=tag(log, interval(1e-4, 1))'"
        )
    if problems:
        raise ConfigError(problems)
    return (*files, *others)


def _is_whole(key: str, space: Space, files: Sequence[Parameter]) -> bool:
    """Does the key take whole numbers, with any of the files that may be chosen?"""
    choices = [(), *[(word(p, value),) for p in files for value in p.samples()]]
    return any(
        takes_whole_numbers(key, space.composer.files([*space.fixed, *words])) for words in choices
    )


def _advise(parameter: Parameter) -> None:
    """Learning rates are often given as an interval of several powers of ten."""
    if not isinstance(parameter, Numbers) or parameter.log or parameter.low <= 0:
        return
    key, low, high = parameter.key, parameter.low, parameter.high
    if high / low >= WIDE and parameter.step is None:
        log.warning(
            f"{key} is drawn evenly from {low:g} to {high:g}, 9 of 10 times above "
            f"{low + (high - low) / 10:.3g}; '{key}=tag(log, interval({low:g}, {high:g}))' draws "
            "each power of ten as often"
        )
