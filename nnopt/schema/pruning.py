"""The keys of ``conf/pruning/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range


@dataclass(frozen=True)
class NoPruningConfig:
    """All weights are trained."""

    name: Literal["none"]


@dataclass(frozen=True)
class WeightPruningConfig:
    """The weights with the lowest scores are set to zero. ``name`` is the criterion.

    All times are in epochs.
    """

    name: Literal["magnitude", "random", "gradient"]
    sparsity: Annotated[float, Range(minimum=0, below=1)]
    scope: Literal["global", "layer"]
    schedule: Literal["one_shot", "iterative", "gradual"]
    start: Annotated[float | None, Range(minimum=0)]
    end: Annotated[float | None, Range(minimum=0)]
    interval: Annotated[float | None, Range(above=0)]
    rounds: Annotated[int | None, Range(minimum=1, maximum=1000)]
    rewind: Annotated[int | Literal["none", "initial"], Range(minimum=1)]
    rewind_schedule: bool
    from_: str | None
    control: Literal["none", "random_mask", "new_weights"]
    first_layer: bool
    last_layer: bool
    exclude: tuple[str, ...]
    gradient_batches: Annotated[int, Range(minimum=1)]


@dataclass(frozen=True)
class UnitPruningConfig:
    """The units with the lowest scores are removed, which makes the network smaller."""

    name: Literal["structured"]
    sparsity: Annotated[float, Range(minimum=0, below=1)]
    criterion: Literal["l1", "l2", "batch_norm", "random"]
    start: Annotated[float | None, Range(minimum=0)]
    rewind: Annotated[int | Literal["none", "initial"], Range(minimum=1)]
    rewind_schedule: bool
    from_: str | None
    control: Literal["none", "new_weights"]
    residual: bool
    first_layer: bool
    exclude: tuple[str, ...]
    multiple_of: Annotated[int, Range(minimum=1)]


PruningVariant = NoPruningConfig | WeightPruningConfig | UnitPruningConfig
