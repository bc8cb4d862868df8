"""A dataset: points in the fields of a checkerboard, with the colour of the field as the class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from nnopt import DatasetConfig, Range, Registry, Samples, generator


@dataclass(frozen=True)
class CheckerboardConfig(DatasetConfig):
    """The keys of the dataset, in addition to those of every dataset."""

    fields: Annotated[int, Range(minimum=2, maximum=100)] = 4
    samples: Annotated[int, Range(minimum=10, maximum=1_000_000)] = 600
    seed: Annotated[int, Range(minimum=0)] = 0


def load(config: CheckerboardConfig, root: Path) -> Samples:
    parts = []
    for part in ("train", "test"):
        points = generator(config.seed, f"checkerboard/{part}").random((config.samples, 2))
        row, column = np.floor(points * config.fields).astype(int).T
        parts.append((points, (row + column) % 2))
    train, test = parts
    return Samples(classes=("black", "white"), train=train, test=test, features=("x", "y"))


def register(registry: Registry) -> None:
    registry.dataset("checkerboard", CheckerboardConfig, load)
