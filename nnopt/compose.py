"""From the words of a command line to checked configurations: one for each point of a sweep.

Hydra composes the YAML; what it lets pass (``+typo=1``, values out of range) or reports one at a
time is checked here, for every point, before the first one starts.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import logging
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from nnopt.errors import ConfigError
from nnopt.schema import Config, CsvConfig
from nnopt.validate import known_keys, read_config, unknown_key

log = logging.getLogger("nnopt")

WITHOUT_EFFECT = ("name", "plots", "layer_statistics", "data")
"""Top-level keys that cannot change what a run computes, so they are not part of a point's id."""


HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.mode", "hydra.sweeper.params")


class UserConf(SearchPathPlugin):
    """Puts the user's own ``./conf`` before nnopt's, so that its files add to and override them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        user = Path.cwd() / "conf"
        if user.is_dir() and user != Path(__file__).resolve().parent.parent / "conf":
            search_path.prepend(provider="nnopt-user", path=f"file://{user}")


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


def register_plugins() -> None:
    """Tell Hydra about the user's conf folder. Idempotent."""
    Plugins.instance().register(UserConf)


@contextmanager
def composing(config_dir: str | None = None) -> Iterator[None]:
    """Within it, Hydra finds nnopt's and the user's YAML files."""
    register_plugins()
    GlobalHydra.instance().clear()
    _groups.cache_clear()
    with initialize_config_module("nnopt.conf", version_base="1.3", job_name="nnopt"):
        if config_dir is not None:
            _search_also(Path(config_dir))
        yield


def _search_also(folder: Path) -> None:
    """Find files in one more folder, after nnopt's own. Raises ConfigError if there is none."""
    if not folder.is_dir():
        raise ConfigError(f"--config-dir = {str(folder)!r}: needs a folder that exists")
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    place = f"file://{folder.absolute()}"
    loader.get_search_path().prepend("command-line", place, anchor="schema")  # which stays last
    loader.repository = ConfigRepository(loader.get_search_path())


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
        parsed = _parse(overrides)
        _check_hydra_keys(parsed)
        problems = _group_problems(parsed)
        if problems:  # what is wrong with the rest?
            rest = [_word(o) for o in parsed if not _group_problems([o])]
            raise ConfigError(problems + _problems_of(rest, multirun, config_dir))
        _warn_of_repetition(parsed)
        single = [o for o in parsed if not o.is_sweep_override()]
        composed = _compose([_word(o) for o in single if _concerns_files(o)], with_hydra=True)
        settings = composed.hydra
        is_sweep = multirun or str(settings.mode or "").endswith("MULTIRUN")
        directory = _named_directory(composed, single, is_sweep)
        if not is_sweep and len(single) < len(parsed):
            swept = next(o.input_line for o in parsed if o.is_sweep_override())
            raise ConfigError(f"{swept!r} has several values; `nnopt run -m` runs them all")
        parameters = settings.sweeper.params or {} if is_sweep else {}
        parsed = _parse([*[f"{key}={value}" for key, value in parameters.items()], *overrides])
        if problems := _group_problems(parsed):
            raise ConfigError(problems)
        varied = dict.fromkeys(o.key_or_group for o in parsed if o.is_sweep_override())
        lists = BasicSweeper.split_arguments(parsed, None)[0]
        if not lists:
            raise ConfigError("the sweep has 0 points; give each swept key at least one value")
        chosen = tuple(_word(o) for o in single if o.key_or_group in _groups())
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
    last = {o.key_or_group: _word(o) for o in parsed}
    for override in parsed:
        if last[override.key_or_group] != _word(override):
            log.warning("%s is set again: %s counts", _word(override), last[override.key_or_group])


def _check_hydra_keys(parsed: Sequence[Override]) -> None:
    """Refuse settings of Hydra's that nnopt would not follow."""
    problems = [
        f"{o.input_line!r}: nnopt follows no setting of Hydra's but {', '.join(HYDRA_KEYS)}"
        for o in parsed
        if o.key_or_group.startswith(("hydra.", "hydra/")) and o.key_or_group not in HYDRA_KEYS
    ]
    if problems:
        raise ConfigError(problems)


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
        parsed = _parse(overrides)
        choices = tuple(_word(o) for o in parsed if o.key_or_group in _groups())
        if choices not in bases:
            bases[choices] = _compose(choices)
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


def _compose(overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """What Hydra makes of the overrides."""
    try:
        return compose("config", overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(one_line(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"a YAML file in your conf folder is not UTF-8 text: {error}") from error


def _point(base: DictConfig, overrides: Sequence[Override]) -> Point:
    """Set values on what the chosen files compose to, and check the outcome."""
    composed = copy.deepcopy(base)
    OmegaConf.set_struct(composed, False)
    known = known_keys(plain(base))
    problems = []
    kept = [o for o in overrides if not o.key_or_group.startswith("hydra.")]
    for override in kept:
        key = override.key_or_group
        if key in _groups():
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
    words = tuple(_word(o) for o in kept)
    return Point(point_id(config), config, container, words)


def _word(override: Override) -> str:
    """The override as it was written."""
    return override.input_line or ""


def _concerns_files(override: Override) -> bool:
    """Is it a choice of a file, or a setting of Hydra's? These have to go through Hydra."""
    return override.key_or_group in _groups() or override.key_or_group.startswith("hydra.")


def _named_directory(
    composed: DictConfig, single: Sequence[Override], is_sweep: bool
) -> str | None:
    """The folder that the user asked for, on the command line or in a file of theirs, if any."""
    mine, other = ("hydra.sweep.dir", "hydra.run.dir")[:: 1 if is_sweep else -1]
    if any(o.key_or_group == other for o in single):
        kind = "a sweep" if is_sweep else "a single run"
        raise ConfigError(f"{other} does not apply to {kind}; its folder is {mine}")
    try:
        named = composed.hydra.sweep if is_sweep else composed.hydra.run
        if named._get_node("dir")._value() in ("", None):
            return None
        # It may be made of other keys, so the other overrides count now.
        whole = _compose([_word(o) for o in single], with_hydra=True)
        HydraConfig.instance().set_config(whole)
        return str(OmegaConf.select(whole, mine))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{mine}: {one_line(error)}") from error


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed, problems = [], []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except HydraException as error:
            problems.append(f"cannot read {override!r}: write key=value ({one_line(error)})")
    if problems:
        raise ConfigError(problems)
    return parsed


@cache
def _groups() -> frozenset[str]:
    """The config groups, nnopt's and the user's."""
    loader = GlobalHydra.instance().config_loader()
    return frozenset(name for name in loader.list_groups("") if name != "hydra")


def _group_problems(parsed: Sequence[Override]) -> list[str]:
    """Choices of files that do not exist, with the nearest that does; sweeps over sweeps."""
    loader = GlobalHydra.instance().config_loader()
    problems = []
    for override in parsed:
        group = override.key_or_group
        if group not in _groups() or override.is_delete():
            continue
        if group == "ablation" and override.is_sweep_override():
            problems.append(f"{_word(override)!r}: an ablation is a sweep; run one at a time")
            continue
        options = loader.get_group_options(group)
        values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        for value in values:
            if value is None and group in ("experiment", "ablation"):
                continue
            if not isinstance(value, str) or value not in options:
                close = difflib.get_close_matches(str(value), options, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                problems.append(f"{group} = {value!r}: {hint}known: {', '.join(options)}")
    return problems


def plain(composed: DictConfig) -> dict[str, Any]:
    """The resolved values, without Hydra's part."""
    keys = [key for key in composed if key != "hydra"]
    container: dict[str, Any] = {}
    for key in keys:
        node = composed._get_node(key)
        resolved = OmegaConf.is_config(node)
        container[str(key)] = (
            OmegaConf.to_container(node, resolve=True) if resolved else composed[key]
        )
    return container


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


def one_line(error: Exception) -> str:
    """What an error of Hydra's or OmegaConf's says, without its line breaks and addresses."""
    lines = [line.partition("See https")[0].strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("full_key"))
