"""The improvement of a monitored value, for early stopping and the plateau schedule."""

from __future__ import annotations

import math

from nnopt.schema import EarlyStoppingConfig, PlateauConfig


def is_improvement(
    value: float, reference: float, config: EarlyStoppingConfig | PlateauConfig
) -> bool:
    """Return whether a value is below the reference by more than ``min_delta``.

    In the mode ``relative``, the difference must exceed ``min_delta`` times the magnitude of the
    reference, as in PyTorch's ``ReduceLROnPlateau``. NaN and positive infinity are no
    improvement. Every finite value is an improvement over a reference of positive infinity.
    """
    if not math.isfinite(reference):
        return value < reference
    is_relative = config.min_delta_mode == "relative"
    return value < reference - config.min_delta * (abs(reference) if is_relative else 1)
