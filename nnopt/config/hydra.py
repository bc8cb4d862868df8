"""The interface to Hydra, which finds and merges YAML files and parses overrides.

nnopt uses Hydra as a library, without Hydra's launchers, sweepers and output folders. Hydra accepts
``+typo=1`` and values out of range, and reports only the first of several errors, on several lines.
So nnopt checks overrides, and converts errors of Hydra and OmegaConf to ConfigErrors of one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nnopt.config.conf_file import EXPERIMENTS, HYDRA_KEYS, PLUGIN_GROUPS, PRIMARY
from nnopt.config.conf_source import (
    SCHEME,
    UserSource,
    files_read,
    location_of,
    own_folder,
    own_groups,
    with_defaults_location,
    with_location,
)
from nnopt.config.grammar import flatten_sweeps, functions, shown, unreadable
from nnopt.config.plugin_source import PluginSource, activate_named
from nnopt.config.set_aside import Composed, Loader, compose
from nnopt.config.yaml_file import shown_path
from nnopt.errors import ConfigError, Problems, nearest, refused_value, suggest
from nnopt.io.paths import absolute_folder, environment
from nnopt.io.safe_text import simplify_message
from nnopt.schema import PLUGINS, renamed_key
from nnopt.schema.tables import COMPONENTS


@contextmanager
def composing(
    config_dir: str | None = None, overrides: Sequence[str] | None = None
) -> Iterator[None]:
    """Let Hydra find the YAML files of nnopt, of ``./conf`` and of the folder ``config_dir``.

    Files of ``./conf`` take precedence. If the body of the ``with`` statement raises a ConfigError,
    file and line are added to each problem whose value comes from a file. With ``overrides``, only
    the plug-ins that these overrides and the user's files name are active afterwards. Raises
    ConfigError if ``config_dir`` does not exist, or contains a ``config.yaml``.
    """
    Plugins.instance().register(UserSource)
    Plugins.instance().register(PluginSource)
    OmegaConf.register_new_resolver("nnopt.env", environment, replace=True)  # for ${nnopt.env:...}
    GlobalHydra.instance().clear()
    config_groups.cache_clear()
    files_read.clear()
    with initialize_config_module("nnopt.conf", version_base="1.3", job_name="nnopt"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None  # for mypy
        search_path = hydra.config_loader.get_search_path()
        user = Path.cwd() / "conf"
        if user.is_dir() and user.resolve() != own_folder():
            search_path.prepend("nnopt-user", f"{SCHEME}://{user}")
        if config_dir is not None:
            _add_folder(config_dir, search_path)
        hydra.config_loader = Loader(search_path)
        try:
            if overrides is not None:
                activate_named(overrides, _loader().get_sources())
            if COMPONENTS:
                place = f"{PluginSource.scheme()}://active"
                search_path.prepend("nnopt-plugins", place, anchor="schema")
                hydra.config_loader = Loader(search_path)
            yield
        except ConfigError as error:
            raise type(error)([with_location(problem) for problem in error.problems]) from error


def _add_folder(name: str, search_path: ConfigSearchPath) -> None:
    """Add a folder to the search path, after all other folders."""
    folder = Path(absolute_folder(name, "--config-dir"))
    if not folder.is_dir():
        raise ConfigError(f"--config-dir = {name!r}: needs a folder that exists")
    if UserSource("", f"{SCHEME}://{folder}").is_config(PRIMARY):
        raise ConfigError(
            f"--config-dir = {name!r}: the file config.yaml in this folder would not be read; move "
            f"the file to ./conf, or to {name}/experiment/NAME.yaml and add experiment=NAME"
        )
    search_path.prepend("command-line", f"{SCHEME}://{folder}", anchor="schema")


@cache
def config_groups() -> frozenset[str]:
    """Return the names of the config groups of nnopt and of the user."""
    return frozenset(name for name in _loader().list_groups("") if name != "hydra")


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def group_problems(parsed: Sequence[Override]) -> list[str]:
    """Return the problems of overrides that choose files of groups."""
    problems: list[str] = []
    for override in parsed:
        group = override.key_or_group
        if group not in (*config_groups(), *PLUGIN_GROUPS) or override.is_delete():
            continue
        if group == "ablation" and override.is_sweep_override():
            problems.append(
                f"{override_text(override)!r}: an ablation is a sweep; run one ablation at a time"
            )
            continue
        options = _loader().get_group_options(group)
        if group in PLUGIN_GROUPS:  # Hydra's own plug-ins, which are not YAML files, are omitted
            options = [name for name in options if _is_file(f"{group}/{name}")]
        values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        for given in values:
            value = given.text if isinstance(given, QuotedString) else given
            if value is None and group in EXPERIMENTS:
                continue
            if isinstance(value, dict):
                renamed = (renamed_key(f"{group}.{key}") for key in value)
                remedy = f"needs the name of a file; set a key with {group}.KEY=VALUE"
                problem = f"{override_text(override)!r}: {remedy}"
                problems.append("; ".join([problem, *filter(None, renamed)]))
            elif not isinstance(value, str) or value not in options:
                name = re.sub(r"\.ya?ml$", "", str(value))
                problems.append(refused_value(group, value, suggest(name, options)))
            elif hidden := _hidden_file(f"{group}/{value}"):
                problems.append(refused_value(group, value, hidden))
    return problems


def _hidden_file(config: str) -> str | None:
    """Return a message if another file hides the file ``config`` of ``--config-dir``, or None."""
    *first, last = [x for x in _loader().get_sources() if x.is_config(config)]
    if not (first and last.provider == "command-line"):
        return None
    hidden = f"{last.path}/{config}.yaml"
    return f"{hidden} is not read: its name also occurs in {first[0].path}; rename the file"


def _is_group(folder: str) -> bool:
    """Return whether any source of YAML files has a folder with this name."""
    return any(x.available() and x.is_group(folder) for x in _loader().get_sources())


def _is_file(config: str) -> bool:
    """Return whether a YAML file with this name exists. Hydra's plug-ins are not YAML files."""
    return any(x.scheme() != "structured" and x.is_config(config) for x in _loader().get_sources())


def check_hydra_keys(parsed: Sequence[Override]) -> None:
    """Raise ConfigError for unsupported settings of Hydra, and for several values of a setting."""
    supported = (*HYDRA_KEYS, *PLUGIN_GROUPS)
    problems = Problems()
    for override in filter(is_hydra_setting, parsed):
        key, text = override.key_or_group, override_text(override)
        if key not in supported and not is_plugin_key(override):
            names = ", ".join([*supported, *(f"{plugin}.KEY" for plugin in PLUGINS)])
            close = nearest(key, supported, cutoff=0.8)
            hint = f"did you mean {close!r}? " if close else ""
            problems.append(f"{text!r}: {hint}unsupported setting of Hydra; supported: {names}")
        elif override.is_sweep_override() or override.is_delete():
            problems.append(f"{text!r}: needs one value, because it applies to all points")
    problems.check()


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides in Hydra's grammar, with ranges in decimal numbers.

    The set of keys is fixed, so ``+key=value`` is read as ``key=value``. For a group that only the
    user has, ``+group=file`` is kept and adds the group to the list of defaults. Raises
    ConfigError with all overrides that cannot be parsed.
    """
    loader = _loader()
    parser = OverridesParser(functions(), loader)
    parsed, problems = [], Problems()
    for text in overrides:
        try:
            override = parser.parse_override(text)
            override._value = flatten_sweeps(override._value)
        except (HydraException, ConfigError, RecursionError, ValueError) as error:
            problems.append(unreadable(text, error))
            continue
        if override.package is not None:
            problems.append(f"{shown(text)}: the package of a group is fixed; leave '@...' out")
        is_new_group = override.key_or_group in config_groups() - own_groups()
        if override.type in (OverrideType.ADD, OverrideType.FORCE_ADD) and not is_new_group:
            override.type, override.input_line = OverrideType.CHANGE, text.lstrip("+")
        override.config_loader = loader
        parsed.append(override)
    problems.check()
    return parsed


def compose_files(overrides: Sequence[str], with_hydra: bool = False) -> Composed:
    """Merge the files that overrides choose. Requires ``composing()``. Raises ConfigError."""
    with hydra_errors():
        return compose(PRIMARY, overrides, with_hydra)


@contextmanager
def hydra_errors() -> Iterator[None]:
    """Convert errors of Hydra, OmegaConf and YAML to ConfigErrors, with the file if known."""
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
        problem = re.sub(r"^In '[^']+': ", "", one_line(error))
        raise ConfigError(with_defaults_location(problem, config_groups(), _is_group)) from error
    except RecursionError as error:
        files = ", ".join(map(shown_path, files_read)) or "the command line"
        raise ConfigError(
            f"the lists of defaults include each other in a circle; check the lists in {files}"
        ) from error


def override_text(override: Override) -> str:
    """Return the text of an override as the user wrote it."""
    return override.input_line or ""


def concerns_files(override: Override) -> bool:
    """Return whether an override chooses a file of a group or sets a key of Hydra."""
    return override.key_or_group in config_groups() or is_hydra_setting(override)


def is_hydra_setting(override: Override) -> bool:
    """Return whether an override sets a key of Hydra, including the sweeper and the launcher."""
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def is_plugin_key(override: Override) -> bool:
    """Return whether an override sets a key of sweeper or launcher, such as hydra.sweeper.mode."""
    return override.key_or_group.startswith(tuple(f"{plugin}." for plugin in PLUGINS))


def one_line(error: BaseException) -> str:
    """Return the message of an error of Hydra or OmegaConf on one line, with key and file."""
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
    if missing := re.fullmatch(r"Interpolation key '(.+)' not found", text):
        text = renamed_key(missing[1]) or text
    key = getattr(error, "full_key", None)
    if not key:
        return text or type(error).__name__
    return f"{key}: {text}" + location_of(key, lambda value: "${" in str(value))


def plain(composed: DictConfig) -> dict[str, Any]:
    """Return the values of a configuration without ``hydra``, with interpolations resolved."""
    container: dict[str, Any] = {}
    for key in composed:
        if key != "hydra":
            node = composed._get_node(key)
            is_nested = OmegaConf.is_config(node)
            value = OmegaConf.to_container(node, resolve=True) if is_nested else composed[key]
            container[str(key)] = value
    return container
