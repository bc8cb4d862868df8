"""What may change when a sweep is continued: who runs it, where its data lie, and that it has more
points. Never a point that is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Override

from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.hydra import (
    check_hydra_keys,
    compose_files,
    composing,
    group_problems,
    is_hydras,
    parse_words,
    read_engines,
    with_entries,
    word_of,
)
from nnopt.config.point import leaves
from nnopt.config.validate import read_config, read_engine
from nnopt.errors import ConfigError, ResumeError
from nnopt.schema import WITHOUT_EFFECT, GridConfig, LauncherConfig
from nnopt.sweeps.manifest import Sweep, extend


def changed(sweep: Sweep, words: Sequence[str]) -> Sweep:
    """The sweep as these words of the command line want it; added points are written to it.

    The launcher and the place of the data are changed for this time only. Raises ConfigError for
    what would change the points that are there, ResumeError if new ones would not fit them.
    """
    # Whatever is composed has to find the same files of the user's as it did at the beginning.
    is_there = Path(sweep.working).is_dir()
    with chdir(sweep.working) if is_there else nullcontext():
        with composing(sweep.config_dir):
            parsed = parse_words(words)
            check_hydra_keys(parsed)
            if problems := [*group_problems(parsed), *_refusals(sweep, parsed)]:
                raise ConfigError(problems)
            launcher = _launcher(sweep, [o for o in parsed if is_hydras(o)])
        if added := [o for o in parsed if o.key_or_group in _addable(sweep)]:
            plan = _plan_with(sweep, added)
            sweep = extend(sweep, plan.points, plan.varied)
    data = {
        o.key_or_group.removeprefix("data."): o.value()
        for o in parsed
        if o.key_or_group.startswith("data.")
    }
    points = tuple(_with_data(point, data) for point in sweep.points) if data else sweep.points
    return replace(sweep, launcher=launcher, points=points)


def _refusals(sweep: Sweep, parsed: Sequence[Override]) -> Iterator[str]:
    """What the words want that cannot be had."""
    in_grids = set()
    if isinstance(sweep.sweeper, GridConfig):
        in_grids = {str(key).lstrip("+") for grid in sweep.sweeper.grids for key in grid}
    for override in parsed:
        key, word = override.key_or_group, word_of(override)
        if is_hydras(override):
            if not key.startswith(("hydra/launcher", "hydra.launcher.")):
                yield f"{word!r}: of Hydra's settings only those of the launcher can change now"
        elif key in in_grids:
            yield (
                f"{word!r}: the values of {key} stand in hydra.sweeper.grids, to which none can be "
                "added; begin a new sweep"
            )
        elif key.startswith("data.") and not override.is_sweep_override():
            continue
        elif key not in _addable(sweep):
            varied = ", ".join(_addable(sweep))
            yield (
                f"{word!r} would change the points that are there; only values of what the sweep "
                f"varies can be added ({varied}); begin a new sweep with nnopt run -m"
            )


def _addable(sweep: Sweep) -> tuple[str, ...]:
    """The keys that can be given more values. Every sweep can have more seeds."""
    return tuple(dict.fromkeys((*sweep.varied, "seed")))


def _launcher(sweep: Sweep, parsed: Sequence[Override]) -> LauncherConfig:
    """Who runs the points from now on."""
    if choice := [word_of(o) for o in parsed if o.key_or_group == "hydra/launcher"]:
        return read_engines(compose_files(choice, with_hydra=True).config, parsed)[1]
    container = with_entries("hydra.launcher", asdict(sweep.launcher), parsed)
    return cast(LauncherConfig, read_engine("hydra.launcher", container))


def _plan_with(sweep: Sweep, added: Sequence[Override]) -> Plan:
    """What the sweep's command line asks for with these values. Raises ConfigError, and ResumeError
    if the command line alone no longer makes the points that it made."""
    before = make_plan(sweep.words, multirun=True, config_dir=sweep.config_dir)
    there = {point.id for point in sweep.points}
    if changed := [point for point in before.points if point.id not in there]:
        keys = _differing(changed[0], sweep.points)
        raise ResumeError(
            "the YAML files, or nnopt, have changed since the sweep began, so added points would "
            f"not compare with its own: {keys}; begin a new sweep"
        )
    new = {override.key_or_group for override in added}
    with composing(sweep.config_dir):
        parsed = parse_words(sweep.words)
        kept = [word_of(o) for o in parsed if o.key_or_group not in new]
    words = [*kept, *map(word_of, added)]
    plan = make_plan(words, multirun=True, config_dir=sweep.config_dir)
    if isinstance(sweep.sweeper, GridConfig) and sweep.sweeper.mode == "one_at_a_time":
        _check_base(before, plan, new - {"seed"})
    return plan


def _check_base(before: Plan, after: Plan, keys: set[str]) -> None:
    """Of one change at a time the first values are the base. Raises ConfigError if they differ."""
    first, base = after.points[0].overrides, before.points[0].overrides
    for key in sorted(keys):
        (old,) = (word for word in base if word.lstrip("+").startswith(f"{key}="))
        if old not in first:
            raise ConfigError(
                f"hydra.sweeper.mode = 'one_at_a_time' changes the first value of each key, which "
                f"has to stay: begin the values of {key} with that of {old}"
            )


def _differing(point: Point, others: Sequence[Point]) -> str:
    """The keys in which a point differs from the one that the same overrides made."""
    twin = next((p for p in others if p.overrides == point.overrides), None)
    if twin is None:
        return f"there is no point {' '.join(point.overrides)}"
    now, then = dict(leaves(point.container)), dict(leaves(twin.container))
    keys = [key for key in now.keys() | then.keys() if now.get(key) != then.get(key)]
    return ", ".join(
        f"{key} was {then.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(keys)
        if key.partition(".")[0] not in WITHOUT_EFFECT
    )


def _with_data(point: Point, data: Mapping[str, Any]) -> Point:
    container = {**point.container, "data": {**point.container["data"], **data}}
    return replace(point, container=container, config=read_config(container))
