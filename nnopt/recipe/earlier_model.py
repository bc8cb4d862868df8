"""The description of the network of a run that an earlier version wrote, without ``model.json``.

It is built from the stored configuration. The normalization of some datasets, and the columns of a
CSV file, also need the data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnopt import data
from nnopt.config.validate import read_config
from nnopt.config.yaml_file import ValueChecker, nodes_of
from nnopt.data.cache import is_cache
from nnopt.data.dataset import Dataset, InputFormat, Normalization
from nnopt.data.published import PUBLISHED
from nnopt.data.split import chosen_classes
from nnopt.errors import ConfigError, DataError, ModelError, join_problems
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import ARCHITECTURE, MODEL
from nnopt.io.received_files import CONFIG_BYTES, read_received
from nnopt.results.model_file import ModelFile
from nnopt.results.summary import read_summary
from nnopt.schema import Config, ImageConfig, with_added_keys


def read_earlier_model(folder: Path) -> ModelFile:
    """Return the description of the network of a run without ``model.json``.

    Raises:
        ModelError: The summary or the configuration is damaged, or data are needed and missing.
    """
    try:
        summary = read_summary(folder).values
        container = with_added_keys(summary["config"])
        if container["plugins"]:
            from nnopt.config.plugins.load import stored_plugins  # not needed by most runs

            container = stored_plugins(container, folder)
        config = read_config(container)
        inputs, classes, normalization = _of_data(config)
        architecture = _stored_architecture(folder) or container["architecture"]
    except ConfigError as error:
        raise _unknown(folder, join_problems(error.problems, "; ")) from error
    except DataError as error:
        raise _unknown(folder, str(error)) from error
    return ModelFile(
        inputs=inputs,
        classes=classes,
        normalization=normalization,
        architecture=architecture,
        config=container,
        threads=_count((summary.get("threads") or {}).get("used")),
        weights={},
        data=summary.get("data") or {},
        versions=summary.get("versions") or {},
    )


def _unknown(folder: Path, reason: str) -> ModelError:
    return ModelError(
        f"{shown(folder)} has no {MODEL}, because an earlier version wrote the run, and its "
        f"network cannot be described without it: {reason}"
    )


def _count(threads: Any) -> int:
    return threads if type(threads) is int and threads > 0 else 1


def _of_data(config: Config) -> tuple[InputFormat, tuple[str, ...], Normalization]:
    """Return the inputs, the names of the classes and the normalization of a dataset.

    The data are read only if they are needed. Nothing is downloaded, and no new cache is written.
    Raises DataError if the data are missing, and ConfigError if they do not fit the configuration.
    """
    dataset = config.dataset
    if isinstance(dataset, ImageConfig) and dataset.normalization != "standard":
        published = PUBLISHED[dataset.name]
        kept = chosen_classes(published.classes, dataset.classes)
        classes = tuple(published.classes[number] for number in kept)
        channels = published.shape[0]
        scale = 1 / 255 if dataset.normalization == "unit" else 1.0
        normalization = Normalization(np.full(channels, scale), np.zeros(channels))
        return InputFormat(published.shape, "uint8"), classes, normalization
    loaded = load_safely(config)
    return loaded.input_format, loaded.classes, loaded.normalization


def load_safely(config: Config) -> Dataset:
    """Load the dataset of a stored configuration, without a download and without a new cache."""
    cache = config.data.cache
    is_known = cache is not None and is_cache(Path(cache))
    stored = replace(config.data, download=False, cache=cache if is_known else None)
    return data.load(config.dataset, stored, config.seed, config.backend.dtype)


def _stored_architecture(folder: Path) -> Any:
    """Return the value of ``architecture.yaml``, the smaller network after pruning of units.

    Return None if there is no such file. Raises ConfigError if the file is damaged.
    """
    path = folder / ARCHITECTURE
    try:
        text = read_received(path, folder, CONFIG_BYTES).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{shown(path)} cannot be read: {error}") from error
    node, loader = nodes_of(path, text)
    if node is None:
        raise ConfigError(f"{shown(path)} is empty")
    ValueChecker(path).check(node, dotted=False)
    return loader.construct_document(node)
