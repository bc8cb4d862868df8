"""``conf/initializer/``: the first weights."""

from __future__ import annotations

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
    """The distribution of the first weights, for hidden layers and for the output layer; ``input:
    whitening`` takes those of the first layer from the training images."""

    hidden: Initializer
    output: Initializer
    input: Literal["whitening"] | None
