"""``optimizer.lr=auto``: a run finds its learning rate itself, as ``nnopt lr-find`` would."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from nnopt.config.rules import cross_field_problems
from nnopt.errors import ConfigError, TrainingError
from nnopt.recipe.prepare import Prepared
from nnopt.results.lr_curve import write_curve
from nnopt.schema import Config, draws_plots
from nnopt.terminal import console
from nnopt.training.lr_finder import LrRangeTest, LrSuggestion, suggest_learning_rate

log = logging.getLogger("nnopt")


def with_found_rate(
    config: Config, prepared: Prepared, folder: Path, quiet: bool = False
) -> Config:
    """The configuration with the rate that a sweep suggests as its ``optimizer.lr``, whatever that
    was.

    The sweep is the default one and trains a network of its own, so that the run is the one which
    the number would have given. It leaves ``lr_find.csv`` and, with the run's other
    pictures, ``plots/lr_find.png`` in the folder.
    quiet: no bar is shown.
    Raises TrainingError if the sweep suggests nothing, ConfigError if the rate does not go with the
    rest of the configuration, OutputError.
    """
    sweep = LrRangeTest()
    with console.SweepConsole(sweep.steps, quiet or config.view == "none") as progress:
        found = suggest_learning_rate(
            config, prepared.dataset, prepared.architecture, sweep, progress.step
        )
    _write(found, config, folder)
    rate = found.lr
    if rate is None:
        tool = _tool(found)
        raise TrainingError(
            f"optimizer.lr = 'auto' found no learning rate: {found.advice}{tool}, or set a number"
        )
    _tell(f"optimizer.lr = {rate:g}, found in {len(found.curve.rates)} steps")
    if found.advice:
        _tell(f"note: {found.advice}{_tool(found)}")
    config = replace(config, optimizer=replace(config.optimizer, lr=rate))
    if problems := cross_field_problems(config):
        raise ConfigError([f"optimizer.lr = 'auto' found {rate:g}: {x}" for x in problems])
    return config


def _tool(found: LrSuggestion) -> str:
    """Return " with nnopt lr-find" if the advice proposes a range, else an empty text."""
    return " with nnopt lr-find" if found.proposed_range else ""


def _write(found: LrSuggestion, config: Config, folder: Path) -> None:
    curve = found.curve
    write_curve(folder / "lr_find.csv", curve.rates, curve.losses, curve.smoothed)
    if draws_plots(config):
        from nnopt.plots.run.lr_curve import plot_lr_find

        (folder / "plots").mkdir(exist_ok=True)
        plot_lr_find(found, folder / "plots" / "lr_find.png", config.name)


def _tell(message: str) -> None:
    """On the console and in the run's log."""
    console.note(message)
    log.info(message)
