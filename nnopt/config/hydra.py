"""The interface to Hydra: it finds YAML files, parses the words of a command line and merges the
chosen files. Hydra's errors become ConfigErrors of one line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from nnopt.config.conf_file import ENGINE_GROUPS, EXPERIMENTS, HYDRA_KEYS, PRIMARY
from nnopt.config.conf_source import (
    SCHEME,
    UserSource,
    files_read,
    own_folder,
    own_groups,
    place_of,
    with_default_place,
    with_place,
)
from nnopt.config.grammar import flat, functions, shown, unreadable
from nnopt.config.set_aside import Composed, Loader, compose
from nnopt.config.validate import read_engine
from nnopt.config.yaml_file import shown_path
from nnopt.errors import ConfigError
from nnopt.io.paths import absolute_folder, environment
from nnopt.io.safe_text import simplify_message
from nnopt.schema import LauncherConfig, SweeperConfig
from nnopt.schema.reader import ENGINES


class UserConf(SearchPathPlugin):
    """Puts the user's own ``./conf`` before nnopt's, so that its files add to and override them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        user = Path.cwd() / "conf"
        if user.is_dir() and user.resolve() != own_folder():
            search_path.prepend(provider="nnopt-user", path=f"{SCHEME}://{user}")


def register_plugins() -> None:
    """Tell Hydra about the user's conf folder and ``${nnopt.env:NAME,DEFAULT}``. Idempotent."""
    Plugins.instance().register(UserSource)
    Plugins.instance().register(UserConf)
    OmegaConf.register_new_resolver("nnopt.env", environment, replace=True)


@contextmanager
def composing(config_dir: str | None = None) -> Iterator[None]:
    """Within it, Hydra finds nnopt's and the user's YAML files."""
    register_plugins()
    GlobalHydra.instance().clear()
    config_groups.cache_clear()
    files_read.clear()
    with initialize_config_module("nnopt.conf", version_base="1.3", job_name="nnopt"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None  # for mypy
        places = hydra.config_loader.get_search_path()
        if config_dir is not None:
            _search_also(config_dir, places)
        hydra.config_loader = Loader(places)
        try:
            yield
        except ConfigError as error:
            raise type(error)([with_place(problem) for problem in error.problems]) from error


def _search_also(name: str, places: ConfigSearchPath) -> None:
    """Search one more folder, after nnopt's own. Raises ConfigError if it does not exist, or has a
    ``config.yaml``, which would not be read."""
    folder = Path(absolute_folder(name, "--config-dir"))
    if not folder.is_dir():
        raise ConfigError(f"--config-dir = {name!r}: needs a folder that exists")
    if UserSource("", f"{SCHEME}://{folder}").is_config(PRIMARY):
        raise ConfigError(
            f"--config-dir = {name!r}: its config.yaml would not be read; make it a file of the "
            "folder conf, or one of the group experiment"
        )
    places.prepend(
        "command-line", f"{SCHEME}://{folder}", anchor="schema"
    )  # before Hydra's own, the last


@cache
def config_groups() -> frozenset[str]:
    """The config groups, nnopt's and the user's."""
    loader = GlobalHydra.instance().config_loader()
    return frozenset(name for name in loader.list_groups("") if name != "hydra")


def group_problems(parsed: Sequence[Override]) -> list[str]:
    """Choices of files that do not exist, with the nearest that does; sweeps over sweeps."""
    loader = GlobalHydra.instance().config_loader()
    problems = []
    for override in parsed:
        group = override.key_or_group
        if group not in (*config_groups(), *ENGINE_GROUPS) or override.is_delete():
            continue
        if group == "ablation" and override.is_sweep_override():
            problems.append(f"{word_of(override)!r}: an ablation is a sweep; run one at a time")
            continue
        options = loader.get_group_options(group)
        if group in ENGINE_GROUPS:  # Hydra's own, which nnopt does not run, are no files
            options = [name for name in options if _is_file(f"{group}/{name}")]
        values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        for given in values:
            value = given.text if isinstance(given, QuotedString) else given
            if value is None and group in EXPERIMENTS:
                continue
            if not isinstance(value, str) or value not in options:
                name = re.sub(r"\.ya?ml$", "", str(value))
                close = difflib.get_close_matches(name, options, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                problems.append(f"{group} = {value!r}: {hint}known: {', '.join(options)}")
            elif hidden := _hidden_file(f"{group}/{value}"):
                problems.append(f"{group} = {value!r}: {hidden}")
    return problems


def _hidden_file(config: str) -> str | None:
    """Return the reason why a file of ``--config-dir`` is not read; None if it is, or is absent."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    *first, last = [x for x in sources if x.is_config(config)]
    if not (first and last.provider == "command-line"):
        return None
    return (
        f"{last.path}/{config}.yaml is not read, since {first[0].path} has that file too; rename it"
    )


def _is_group(folder: str) -> bool:
    """Return whether a folder of YAML files of that name exists."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return any(source.available() and source.is_group(folder) for source in sources)


def _is_file(config: str) -> bool:
    """Is there a YAML file of that name, rather than a plug-in's own settings?"""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return any(x.scheme() != "structured" and x.is_config(config) for x in sources)


def check_hydra_keys(parsed: Sequence[Override]) -> None:
    """Refuse settings of Hydra's that nnopt would not follow, and sweeps over any."""
    followed = (*HYDRA_KEYS, *ENGINE_GROUPS)
    problems = []
    for override in parsed:
        key = override.key_or_group
        if not is_hydras(override):
            continue
        if key not in followed and not is_engine_key(override):
            names = ", ".join([*followed, *(f"{engine}.KEY" for engine in ENGINES)])
            word = word_of(override)
            close = difflib.get_close_matches(key, followed, n=1, cutoff=0.8)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.append(f"{word!r}: {hint}nnopt follows no setting of Hydra's but {names}")
        elif override.is_sweep_override() or override.is_delete():
            problems.append(f"{word_of(override)!r}: needs one value, as it concerns all points")
    if problems:
        raise ConfigError(problems)


def parse_words(overrides: Sequence[str]) -> list[Override]:
    """Return the words as overrides in Hydra's grammar, in which ranges are counted in decimals.

    ``+key=value`` is read as ``key=value``, since no key can be added. Only a group that nnopt does
    not have is added. Raises ConfigError with every word that cannot be read.
    """
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser(functions(), loader)
    parsed, problems = [], []
    for word in overrides:
        try:
            override = parser.parse_override(word)
            override._value = flat(override._value)
        except (HydraException, ConfigError, RecursionError, ValueError) as error:
            problems.append(unreadable(word, error))
            continue
        if override.package is not None:
            problems.append(f"{shown(word)}: a group has one place; leave '@...' out")
        if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and not _is_added(override):
            override.type, override.input_line = OverrideType.CHANGE, word.lstrip("+")
        override.config_loader = loader
        parsed.append(override)
    if problems:
        raise ConfigError(problems)
    return parsed


def _is_added(override: Override) -> bool:
    """Return whether the key is a group of the user, which no list of defaults names."""
    return override.key_or_group in config_groups() - own_groups()


def compose_files(overrides: Sequence[str], with_hydra: bool = False) -> Composed:
    """Merge the files that the overrides choose. Raises ConfigError."""
    with hydra_errors():
        return compose(PRIMARY, overrides=list(overrides), return_hydra_config=with_hydra)


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Raise errors of Hydra, OmegaConf and YAML as a ConfigError, with the place in the user's
    files if it is known."""
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        problem = re.sub(r"^In '[^']+': ", "", one_line(error))
        raise ConfigError(with_default_place(problem, config_groups(), _is_group)) from error
    except RecursionError as error:
        files = ", ".join(map(shown_path, files_read)) or "the command line"
        raise ConfigError(
            f"the lists of defaults choose one another in a circle; look at those of {files}"
        ) from error


def word_of(override: Override) -> str:
    """The override as it was written."""
    return override.input_line or ""


def concerns_files(override: Override) -> bool:
    """Is it a choice of a file, or a setting of Hydra's? These have to go through Hydra."""
    return override.key_or_group in config_groups() or is_hydras(override)


def is_hydras(override: Override) -> bool:
    """Is it a setting of Hydra's, the sweeper and the launcher included?"""
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def is_engine_key(override: Override) -> bool:
    """Is it a key of the sweeper or the launcher, such as ``hydra.sweeper.mode``?"""
    return override.key_or_group.startswith(tuple(f"{engine}." for engine in ENGINES))


def read_engines(
    composed: DictConfig, parsed: Sequence[Override]
) -> tuple[SweeperConfig, LauncherConfig]:
    """The settings of the sweeper and of the launcher: those of the files, then the command line's.
    Raises ConfigError with every problem found."""
    found, problems = [], []
    for engine in ENGINES:
        node = OmegaConf.select(composed, engine)
        try:
            container = plain(node) if OmegaConf.is_dict(node) else {}
            found.append(read_engine(engine, with_entries(engine, container, parsed)))
        except ConfigError as error:
            problems += error.problems
        except OmegaConfBaseException as error:
            problems.append(f"{engine}: {one_line(error)}")
    if problems:
        raise ConfigError(problems)
    sweeper, launcher = found
    return sweeper, launcher


def with_entries(
    engine: str, container: Mapping[str, Any], parsed: Sequence[Override]
) -> dict[str, Any]:
    """The settings of a sweeper or launcher with what the command line says of them.

    ``hydra.sweeper.params.optimizer.lr=...`` sets the entry ``optimizer.lr`` of the map ``params``;
    a map is added to the one that is there.
    """
    found = dict(container)
    for override in parsed:
        if not override.key_or_group.startswith(f"{engine}."):
            continue
        key, value = override.key_or_group.removeprefix(f"{engine}."), override.value()
        field, _, entry = key.partition(".")
        before = found.get(field)
        if entry and isinstance(before, dict):
            found[field] = {**before, entry: value}
        elif not entry and isinstance(before, dict) and isinstance(value, dict):
            found[field] = {**before, **value}
        else:
            found[key] = value
    return found


def named_directory(composed: DictConfig, single: Sequence[Override], is_sweep: bool) -> str | None:
    """The folder that the user asked for, on the command line or in a file of theirs, if any."""
    mine, other = ("hydra.sweep.dir", "hydra.run.dir")[:: 1 if is_sweep else -1]
    if any(o.key_or_group == other for o in single):
        kind = "a sweep" if is_sweep else "a single run"
        raise ConfigError(f"{other} does not apply to {kind}; its folder is {mine}")
    try:
        named = composed.hydra.sweep if is_sweep else composed.hydra.run
        directory = named._get_node("dir")._value()
        if "${" not in str(directory):
            return directory or None
        # Other keys are part of the name, and other overrides may set them.
        whole = compose_files([word_of(o) for o in single], with_hydra=True).config
        HydraConfig.instance().set_config(whole)
        return str(OmegaConf.select(whole, mine))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{mine}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the message of an error of Hydra or OmegaConf, with the key that it concerns and the
    place in the user's files that sets the key. Line breaks and URLs are left out."""
    lines = [line.partition("See https")[0].strip() for line in str(error).splitlines()]
    hidden = ("full_key", "object_type", "reference_type")
    text = " ".join(line for line in lines if line and not line.startswith(hidden))
    text = re.split(" Config search path:| To append to your config use", text)[0]
    text = simplify_message(text)
    if error.__cause__ is not None:
        if not text:
            return one_line(error.__cause__)
        if merged := re.match(r"Error merging override (.*)", text):
            return f"{merged[1]!r}: {one_line(error.__cause__)}"
    key = getattr(error, "full_key", None)
    if not key:
        return text or type(error).__name__
    return f"{key}: {text}" + place_of(key, lambda value: "${" in str(value))


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
