"""``conf/hydra/sweeper/``: which points a sweep has. ``conf/hydra/launcher/``: who runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class GridConfig:
    """``params`` and each of ``grids``: a map from a key to its values in one text, as on the
    command line, or to a single value; ``nnopt.sweep.grid`` reads them."""

    name: Literal["grid"]
    mode: Literal["grid", "zip", "one_at_a_time"]
    params: Any
    grids: tuple[Any, ...]


@dataclass(frozen=True)
class SequentialConfig:
    name: Literal["sequential"]


SweeperVariant = GridConfig
SWEEPERS: Mapping[str, type] = {"grid": GridConfig}

LauncherVariant = SequentialConfig
LAUNCHERS: Mapping[str, type] = {"sequential": SequentialConfig}

ENGINES: Mapping[str, Mapping[str, type]] = {
    "hydra.sweeper": SWEEPERS,
    "hydra.launcher": LAUNCHERS,
}
"""Settings of a sweep itself, no part of any point: group -> its ``name`` -> the dataclass."""
