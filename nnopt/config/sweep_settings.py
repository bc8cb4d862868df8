"""The settings of the sweeper and the launcher, and the folder of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nnopt.config.hydra import compose_files, one_line, override_text, plain
from nnopt.config.validate import read_plugin
from nnopt.errors import ConfigError
from nnopt.schema import LauncherConfig, SweeperConfig
from nnopt.schema.reader import PLUGINS


def read_plugins(
    composed: DictConfig, parsed: Sequence[Override]
) -> tuple[SweeperConfig, LauncherConfig]:
    """Return the settings of the sweeper and of the launcher.

    Args:
        composed: The merged files.
        parsed: The overrides of the command line, which take precedence.

    Raises:
        ConfigError: Lists all problems.
    """
    settings, problems = [], []
    for plugin in PLUGINS:
        node = OmegaConf.select(composed, plugin)
        try:
            container = plain(node) if OmegaConf.is_dict(node) else {}
            settings.append(read_plugin(plugin, with_entries(plugin, container, parsed)))
        except ConfigError as error:
            problems += error.problems
        except OmegaConfBaseException as error:
            problems.append(f"{plugin}: {one_line(error)}")
    if problems:
        raise ConfigError(problems)
    sweeper, launcher = settings
    return sweeper, launcher


def with_entries(
    plugin: str, container: Mapping[str, Any], parsed: Sequence[Override]
) -> dict[str, Any]:
    """Return the settings of a sweeper or launcher, updated by overrides.

    ``hydra.sweeper.params.optimizer.lr=...`` sets the entry ``optimizer.lr`` of the map ``params``.
    A map is merged with the existing map.
    """
    settings = dict(container)
    for override in parsed:
        if not override.key_or_group.startswith(f"{plugin}."):
            continue
        key, value = override.key_or_group.removeprefix(f"{plugin}."), override.value()
        field, _, entry = key.partition(".")
        before = settings.get(field)
        if isinstance(before, dict) and entry:
            settings[field] = {**before, entry: value}
        elif isinstance(before, dict) and isinstance(value, dict):
            settings[field] = {**before, **value}
        else:
            settings[key] = value
    return settings


def named_directory(composed: DictConfig, single: Sequence[Override], is_sweep: bool) -> str | None:
    """Return the folder that the command line or a file names, or None. Raises ConfigError."""
    own, other = ("hydra.sweep.dir", "hydra.run.dir")[:: 1 if is_sweep else -1]
    if any(o.key_or_group == other for o in single):
        kind = "a sweep" if is_sweep else "a single run"
        raise ConfigError(f"{other} does not apply to {kind}; its folder is {own}")
    try:
        named = composed.hydra.sweep if is_sweep else composed.hydra.run
        directory = named._get_node("dir")._value()
        if "${" not in str(directory):
            return directory or None
        # The name contains the values of other keys, which overrides may set.
        whole = compose_files([override_text(o) for o in single], with_hydra=True).config
        HydraConfig.instance().set_config(whole)
        return str(OmegaConf.select(whole, own))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{own}: {one_line(error)}") from error
