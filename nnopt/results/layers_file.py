"""``layers.csv``: statistics of each layer, one row per epoch and layer."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LayerRow:
    """Statistics of one layer at the end of one epoch.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        layer: Name of the layer.
        activation_mean, activation_std: Mean and standard deviation of all outputs of the layer for
            the probe samples, in evaluation mode.
        dead_fraction: Fraction of units (channels of images) of a ReLU layer that are 0 for every
            sample of the probe at every position; None for other layers.
        gradient_mean, gradient_std: Mean and standard deviation of the gradient of ``weight`` in
            the last step of the epoch, with penalties and after clipping; None without weights.
    """

    epoch: int
    layer: str
    activation_mean: float
    activation_std: float
    dead_fraction: float | None
    gradient_mean: float | None
    gradient_std: float | None


LAYER_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(LayerRow))
