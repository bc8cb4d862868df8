"""The error of a training whose numbers are not finite, with what to change."""

from __future__ import annotations

import numpy as np

from nnopt.errors import DivergedError
from nnopt.schema import Config, ResnetConfig, VggConfig, learning_rate
from nnopt.training.evaluation import Evaluation
from nnopt.training.loop import Training


def refuse_divergence(config: Config, training: Training, result: Evaluation | None) -> None:
    """Raise DivergedError unless everything was finite to the end."""
    if result is not None and np.isfinite(result.loss):
        return
    what = "the test loss is not finite"
    if training.diverged_at is not None:
        epoch = len(training.history)
        kept = f"rows and weights up to epoch {epoch}" if epoch else "the first weights"
        where = "the loss, a weight or the optimizer's state is not finite"
        if training.not_finite:
            where = f"the outputs of layer {training.not_finite} and the loss are not finite"
        what = f"at step {training.diverged_at} {where}; {kept} are kept"
    raise DivergedError(f"training diverged: {what}; try one of: {', '.join(_remedies(config))}")


def _remedies(config: Config) -> list[str]:
    """Return the changes of this configuration that keep a training finite."""
    remedies = [f"lower optimizer.lr = {learning_rate(config):g}"]
    if not config.regularizer.grad_clip:
        remedies.append("regularizer.grad_clip=1")
    if config.dataset.normalization == "none":
        remedies.append("dataset.normalization=standard, since the inputs are not scaled")
    if isinstance(config.architecture, VggConfig | ResnetConfig) and (
        config.regularizer.norm == "none"
    ):
        remedies.append("regularizer.norm=batch, which networks so deep are made for")
    if config.initializer.hidden in ("normal", "uniform"):
        remedies.append(f"initializer=he for initializer.hidden = {config.initializer.hidden!r}")
    return remedies
