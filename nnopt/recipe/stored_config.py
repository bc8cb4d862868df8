"""The configuration of a stored run, and its changes by overrides.

The folder of a run may be a download. Therefore its settings start no download, and create no cache
of data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnopt.config.hydra import composing, group_problems, override_text, parse_overrides
from nnopt.config.point import Point
from nnopt.config.resolve import ConfigResolver, StoredConfig
from nnopt.data.cache import is_cache
from nnopt.errors import ConfigError, DataError, ModelError
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import SUMMARY
from nnopt.io.paths import DATA_FOLDER, environment
from nnopt.results.model_file import read_model_file
from nnopt.results.run_folder import check_run
from nnopt.results.summary import read_summary
from nnopt.schema import with_added_keys

OF_BACKEND = ("backend.device", "backend.threads", "backend.precision", "backend.compile")
"""Keys that change how a trained network is computed, but not the network."""


def read_stored_config(folder: Path, given: str, overrides: Sequence[str]) -> StoredConfig:
    """Return the configuration of a run, with the data folders of this machine.

    Args:
        folder: The folder of the run.
        given: The name of the folder in messages.
        overrides: The overrides on the command line, which may set ``data.root``.

    Raises:
        ConfigError: The folder is not that of a run.
        ModelError: The files with the configuration are damaged.
    """
    check_run(folder, given)
    if (folder / SUMMARY).exists():
        try:
            summary = read_summary(folder).values
        except DataError as error:
            raise ModelError(str(error)) from error
        container = with_added_keys(summary["config"])
        if container.get("plots") == "sweep":  # a point of a sweep, and now a single run
            container["plots"] = "auto"
        stored = StoredConfig(container, tuple(summary["overrides"]))
        return with_local_data(_with_plugins(stored, folder, overrides), overrides)
    model = read_model_file(folder)
    if model is None:
        raise ModelError(f"{shown(folder)} has no {SUMMARY}, so its configuration is not known")
    stored = StoredConfig(model.config, ())
    return with_local_data(_with_plugins(stored, folder, overrides), overrides)


def _with_plugins(stored: StoredConfig, folder: Path, overrides: Sequence[str]) -> StoredConfig:
    """Return a stored configuration without plug-ins that the folder may have brought.

    The key ``plugins`` on the command line replaces the stored one. Raises ConfigError.
    """
    container = stored.container
    if not container["plugins"]:
        return stored
    if any(text.partition("=")[0] == "plugins" for text in overrides):
        container = {**container, "plugins": []}
    else:
        from nnopt.config.plugins.load import stored_plugins  # not needed by most runs

        container = stored_plugins(container, folder)
    return StoredConfig(container, stored.overrides)


def with_local_data(stored: StoredConfig, overrides: Sequence[str]) -> StoredConfig:
    """Return a stored configuration with the data folders of this machine, without downloads.

    The folder ``data.root`` of the run is kept if it exists, and so is the folder ``data.cache`` if
    it already is a cache of nnopt. Otherwise, decoded data stay in memory.
    """
    found = stored.container.get("data")
    data: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {}
    root, cache = data.get("root"), data.get("cache")
    given = [text.partition("=")[2] for text in overrides if text.startswith("data.root=")]
    if given or not (isinstance(root, str) and os.path.isdir(root)):
        root = given[-1] if given else environment("NNOPT_DATA_DIR", DATA_FOLDER)
        cache = str(Path(root, "cache"))
    elif not (isinstance(cache, str) and is_cache(Path(cache))):
        cache = None
    data |= {"root": root, "cache": cache, "download": False}
    return StoredConfig({**stored.container, "data": data}, stored.overrides)


def changed_point(stored: StoredConfig, overrides: Sequence[str], allowed: Sequence[str]) -> Point:
    """Return the configuration of a run with overrides of some keys.

    Args:
        stored: The configuration of the run.
        overrides: The overrides, with one value each.
        allowed: The keys that can change; a name without a dot allows a group with all its keys.

    Raises:
        ConfigError: An override is not allowed, or its value is refused.
    """
    with composing(None):
        parsed = parse_overrides(overrides)
        problems = group_problems(parsed)
        for override in parsed:
            key, text = override.key_or_group, override_text(override)
            if not {key, key.partition(".")[0]} & set(allowed):
                names = ", ".join(name if "." in name else f"{name}.*" for name in allowed)
                problems.append(f"{text!r}: only these keys of the run can change: {names}")
            elif override.is_sweep_override():
                problems.append(f"{text!r}: needs a single value")
        if problems:
            raise ConfigError(problems)
        return ConfigResolver(stored).point(list(overrides))
