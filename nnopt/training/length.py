"""The length of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnopt.schema import Config


@dataclass(frozen=True)
class Length:
    """Length of the training in steps and epochs."""

    steps_per_epoch: int
    steps: int
    epochs: int

    @classmethod
    def of(cls, config: Config, samples: int) -> Length:
        """Return the length for this number of training samples."""
        size = config.batch_size
        per_epoch = samples // size if config.drop_last else math.ceil(samples / size)
        return cls.of_steps(config, per_epoch)

    @classmethod
    def of_steps(cls, config: Config, per_epoch: int) -> Length:
        """Return the length for this number of steps per epoch."""
        steps = min(config.epochs * per_epoch, config.max_steps or math.inf)
        return cls(per_epoch, int(steps), math.ceil(steps / per_epoch))
