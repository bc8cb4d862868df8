"""``optimizer.lr=auto``: the learning rate finder chooses the learning rate of a run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from nnopt.config.rules import cross_field_problems
from nnopt.errors import ConfigError, TrainingError
from nnopt.recipe.prepare import Prepared
from nnopt.recipe.start_weights import initial_weights
from nnopt.results.metrics_file import write_lr_curve
from nnopt.schema import Config, draws_plots
from nnopt.terminal import console
from nnopt.terminal.live_display import LrSearchProgress
from nnopt.training.lr_finder import LrRangeTest, LrSuggestion, suggest_learning_rate

log = logging.getLogger("nnopt")


def with_suggested_rate(
    config: Config,
    prepared: Prepared,
    folder: Path,
    suggested: float | None = None,
    quiet: bool = False,
) -> Config:
    """Return the configuration with the suggested learning rate as its ``optimizer.lr``.

    ``suggested`` is the rate that was found before the run was interrupted. If it is None, the
    finder runs.

    The finder trains a separate network, so the run gives the same results as a run whose
    configuration has this learning rate. The finder writes ``lr_find.csv`` and, if plots are drawn,
    ``plots/lr_find.png``.

    Raises TrainingError if the finder suggests no rate, ConfigError if the rate conflicts with
    another key, and OutputError if a file cannot be written.
    """
    if suggested is not None:
        return replace(config, optimizer=replace(config.optimizer, lr=suggested))
    sweep = LrRangeTest()
    with LrSearchProgress(sweep.steps, "none" if quiet else config.progress) as progress:
        dataset, architecture = prepared.dataset, prepared.architecture
        initial = initial_weights(config, architecture, dataset)
        found = suggest_learning_rate(config, dataset, architecture, sweep, initial, progress.step)
    _write(found, config, folder)
    rate = found.lr
    if rate is None:
        tool = _tool(found)
        raise TrainingError(
            f"optimizer.lr = 'auto' found no learning rate: {found.advice}{tool}, or set a number"
        )
    _report(f"optimizer.lr = {rate:g}, found in {len(found.curve.rates)} steps")
    if found.advice:
        _report(f"note: {found.advice}{_tool(found)}")
    config = replace(config, optimizer=replace(config.optimizer, lr=rate))
    if problems := cross_field_problems(config):
        raise ConfigError([f"optimizer.lr = 'auto' found {rate:g}: {x}" for x in problems])
    return config


def _tool(found: LrSuggestion) -> str:
    """Return " with nnopt lr-find" if the suggestion proposes another range, else no text."""
    return " with nnopt lr-find" if found.proposed_range else ""


def _write(found: LrSuggestion, config: Config, folder: Path) -> None:
    curve = found.curve
    write_lr_curve(folder / "lr_find.csv", curve.rates, curve.losses, curve.smoothed)
    if draws_plots(config):
        from nnopt.plots.run.lr_curve import plot_lr_find

        (folder / "plots").mkdir(exist_ok=True)
        plot_lr_find(found, folder / "plots" / "lr_find.png", config.name)


def _report(message: str) -> None:
    """Print a message, and write it to the log of the run."""
    console.note(message)
    log.info(message)
