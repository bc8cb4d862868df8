"""The keys of ``conf/hydra/sweeper/``, which determine the points of a sweep."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nnopt.schema.range import LARGEST_SEED, Range


@dataclass(frozen=True)
class GridConfig:
    """A grid, or concatenated grids.

    ``params`` and the items of ``grids`` are maps from a key to a single value, or to several
    values in a text such as ``1,2``. ``nnopt.config.grid`` reads them.
    """

    name: Literal["grid"]
    mode: Literal["grid", "zip", "one_at_a_time"]
    params: Any
    grids: tuple[Any, ...]


@dataclass(frozen=True)
class OptunaConfig:
    """A search. Each trial draws a value of each searched key, and has a point for each seed."""

    name: Literal["optuna"]
    params: Any  # the same as in GridConfig
    trials: Annotated[int, Range(minimum=1, maximum=1_000_000)]
    metric: str
    sampler: Literal["tpe", "random"]
    startup_trials: Annotated[int, Range(minimum=1)]
    seed: Annotated[int, Range(minimum=0, maximum=LARGEST_SEED)]
    pruner: Literal["none", "median", "hyperband"]
    warmup_epochs: Annotated[int, Range(minimum=1)]
    timeout: Annotated[float | None, Range(above=0)]


SweeperConfig = GridConfig | OptunaConfig
