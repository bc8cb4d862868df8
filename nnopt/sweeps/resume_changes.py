"""Changes to a sweep on resume: another launcher, other paths of data, and additional points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

from hydra.core.override_parser.types import Override

from nnopt.config.compose import Plan, Point, make_plan, read_plugins, with_entries
from nnopt.config.hydra import (
    check_hydra_keys,
    compose_files,
    composing,
    group_problems,
    is_hydra_setting,
    override_text,
    parse_overrides,
)
from nnopt.config.plugins import loaded_files_only
from nnopt.config.validate import read_config, read_plugin
from nnopt.errors import ConfigError, ResumeError
from nnopt.io.paths import in_folder
from nnopt.schema import WITHOUT_EFFECT, GridConfig, LauncherConfig, renamed_key
from nnopt.schema.values import flatten
from nnopt.sweeps.manifest import Sweep, extend_sweep


def apply_overrides(sweep: Sweep, overrides: Sequence[str]) -> Sweep:
    """Apply the overrides of ``nnopt resume`` to a sweep, and return the changed sweep.

    Additional points are written to ``sweep.json``. Other changes apply to this resume only. Raises
    ConfigError if an override would change existing points, and ResumeError if the new points would
    not be comparable with the existing points.
    """
    # Paths of YAML files are relative to the working directory in which the sweep was created.
    with in_folder(sweep.working_dir):
        with composing(sweep.config_dir):
            parsed = parse_overrides(overrides)
            check_hydra_keys(parsed)
            if problems := [*group_problems(parsed), *_refusals(sweep, parsed)]:
                raise ConfigError(problems)
            launcher = _launcher(sweep, [o for o in parsed if is_hydra_setting(o)])
        if added := [o for o in parsed if o.key_or_group in _addable(sweep)]:
            plan = _plan_with(sweep, added)
            sweep = extend_sweep(sweep, plan.points, plan.varied)
    changed = [override for override in parsed if override.key_or_group.startswith("data.")]
    data = {o.key_or_group.removeprefix("data."): o.value() for o in changed}
    points = tuple(_with_data(point, data) for point in sweep.points) if data else sweep.points
    return replace(sweep, launcher=launcher, points=points)


def _refusals(sweep: Sweep, parsed: Sequence[Override]) -> Iterator[str]:
    """Yield an error for each override that is not allowed on resume."""
    addable, in_grids = _addable(sweep), set()
    if isinstance(sweep.sweeper, GridConfig):
        in_grids = {str(key).lstrip("+") for grid in sweep.sweeper.grids for key in grid}
    for override in parsed:
        key, text = override.key_or_group, override_text(override)
        if message := renamed_key(key):
            yield message
        elif is_hydra_setting(override):
            if not key.startswith(("hydra/launcher", "hydra.launcher.")):
                yield f"{text!r}: on resume, Hydra's settings cannot change, except the launcher's"
        elif key in in_grids:
            yield (
                f"{text!r}: the values of {key} are in hydra.sweeper.grids, to which no values "
                "can be added; start a new sweep"
            )
        elif key not in addable and (not key.startswith("data.") or override.is_sweep_override()):
            yield (
                f"{text!r} would change the existing points; on resume, values can be added to the "
                f"varied keys only ({', '.join(addable)}); start a new sweep with nnopt run -m"
            )


def _addable(sweep: Sweep) -> tuple[str, ...]:
    """Return the keys that can get additional values. Seeds can be added to every sweep."""
    return tuple(dict.fromkeys((*sweep.varied, "seed")))


def _launcher(sweep: Sweep, parsed: Sequence[Override]) -> LauncherConfig:
    if choice := [override_text(o) for o in parsed if o.key_or_group == "hydra/launcher"]:
        return read_plugins(compose_files(choice, with_hydra=True).config, parsed)[1]
    container = with_entries("hydra.launcher", asdict(sweep.launcher), parsed)
    return cast(LauncherConfig, read_plugin("hydra.launcher", container))


def _plan_with(sweep: Sweep, added: Sequence[Override]) -> Plan:
    """Return the plan of the sweep's overrides and ``added``, which replaces equal keys."""
    with loaded_files_only():
        before = make_plan(sweep.overrides, multirun=True, config_dir=sweep.config_dir)
    known = {point.id for point in sweep.points}
    if changed := [point for point in before.points if point.id not in known]:
        keys = _differing(changed[0], sweep.points)
        raise ResumeError(
            "the YAML files, or nnopt, have changed since the sweep began, so added points would "
            f"not be comparable with the existing points: {keys}; start a new sweep"
        )
    new = {override.key_or_group for override in added}
    with composing(sweep.config_dir):
        parsed = parse_overrides(sweep.overrides)
        kept = [override_text(o) for o in parsed if o.key_or_group not in new]
    overrides = [*kept, *map(override_text, added)]
    with loaded_files_only():
        plan = make_plan(overrides, multirun=True, config_dir=sweep.config_dir)
    if isinstance(sweep.sweeper, GridConfig) and sweep.sweeper.mode == "one_at_a_time":
        _check_base(before, plan, new - {"seed"})
    return plan


def _check_base(before: Plan, after: Plan, keys: set[str]) -> None:
    """Raise ConfigError if a key's first value changes. The points that vary other keys use it."""
    first, base = after.points[0].overrides, before.points[0].overrides
    for key in sorted(keys):
        (old,) = (text for text in base if text.lstrip("+").startswith(f"{key}="))
        if old not in first:
            raise ConfigError(
                "with hydra.sweeper.mode = 'one_at_a_time', the first value of a key must not "
                f"change; it was {old}, so begin the new values of {key} with this value"
            )


def _differing(point: Point, others: Sequence[Point]) -> str:
    """Return how a point differs from the one in ``others`` that has the same overrides."""
    twin = next((p for p in others if p.overrides == point.overrides), None)
    if twin is None:
        return f"the sweep has no point {' '.join(point.overrides)}"
    now, then = dict(flatten(point.container)), dict(flatten(twin.container))
    keys = [key for key in now.keys() | then.keys() if now.get(key) != then.get(key)]
    return ", ".join(
        f"{key} was {then.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(keys)
        if key.partition(".")[0] not in WITHOUT_EFFECT
    )


def _with_data(point: Point, data: Mapping[str, Any]) -> Point:
    container = {**point.container, "data": {**point.container["data"], **data}}
    return replace(point, container=container, config=read_config(container))
