"""``layers.csv``: one row per epoch and layer, the same columns in every run that asks for it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LayerRow:
    """How one layer stands at the end of one epoch.

    epoch: 1 for the first; layer: its name.
    activation_mean, activation_std: over every number the layer gives for the probe, in evaluation
    mode. dead_fraction: of a ReLU layer's units (channels of images), those that are 0 for every
    sample of the probe and at every position; None for other layers.
    gradient_mean, gradient_std: over the gradient of the layer's ``weight``, of the epoch's last
    step, penalties included, after clipping; None for a layer without.
    """

    epoch: int
    layer: str
    activation_mean: float
    activation_std: float
    dead_fraction: float | None
    gradient_mean: float | None
    gradient_std: float | None


LAYER_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(LayerRow))
