"""The keys of ``conf/initializer/``."""

from dataclasses import dataclass
from typing import Literal

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
    """The distributions of the initial weights of the hidden layers and of the output layer."""

    hidden: Initializer
    output: Initializer
    input: Literal["whitening"] | None  # for the first layer; None: the same as ``hidden``
