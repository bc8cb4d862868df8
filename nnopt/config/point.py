"""One configuration to run, and the name it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from nnopt.schema import WITHOUT_EFFECT, Config, CsvConfig, with_first_keys


@dataclass(frozen=True)
class Point:
    """One configuration to run: what it resolves to, and the overrides that make it."""

    id: str
    config: Config
    container: Mapping[str, Any]
    overrides: tuple[str, ...]


def leaves(container: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each dotted key of a configuration and its value."""
    for key, value in container.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


MAX_POINTS_WITH_PLOTS = 25
"""The largest sweep for which plots=auto draws plots of each point, at half a second a point."""


def with_plots_decided(point: Point, points: int) -> Point:
    """The same point, whose ``plots`` is no longer auto. points: how many the sweep has."""
    if point.config.plots != "auto":
        return point
    plots: Any = True if points <= MAX_POINTS_WITH_PLOTS else "sweep"
    container = {**point.container, "plots": plots}
    return replace(point, config=replace(point.config, plots=plots), container=container)


def to_yaml(container: Mapping[str, Any]) -> str:
    """The resolved values as they stand in a run's ``config.yaml``."""
    return "".join(_entry_yaml(key, json.dumps(value)) for key, value in container.items())


@lru_cache(maxsize=256)
def _entry_yaml(key: str, value: str) -> str:
    """One top-level entry, its value given as JSON. The points of a sweep share most of them."""
    return OmegaConf.to_yaml(OmegaConf.create({key: json.loads(value)}))


def point_id(config: Config) -> str:
    """Return the name of a point's folder.

    It begins with the names of the chosen files and ends with a hash of all values that can change
    a result. The location of a published dataset cannot. The hash is computed with the first names
    of the keys, so renamed keys do not change it, and older sweeps can be resumed.
    """
    relevant = {key: v for key, v in asdict(config).items() if key not in WITHOUT_EFFECT}
    if isinstance(config.dataset, CsvConfig):  # whose files are the user's own, found from there
        relevant["root"] = config.data.root
    stable = json.dumps(with_first_keys(relevant), sort_keys=True)
    digest = hashlib.sha256(stable.encode()).hexdigest()[:10]
    groups = (config.dataset, config.backend, config.architecture, config.optimizer)
    return f"{'-'.join(group.name for group in groups)}-s{config.seed}-{digest}"
