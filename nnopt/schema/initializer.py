"""The keys of ``conf/initializer/``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from nnopt.schema.range import Range

Initializer = Literal[
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "uniform",
    "zeros",
]


@dataclass(frozen=True)
class InitializerConfig:
    """The distributions of the initial weights of the hidden layers and of the output layer.

    ``scale`` multiplies the weights of both. The distribution ``normal`` has mean 0 and standard
    deviation ``std``, and ``uniform`` is between ``low`` and ``high``.

    If ``from_`` is the folder of a run, its best weights replace the drawn ones, except in the
    layers ``skip``. ``from_sha256`` is the SHA-256 of these weights.
    """

    hidden: Initializer
    output: Initializer
    input: Literal["whitening"] | None  # for the first layer; None: the same as ``hidden``
    scale: Annotated[float, Range(above=0, maximum=1_000_000)]
    std: Annotated[float, Range(above=0, maximum=1_000_000)]
    low: Annotated[float, Range(minimum=-1_000_000, maximum=1_000_000)]
    high: Annotated[float, Range(minimum=-1_000_000, maximum=1_000_000)]
    from_: str | None = None
    from_sha256: str | None = None
    skip: tuple[str, ...] = ()
