"""From the words of a command line to checked configurations: one for each point of a sweep.

Hydra composes the YAML; what it lets pass (``+typo=1``, values out of range) or reports one at a
time is checked here, for every point, before the first one starts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from nnopt.config.conf_file import ENGINE_GROUPS, EXPERIMENTS
from nnopt.config.conf_source import place_of
from nnopt.config.grid import expand, words_of
from nnopt.config.hydra import (
    check_hydra_keys,
    compose_files,
    composing,
    concerns_files,
    config_groups,
    group_problems,
    is_engine_key,
    is_hydras,
    named_directory,
    parse_words,
    read_engines,
    word_of,
)
from nnopt.config.point import Point as Point
from nnopt.config.point import point_id as point_id
from nnopt.config.point import to_yaml as to_yaml
from nnopt.config.resolve import Composer
from nnopt.errors import ConfigError
from nnopt.schema import Config, GridConfig, LauncherConfig, OptunaConfig, SweeperConfig

if TYPE_CHECKING:
    from nnopt.config.search_space import Space

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class Plan:
    """What a command line asks for. ``varied`` are the keys swept over, in their order;
    ``directory`` is a folder the user named with hydra.run.dir or hydra.sweep.dir; ``sweeper`` and
    ``launcher`` are the settings of who decides on a sweep's points and who runs them; ``words``
    and ``config_dir`` are what was typed. Of a search, ``space`` is what it draws from, and the
    points are samples of that."""

    points: tuple[Point, ...]
    is_sweep: bool
    varied: tuple[str, ...]
    directory: str | None
    sweeper: SweeperConfig
    launcher: LauncherConfig
    words: tuple[str, ...]
    config_dir: str | None
    space: Space | None = None


def compose_config(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """The configuration of one run, for use from Python: ``compose_config(["optimizer=adam"])``.

    Raises ConfigError with every problem found.
    """
    return plan_one(overrides, config_dir).points[0].config


def plan_one(overrides: Sequence[str], config_dir: str | None = None) -> Plan:
    """The plan of a single run. Raises ConfigError with every problem found."""
    plan = make_plan(overrides, config_dir=config_dir)
    if len(plan.points) > 1:
        raise ConfigError(f"one configuration is needed, but {len(plan.points)} are asked for")
    return plan


def make_plan(
    overrides: Sequence[str], multirun: bool = False, config_dir: str | None = None
) -> Plan:
    """Expand the overrides into points and check every one.

    Raises ConfigError with all problems of all points, each said once.
    """
    with composing(config_dir):
        parsed = parse_words(overrides)
        check_hydra_keys(parsed)
        problems = group_problems(parsed)
        if problems:  # what is wrong with the rest?
            rest = [word_of(o) for o in parsed if not group_problems([o])]
            raise ConfigError(problems + _problems_of(rest, multirun, config_dir))
        _warn_of_repetition(parsed)
        engine = [o for o in parsed if is_engine_key(o)]
        parsed = [o for o in parsed if not is_engine_key(o)]
        single = [o for o in parsed if not o.is_sweep_override()]
        files = compose_files([word_of(o) for o in single if concerns_files(o)], with_hydra=True)
        composed = files.config
        is_sweep = multirun or str(composed.hydra.mode or "").endswith("MULTIRUN")
        sweeper, launcher = read_engines(composed, engine)
        if not is_sweep:
            _check_single(parsed, engine, sweeper)
        directory = named_directory(composed, single, is_sweep)
        own = [o for o in parsed if not is_hydras(o)]
        composer = Composer()
        composer.remember(single, files)
        words = tuple(overrides)
        if is_sweep and isinstance(sweeper, OptunaConfig):
            from nnopt.config.search_space import check_metric, read_space

            space = read_space(sweeper, own, composer, config_dir)
            samples = tuple(space.samples())
            check_metric(sweeper, samples)
            return Plan(
                samples, True, space.keys, directory, sweeper, launcher, words, config_dir, space
            )
        assert isinstance(sweeper, GridConfig)  # which a single run has no use for
        lists, varied = expand(sweeper, own) if is_sweep else ([_single_point(own)], ())
        points = _compose_all(composer, _with_choices(lists, varied, composed))
        return Plan(points, is_sweep, varied, directory, sweeper, launcher, words, config_dir)


def _check_single(
    parsed: Sequence[Override], engine: Sequence[Override], sweeper: SweeperConfig
) -> None:
    """Raise ConfigError for what only a sweep can follow."""
    if swept := [o for o in parsed if o.is_sweep_override()]:
        word = word_of(swept[0])
        raise ConfigError(f"{word!r} has several values; `nnopt run -m` runs them all")
    if idle := [*engine, *(o for o in parsed if o.key_or_group in ENGINE_GROUPS)]:
        raise ConfigError(f"{word_of(idle[0])!r} concerns a sweep; `nnopt run -m` runs one")
    lists = [key for key in ("params", "grids") if getattr(sweeper, key, None)]
    if lists:
        key = f"hydra.sweeper.{lists[0]}"
        raise ConfigError(
            f"a file sets {key}, which lists the points of a sweep; run it with `nnopt run -m`, or "
            f"add 'mode: MULTIRUN' below 'hydra:' in the file{place_of(key, lambda value: True)}"
        )


def _single_point(parsed: Sequence[Override]) -> tuple[str, ...]:
    """Of a key that is set twice, the last counts."""
    last = {override.key_or_group: override for override in parsed}
    return tuple(word for override in last.values() for word in words_of(override))


def _with_choices(
    lists: Sequence[tuple[str, ...]], varied: Sequence[str], composed: DictConfig
) -> list[tuple[str, ...]]:
    """The points' overrides, with the file of every group that varies: a point of concatenated
    grids may leave it to the default."""
    groups = [key for key in varied if key in config_groups()]
    if not groups or set(groups) & set(EXPERIMENTS):
        return list(lists)
    chosen = {group: f"{group}={composed.hydra.runtime.choices[group]}" for group in groups}
    return [
        (*(w for g, w in chosen.items() if not any(x.startswith(f"{g}=") for x in words)), *words)
        for words in lists
    ]


def _problems_of(overrides: Sequence[str], multirun: bool, config_dir: str | None) -> list[str]:
    try:
        make_plan(overrides, multirun, config_dir)
    except ConfigError as error:
        return error.problems
    return []


def _warn_of_repetition(parsed: Sequence[Override]) -> None:
    """Say which of two settings of one key counts."""
    last = {o.key_or_group: word_of(o) for o in parsed}
    for override in parsed:
        word, counts = word_of(override), last[override.key_or_group]
        if word != counts:
            log.warning("%s is given, and later %s, which is used", word, counts)


def _compose_all(composer: Composer, lists: Sequence[Sequence[str]]) -> tuple[Point, ...]:
    """Every point of a sweep; points that resolve to the same configuration once."""
    points: dict[str, Point] = {}
    problems: dict[str, None] = {}
    for words in lists:
        try:
            point = composer.point(words)
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
        else:
            points.setdefault(point.id, point)
    if problems:
        raise ConfigError(list(problems))
    if len(points) < len(lists):
        log.warning(
            "%d of %d points have the settings of another point and are left out",
            len(lists) - len(points),
            len(lists),
        )
    return tuple(points.values())
