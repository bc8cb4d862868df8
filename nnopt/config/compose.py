"""Composes the configurations of a command line. Each configuration to run is called a point.

Hydra merges the YAML files. All points are checked before the first point starts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nnopt.config.conf_file import EXPERIMENTS, PLUGIN_GROUPS
from nnopt.config.conf_source import location_of
from nnopt.config.grid import expand, single_overrides
from nnopt.config.hydra import (
    check_hydra_keys,
    compose_files,
    composing,
    concerns_files,
    config_groups,
    group_problems,
    is_hydra_setting,
    is_plugin_key,
    one_line,
    override_text,
    parse_overrides,
    plain,
)
from nnopt.config.point import Point as Point
from nnopt.config.point import point_id as point_id
from nnopt.config.point import to_yaml as to_yaml
from nnopt.config.resolve import ConfigResolver, StoredConfig
from nnopt.config.validate import read_plugin
from nnopt.errors import ConfigError, Problems
from nnopt.schema import PLUGINS, Config, GridConfig, LauncherConfig, OptunaConfig, SweeperConfig

if TYPE_CHECKING:
    from nnopt.config.search_space import Space

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class Plan:
    """The checked points of a command line. A sweep may have a single point."""

    points: tuple[Point, ...]  # in a search, sample points of the search space
    is_sweep: bool
    varied: tuple[str, ...]  # the keys that vary, in the order of the command line
    directory: str | None  # the value of hydra.run.dir or hydra.sweep.dir
    sweeper: SweeperConfig
    launcher: LauncherConfig
    overrides: tuple[str, ...]  # the overrides on the command line
    config_dir: str | None  # the value of --config-dir
    space: Space | None = None  # the search space, in a search


def compose_config(overrides: Sequence[str] = (), config_dir: str | None = None) -> Config:
    """Return the configuration of one run: ``compose_config(["optimizer=adam"])``."""
    return plan_one(overrides, config_dir).points[0].config


def plan_one(
    overrides: Sequence[str], config_dir: str | None = None, base: StoredConfig | None = None
) -> Plan:
    """Return the plan of a single run; see ``make_plan``. Raises ConfigError with all problems."""
    plan = make_plan(overrides, config_dir=config_dir, base=base)
    if len(plan.points) > 1:
        raise ConfigError(f"one configuration is needed, but {len(plan.points)} are given")
    return plan


def make_plan(
    overrides: Sequence[str],
    multirun: bool = False,
    config_dir: str | None = None,
    base: StoredConfig | None = None,
) -> Plan:
    """Expand overrides into points, and check every point. Raises ConfigError.

    The command line is a sweep if ``multirun`` is true or the key ``hydra.mode`` is MULTIRUN. By
    default, the overrides change the configuration in the YAML files, otherwise that of ``base``.
    """
    with composing(config_dir, overrides):
        parsed = parse_overrides(overrides)
        check_hydra_keys(parsed)
        problems = group_problems(parsed)
        valid = [o for o in parsed if not group_problems([o])] if problems else parsed
        try:
            _check_base(base, valid, multirun)
            plan = _plan(valid, multirun, tuple(overrides), config_dir, base)
        except ConfigError as error:
            if not problems:
                raise
            raise ConfigError(problems + error.problems) from error
        if problems:
            raise ConfigError(problems)
        return plan


def _plan(
    parsed: Sequence[Override],
    multirun: bool,
    texts: tuple[str, ...],
    config_dir: str | None,
    base: StoredConfig | None,
) -> Plan:
    """Merge the files, read the sweep's settings, and expand ``parsed`` into checked points."""
    _warn_of_repetition(parsed)
    plugin_keys = [o for o in parsed if is_plugin_key(o)]
    parsed = [o for o in parsed if not is_plugin_key(o)]
    single = [o for o in parsed if not o.is_sweep_override()]
    files = compose_files([override_text(o) for o in single if concerns_files(o)], with_hydra=True)
    composed = files.config
    is_sweep = multirun or str(composed.hydra.mode or "").endswith("MULTIRUN")
    sweeper, launcher = read_plugins(composed, plugin_keys)
    if not is_sweep:
        _check_single(parsed, plugin_keys, sweeper)
    directory = named_directory(composed, single, is_sweep)
    own = [o for o in parsed if not is_hydra_setting(o)]
    resolver = ConfigResolver(base)
    resolver.remember(single, files)
    space: Space | None = None
    varied: tuple[str, ...] = ()
    if is_sweep and isinstance(sweeper, OptunaConfig):
        from nnopt.config.search_space import check_metric, read_space

        space = read_space(sweeper, own, resolver, config_dir)
        points, varied = tuple(space.samples()), space.keys
        check_metric(sweeper, points)
    elif is_sweep:
        assert isinstance(sweeper, GridConfig)
        lists, varied = expand(sweeper, own)
        points = _resolve_all(resolver, _with_choices(lists, varied, composed))
    else:
        last = {override.key_or_group: override for override in own}
        point = [text for override in last.values() for text in single_overrides(override)]
        points = _resolve_all(resolver, [point])
    return Plan(points, is_sweep, varied, directory, sweeper, launcher, texts, config_dir, space)


def _check_base(base: StoredConfig | None, parsed: Sequence[Override], multirun: bool) -> None:
    """Raise ConfigError for settings that do not apply to the configuration of a stored run."""
    if base is None:
        return
    if multirun:
        raise ConfigError("--from repeats one run, and -m runs a sweep; leave one of them out")
    groups = [o for o in parsed if o.key_or_group in config_groups()]
    if others := [o for o in groups if o.key_or_group not in base.container]:
        raise ConfigError(
            f"{override_text(others[0])!r} cannot change a stored run, because it sets keys of "
            "several groups; set the keys themselves"
        )


def read_plugins(
    composed: DictConfig, parsed: Sequence[Override]
) -> tuple[SweeperConfig, LauncherConfig]:
    """Return the settings of the sweeper and the launcher. Raises ConfigError."""
    settings, problems = [], Problems()
    for plugin in PLUGINS:
        node = OmegaConf.select(composed, plugin)
        try:
            container = plain(node) if OmegaConf.is_dict(node) else {}
            with problems.collect():
                settings.append(read_plugin(plugin, with_entries(plugin, container, parsed)))
        except OmegaConfBaseException as error:
            problems.append(f"{plugin}: {one_line(error)}")
    problems.check()
    sweeper, launcher = settings
    return sweeper, launcher


def with_entries(
    plugin: str, container: Mapping[str, Any], parsed: Sequence[Override]
) -> dict[str, Any]:
    """Return the settings of a sweeper or launcher, updated by overrides.

    ``hydra.sweeper.params.optimizer.lr=...`` sets the entry ``optimizer.lr`` of the map ``params``.
    If the old and the new value of a setting are maps, they are merged.
    """
    settings = dict(container)
    for override in parsed:
        key, value = override.key_or_group.removeprefix(f"{plugin}."), override.value()
        if key == override.key_or_group:
            continue
        field, _, entry = key.partition(".")
        before = settings.get(field)
        if isinstance(before, dict) and entry:
            key, value = field, {entry: value}
        if isinstance(before, dict) and isinstance(value, dict):
            value = before | value
        settings[key] = value
    return settings


def named_directory(composed: DictConfig, single: Sequence[Override], is_sweep: bool) -> str | None:
    """Return the value of hydra.run.dir or hydra.sweep.dir, or None. Raises ConfigError."""
    own, other = ("hydra.sweep.dir", "hydra.run.dir")[:: 1 if is_sweep else -1]
    if any(o.key_or_group == other for o in single):
        kind = "a sweep" if is_sweep else "a single run"
        raise ConfigError(f"{other} does not apply to {kind}; set {own}")
    try:
        named = composed.hydra.sweep if is_sweep else composed.hydra.run
        directory = named._get_node("dir")._value()
        if "${" not in str(directory):
            return directory or None
        # The folder's name refers to other keys, so Hydra must read all overrides.
        whole = compose_files([override_text(o) for o in single], with_hydra=True).config
        HydraConfig.instance().set_config(whole)
        return str(OmegaConf.select(whole, own))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{own}: {one_line(error)}") from error


def _check_single(
    parsed: Sequence[Override], plugin_keys: Sequence[Override], sweeper: SweeperConfig
) -> None:
    """Raise ConfigError for settings that only apply to a sweep."""
    if swept := [o for o in parsed if o.is_sweep_override()]:
        text = override_text(swept[0])
        raise ConfigError(f"{text!r} has several values; `nnopt run -m` runs them all")
    if unused := [*plugin_keys, *(o for o in parsed if o.key_or_group in PLUGIN_GROUPS)]:
        raise ConfigError(
            f"{override_text(unused[0])!r} applies to a sweep; `nnopt run -m` runs one"
        )
    if lists := [key for key in ("params", "grids") if getattr(sweeper, key, None)]:
        key = f"hydra.sweeper.{lists[0]}"
        raise ConfigError(
            f"a file sets {key}, which defines a sweep; run the sweep with `nnopt run -m`, or "
            f"add 'mode: MULTIRUN' below 'hydra:' in the file{location_of(key, lambda value: True)}"
        )


def _with_choices(
    points: Sequence[tuple[str, ...]], varied: Sequence[str], composed: DictConfig
) -> list[tuple[str, ...]]:
    """Return the points, with the choice in ``composed`` for each varied group that a point lacks.

    If an experiment, ablation or debug file varies, the points are returned unchanged.
    """
    groups = [key for key in varied if key in config_groups()]
    if not groups or set(groups) & set(EXPERIMENTS):
        return list(points)
    chosen = {group: f"{group}={composed.hydra.runtime.choices[group]}" for group in groups}
    given = ({text.partition("=")[0] for text in overrides} for overrides in points)
    return [
        (*(text for group, text in chosen.items() if group not in keys), *overrides)
        for keys, overrides in zip(given, points, strict=True)
    ]


def _warn_of_repetition(parsed: Sequence[Override]) -> None:
    last = {o.key_or_group: override_text(o) for o in parsed}
    for override in parsed:
        text, used = override_text(override), last[override.key_or_group]
        if text != used:
            log.warning("%s is overridden by %s", text, used)


def _resolve_all(resolver: ConfigResolver, points: Sequence[Sequence[str]]) -> tuple[Point, ...]:
    """Resolve the overrides of each point. Return one point for each distinct configuration."""
    by_id: dict[str, Point] = {}
    problems = Problems()
    for overrides in points:
        with problems.collect():
            point = resolver.point(overrides)
            by_id.setdefault(point.id, point)
    problems.check()
    if duplicates := len(points) - len(by_id):
        log.warning("%d of %d points repeat earlier ones and are left out", duplicates, len(points))
    return tuple(by_id.values())
