"""Expands the values of swept keys into the points (configurations to run) of a sweep."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import Override

from nnopt.config.grammar import check_count, shown
from nnopt.config.hydra import check_hydra_keys, group_problems, override_text, parse_overrides
from nnopt.errors import ConfigError, Problem, Problems, refused_value
from nnopt.schema import GridConfig
from nnopt.schema.values import format_value

log = logging.getLogger("nnopt")

MIN_NOTED_POINTS = 2_000
"""Number of points above which a message is printed, because the checks then take seconds."""

Overrides = tuple[str, ...]
"""The overrides of one point."""


@dataclass(frozen=True)
class Grid:
    """The points of one grid: combinations of the values of keys.

    The mode is ``grid`` (all combinations), ``zip`` (the k-th values of all keys, for each k) or
    ``one_at_a_time`` (at most one key differs from its first value). In every mode, the seed is not
    one of these keys: each combination is run with all seeds.
    """

    mode: str
    overrides: Mapping[str, Override]  # key -> override, which may have several values

    @cached_property
    def axes(self) -> dict[str, list[str]]:
        """Key -> one override for each value of the key."""
        return {key: single_overrides(override) for key, override in self.overrides.items()}

    @property
    def swept(self) -> list[str]:
        """The keys with several values, in order."""
        return [key for key, override in self.overrides.items() if override.is_sweep_override()]

    @property
    def count(self) -> int:
        """The number of points, computed without a list of all combinations."""
        if self.mode == "grid":
            return math.prod(map(len, self.axes.values()))
        return len(self._rows) * len(self.axes.get("seed", [""]))

    def points(self) -> Iterator[Overrides]:
        """Yield the overrides of each point, in the order of the keys."""
        if self.mode == "grid":
            yield from itertools.product(*self.axes.values())
            return
        for row in self._rows:
            point = {key: row.get(key, values[0]) for key, values in self.axes.items()}
            for seed in self.axes.get("seed", [""]):
                yield tuple((point | ({"seed": seed} if seed else {})).values())

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        """The combinations of varied keys except the seed, for ``zip`` and ``one_at_a_time``."""
        varied = {key: self.axes[key] for key in self.swept if key != "seed"}
        if self.mode == "one_at_a_time":
            base = {key: values[0] for key, values in varied.items()}
            changed = ((key, x) for key, values in varied.items() for x in values[1:])
            return [base, *({**base, key: value} for key, value in changed)]
        if len({len(values) for values in varied.values()}) > 1:
            counts = ", ".join(f"{key} has {len(values)}" for key, values in varied.items())
            raise ConfigError(
                "hydra.sweeper.mode = 'zip' needs the same number of values for every key, but "
                f"{counts}"
            )
        rows = zip(*varied.values(), strict=True)
        return [dict(zip(varied, row, strict=True)) for row in rows] or [{}]


def expand(
    settings: GridConfig, parsed: Sequence[Override]
) -> tuple[list[Overrides], tuple[str, ...]]:
    """Return the overrides of each point of a sweep, and the keys that vary, in order.

    ``parsed`` are the overrides on the command line. They take precedence over ``settings.params``,
    and ``settings.grids`` takes precedence over both. Raises ConfigError if a setting is wrong, or
    if the sweep has no points or too many points.
    """
    params = parse_params(settings.params, "hydra.sweeper.params")
    if not isinstance(settings.grids, tuple):
        raise ConfigError(
            refused_value("hydra.sweeper.grids", settings.grids, "needs a list of maps")
        )
    named = {f"hydra.sweeper.grids[{i}]": params for i, params in enumerate(settings.grids)}
    additions = [parse_params(params, where) for where, params in named.items()] or [[]]
    added = list(itertools.chain(*additions))
    Problems(group_problems([*params, *added])).check()
    typed = {override.key_or_group for override in parsed}
    for key in dict.fromkeys(o.key_or_group for o in added if o.key_or_group in typed):
        log.warning("%s is overridden by hydra.sweeper.grids", key)
    grids = [
        Grid(settings.mode, {o.key_or_group: o for o in (*params, *parsed, *addition)})
        for addition in additions
    ]
    points: list[Overrides] = []
    count = 0
    for grid in grids:
        count += grid.count
        check_count(count, "the sweep", "points")
        points += grid.points()
    if count > MIN_NOTED_POINTS:
        log.info("checking %s points before the first one starts", f"{count:,}")
    if not points:
        raise ConfigError("the sweep has 0 points; give each swept key at least one value")
    varied = dict.fromkeys(key for grid in grids for key in grid.swept)
    if settings.grids:  # a key with a single value in each grid varies if these values differ
        varied |= dict.fromkeys(_differing(points, [o.key_or_group for o in added]))
    return points, tuple(varied)


def parse_params(params: Any, where: str) -> list[Override]:
    """Parse a map from keys to values into overrides. ``where`` names the map in error messages."""
    if params is None:
        return []
    if not isinstance(params, Mapping):
        raise ConfigError(refused_value(where, params, "needs a map from keys to their values"))
    parsed: list[Override] = []
    problems = Problems()
    for key, value in params.items():
        name = f"{where}.{key} = {shown(value)}"
        if isinstance(value, Mapping):
            example = f"{key}.{next(iter(value), 'KEY')}"
            reason = f"needs values, not a map; write each key in full, such as {example}"
            problems.append(Problem(f"{name}: {reason}", f"{where}.{key}", value))
            continue
        text = f"{key}={format_value(value)}"
        try:
            overrides = parse_overrides([text])
            check_hydra_keys(overrides)
            parsed += overrides
        except ConfigError as error:
            reasons = [_without_override(problem, text) for problem in error.problems]
            problems += [Problem(f"{name}: {x}", f"{where}.{key}", value) for x in reasons]
    problems.check()
    return parsed


def _without_override(problem: str, text: str) -> str:
    """Return a problem without the override ``text``. The caller names the setting instead."""
    for named in (repr(text), shown(text)):
        problem = problem.removeprefix(f"{named}: ").replace(f"read {named}: ", "read it: ", 1)
    return problem


def single_overrides(override: Override) -> list[str]:
    """Return an override for each value of a sweep. Raises ConfigError for an interval."""
    if override.is_delete():
        return [override_text(override)]
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line!r}: an interval needs hydra/sweeper=optuna; else list "
            f"the values, such as {key}=1,2,3 or '{key}=range(3)'"
        )
    singles = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not singles:
        raise ConfigError(f"{override.input_line!r} has no value; give the key at least one")
    return singles


def _differing(points: Sequence[Overrides], keys: Sequence[str]) -> Iterator[str]:
    """Yield the keys whose values differ between points."""
    for key in dict.fromkeys(keys):
        texts = {next((x for x in p if x.lstrip("+").startswith(f"{key}=")), "") for p in points}
        if len(texts) > 1:
            yield key
