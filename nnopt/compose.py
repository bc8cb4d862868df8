"""From the words of a command line to checked configurations: one for each point of a sweep.

Hydra composes the YAML; what it lets pass (``+typo=1``, values out of range) or reports one at a
time is checked here, for every point, before the first one starts.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nnopt.errors import ConfigError
from nnopt.hydra_adapter import (
    check_hydra_keys,
    compose_files,
    composing,
    concerns_files,
    config_groups,
    group_problems,
    named_directory,
    one_line,
    parse_words,
    plain,
    word_of,
)
from nnopt.schema import WITHOUT_EFFECT, Config, CsvConfig
from nnopt.validate import known_keys, read_config, unknown_key

log = logging.getLogger("nnopt")


@dataclass(frozen=True)
class Point:
    """One configuration to run: what it resolves to, and the overrides that make it."""

    id: str
    config: Config
    container: Mapping[str, Any]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a command line asks for. ``varied`` are the keys swept over, in their order;
    ``directory`` is a folder the user named with hydra.run.dir or hydra.sweep.dir."""

    points: tuple[Point, ...]
    is_sweep: bool
    varied: tuple[str, ...]
    directory: str | None


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


def compose_words(verb: str, purpose: str, words: Sequence[str]) -> Config:
    """The configuration that the words after a verb ask for; answers --help itself."""
    options = words_parser(verb, purpose).parse_intermixed_args(words)
    return compose_config(options.overrides, options.config_dir)


def words_parser(verb: str, purpose: str) -> ArgumentParser:
    """A parser of ``overrides`` and ``config_dir``, for a verb to add options of its own."""
    parser = ArgumentParser(f"nnopt {verb}", description=purpose)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for nnopt run")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with more YAML files")
    return parser


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
        single = [o for o in parsed if not o.is_sweep_override()]
        composed = compose_files([word_of(o) for o in single if concerns_files(o)], with_hydra=True)
        settings = composed.hydra
        is_sweep = multirun or str(settings.mode or "").endswith("MULTIRUN")
        directory = named_directory(composed, single, is_sweep)
        if not is_sweep and len(single) < len(parsed):
            swept = next(o.input_line for o in parsed if o.is_sweep_override())
            raise ConfigError(f"{swept!r} has several values; `nnopt run -m` runs them all")
        parameters = settings.sweeper.params or {} if is_sweep else {}
        parsed = parse_words([*[f"{key}={value}" for key, value in parameters.items()], *overrides])
        if problems := group_problems(parsed):
            raise ConfigError(problems)
        varied = dict.fromkeys(o.key_or_group for o in parsed if o.is_sweep_override())
        lists = BasicSweeper.split_arguments(parsed, None)[0]
        if not lists:
            raise ConfigError("the sweep has 0 points; give each swept key at least one value")
        chosen = tuple(word_of(o) for o in single if o.key_or_group in config_groups())
        bases = {
            chosen: OmegaConf.masked_copy(composed, [str(k) for k in composed if k != "hydra"])
        }
        return Plan(_compose_all(lists, bases), is_sweep, tuple(varied), directory)


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
            log.warning("%s is set again: %s counts", word, counts)


def _compose_all(
    lists: Sequence[Sequence[str]], bases: dict[tuple[str, ...], DictConfig]
) -> tuple[Point, ...]:
    """Every point of a sweep; points that resolve to the same configuration once.

    What depends on the chosen files alone is composed once, since that is what takes the time;
    ``bases`` has what is composed already.
    """
    points: dict[str, Point] = {}
    problems: dict[str, None] = {}
    for overrides in lists:
        parsed = parse_words(overrides)
        choices = tuple(word_of(o) for o in parsed if o.key_or_group in config_groups())
        if choices not in bases:
            bases[choices] = compose_files(choices)
        try:
            point = _point(bases[choices], parsed)
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
        else:
            points.setdefault(point.id, point)
    if problems:
        raise ConfigError(list(problems))
    if len(points) < len(lists):
        log.warning(
            "%d of %d points ask for what others do; it runs once",
            len(lists) - len(points),
            len(lists),
        )
    return tuple(points.values())


def _point(base: DictConfig, overrides: Sequence[Override]) -> Point:
    """Set values on what the chosen files compose to, and check the outcome."""
    composed = copy.deepcopy(base)
    OmegaConf.set_struct(composed, False)
    known = known_keys(plain(base))
    problems = []
    kept = [o for o in overrides if not o.key_or_group.startswith("hydra.")]
    for override in kept:
        key = override.key_or_group
        if key in config_groups():
            continue
        if key not in known:
            problems.append(unknown_key(key, known))
        elif override.is_delete():
            problems.append(f"{override.input_line!r}: the key {key!r} cannot be left out")
        else:
            OmegaConf.update(composed, key, override.value(), merge=True)
    try:
        container = plain(composed)
        config = read_config(container)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    except OmegaConfBaseException as error:
        raise ConfigError([*problems, one_line(error)]) from None
    if problems:
        raise ConfigError(problems)
    words = tuple(word_of(o) for o in kept)
    return Point(point_id(config), config, container, words)


def to_yaml(container: Mapping[str, Any]) -> str:
    """The resolved values as they stand in a run's ``config.yaml``."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(container)))


def point_id(config: Config) -> str:
    """A name for a configuration: readable in front, then a hash of every value that can change
    what it computes (where a published dataset lies cannot). The same in every process, and
    whatever else is in the sweep."""
    relevant = {key: v for key, v in asdict(config).items() if key not in WITHOUT_EFFECT}
    if isinstance(config.dataset, CsvConfig):  # whose files are the user's own, found from there
        relevant["root"] = config.data.root
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:10]
    groups = (config.dataset, config.backend, config.architecture, config.optimizer)
    return f"{'-'.join(group.name for group in groups)}-s{config.seed}-{digest}"
