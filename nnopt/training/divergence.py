"""The error for a diverged training. Its message suggests settings to change."""

from __future__ import annotations

import numpy as np

from nnopt.architecture.parse import initializer_keys
from nnopt.errors import DivergedError
from nnopt.schema import Config, ResnetConfig, VggConfig, learning_rate
from nnopt.training.evaluation import Evaluation
from nnopt.training.state import TrainingState

LARGE_SPREAD = 0.1
"""Standard deviation or bound of initial weights, above which another initializer is suggested."""


def raise_if_diverged(config: Config, training: TrainingState, result: Evaluation | None) -> None:
    """Raise DivergedError if training diverged or the test loss is not finite.

    ``result`` is the evaluation of the test set, None if there was none.
    """
    if result is not None and np.isfinite(result.loss):
        return
    problem = "the test loss is not finite"
    if training.diverged_at is not None:
        epoch = len(training.history)
        kept = f"rows and weights up to epoch {epoch}" if epoch else "the initial weights"
        where = "the loss, a weight or the optimizer's state is not finite"
        if training.not_finite_layer:
            where = f"the outputs of layer {training.not_finite_layer} and the loss are not finite"
        problem = f"at step {training.diverged_at} {where}; {kept} are kept"
    raise DivergedError(f"training diverged: {problem}; try one of: {', '.join(_remedies(config))}")


def _remedies(config: Config) -> list[str]:
    """Return changes of the configuration that may prevent divergence."""
    remedies = [f"a lower optimizer.lr than {learning_rate(config):g}"]
    if not config.regularizer.grad_clip:
        remedies.append("regularizer.grad_clip=1")
    if config.dataset.normalization == "none":
        remedies.append("dataset.normalization=standard, since the inputs are not scaled")
    if isinstance(config.architecture, VggConfig | ResnetConfig) and (
        config.regularizer.norm == "none"
    ):
        remedies.append("regularizer.norm=batch, which deep networks need")
    initial = config.initializer
    for key in initializer_keys(config.architecture):
        name = getattr(initial, key)
        bounds = {"normal": ("std",), "uniform": ("low", "high")}.get(name, ())
        if any(abs(getattr(initial, bound)) > LARGE_SPREAD for bound in bounds):
            values = " and ".join(f"initializer.{x} = {getattr(initial, x):g}" for x in bounds)
            remedies.append(f"initializer=he instead of initializer.{key} = {name!r} with {values}")
            break  # he sets both keys
    if config.initializer.scale > 1:
        remedies.append(f"initializer.scale=1 instead of {config.initializer.scale:g}")
    return remedies
