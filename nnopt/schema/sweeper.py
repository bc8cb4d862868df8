"""``conf/hydra/sweeper/``: which points a sweep has. No part of a point's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import LARGEST_SEED, Range


@dataclass(frozen=True)
class GridConfig:
    """``params`` and each of ``grids``: a map from a key to its values in one text, as on the
    command line, or to a single value; ``nnopt.config.grid`` reads them."""

    name: Literal["grid"]
    mode: Literal["grid", "zip", "one_at_a_time"]
    params: Any
    grids: tuple[Any, ...]


@dataclass(frozen=True)
class OptunaConfig:
    """A search: each trial draws the keys that have several values, or an interval of them.
    ``params`` is as of a grid; ``nnopt.config.search_space`` reads it, and says which metrics
    there are."""

    name: Literal["optuna"]
    params: Any
    trials: Annotated[int, Range(minimum=1, maximum=1_000_000)]
    metric: str
    sampler: Literal["tpe", "random"]
    startup_trials: Annotated[int, Range(minimum=1)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]
    pruner: Literal["none", "median", "hyperband"]
    warmup_epochs: Annotated[int, Range(minimum=1)]
    timeout: Annotated[float | None, Range(above=0)]


SweeperConfig = GridConfig | OptunaConfig

SWEEPERS: Mapping[str, type] = {"grid": GridConfig, "optuna": OptunaConfig}
"""Value of ``name`` -> the dataclass of its keys."""
