"""``conf/hydra/sweeper/``: which points a sweep has. No part of a point's configuration."""

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


SweeperConfig = GridConfig

SWEEPERS: Mapping[str, type] = {"grid": GridConfig}
"""Value of ``name`` -> the dataclass of its keys."""
