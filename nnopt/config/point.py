"""Points: a point is one configuration to run, with an id."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from nnopt.schema import (
    WITHOUT_EFFECT,
    Config,
    CsvConfig,
    with_first_keys,
    without_added_keys,
)

MAX_POINTS_WITH_PLOTS = 25
"""If a sweep has more points, plots=auto draws no plots of points, which take 0.5 s per point."""


@dataclass(frozen=True)
class Point:
    """One configuration to run."""

    id: str  # also the name of the point's folder in a sweep
    config: Config
    container: Mapping[str, Any]  # the resolved values, as in config.yaml
    overrides: tuple[str, ...]  # the overrides that produce the configuration

    def __getstate__(self) -> dict[str, Any]:
        """Return the values to pickle. The classes of plug-ins must be loaded before the values."""
        if not self.config.plugins:
            return vars(self)
        return {"plugins": self.container["plugins"], "pickled": pickle.dumps(vars(self))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Activate the plug-ins of the point, and set the values."""
        if "pickled" in state:
            from nnopt.config.plugins.load import activate  # not needed by most points

            activate(state["plugins"])
            state = pickle.loads(state["pickled"])
        vars(self).update(state)


def with_plots_decided(point: Point, points: int) -> Point:
    """Replace ``plots=auto`` in a point. ``points`` is the number of points of the sweep."""
    if point.config.plots != "auto":
        return point
    plots: Any = True if points <= MAX_POINTS_WITH_PLOTS else "sweep"
    container = {**point.container, "plots": plots}
    return replace(point, config=replace(point.config, plots=plots), container=container)


def to_yaml(container: Mapping[str, Any]) -> str:
    """Return resolved values as the text of ``config.yaml``."""
    return "".join(_entry_yaml(key, json.dumps(value)) for key, value in container.items())


@lru_cache(maxsize=256)
def _entry_yaml(key: str, value: str) -> str:
    """Convert an entry from JSON to YAML. Results are cached, as points share most entries."""
    return OmegaConf.to_yaml(OmegaConf.create({key: json.loads(value)}))


def point_id(config: Config) -> str:
    """Return an id of four names, the seed and a hash: ``spiral-numpy-mlp-sgd-s0-0123456789``.

    The hash includes all values that can change a result, but not the location of a published
    dataset. Keys are hashed under their oldest names. Keys of later versions are hashed only if
    their value is not the default. Therefore older sweeps can be resumed. With
    ``early_stopping.min_delta`` above 0, ``min_delta_mode`` is always hashed, because earlier
    versions chose other best weights. With ``initializer.from``, the weights are hashed instead of
    the path.
    """
    relevant = {key: v for key, v in asdict(config).items() if key not in WITHOUT_EFFECT}
    relevant["initializer"] = _initializer_identity(relevant["initializer"])
    relevant["plugins"] = [plugin.sha256 for plugin in config.plugins]
    if isinstance(config.dataset, CsvConfig):  # paths of CSV files are relative to data.root
        relevant["root"] = config.data.root
    stable = json.dumps(with_first_keys(without_added_keys(relevant)), sort_keys=True)
    digest = hashlib.sha256(stable.encode()).hexdigest()[:10]
    groups = (config.dataset, config.backend, config.architecture, config.optimizer)
    return f"{'-'.join(group.name for group in groups)}-s{config.seed}-{digest}"


def _initializer_identity(section: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of ``initializer`` that a point's id depends on."""
    start = {"from", "from_sha256", "skip"}
    kept = {key: value for key, value in section.items() if key.rstrip("_") not in start}
    if section["from_"] is not None:
        weights = section["from_sha256"] or section["from_"]
        kept |= {"from": weights, "skip": sorted(section["skip"])}
    return kept
