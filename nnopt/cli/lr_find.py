"""``nnopt lr-find``: trains a new network with a rising learning rate, and suggests a rate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nnopt.backends import load_backend
from nnopt.cli.parsers import overrides_parser
from nnopt.cli.result_folder import make_directory
from nnopt.config.compose import Plan, Point, plan_one, to_yaml
from nnopt.config.hydra import one_line
from nnopt.config.validate import read_keys
from nnopt.errors import ConfigError, Problems, TrainingError, memory_shortage
from nnopt.io.atomic_files import write_json, write_text
from nnopt.recipe.prepare import prepare
from nnopt.recipe.start_weights import initial_weights
from nnopt.results.metrics_file import write_lr_curve
from nnopt.schema import draws_plots
from nnopt.terminal import console
from nnopt.terminal.live_display import LrSearchProgress
from nnopt.training.lr_finder import LrRangeTest, LrSuggestion, suggest_learning_rate

GROUP = "lr_find"
"""The group of the keys of ``nnopt lr-find``."""

PURPOSE = """\
Train the configured network once with an exponentially increasing learning rate, write the losses
and their plot into a new folder, and suggest a learning rate."""

KEYS = f"""\
keys of the range test:
  {GROUP}.min_lr=RATE   learning rate of the first step (default: {LrRangeTest.min_lr:g})
  {GROUP}.max_lr=RATE   learning rate of the last step \
(default: {LrRangeTest.max_lr:g})
  {GROUP}.steps=N       optimizer steps, evenly spaced on a logarithmic scale \
(default: {LrRangeTest.steps})

All other keys are as for nnopt run. The schedule, optimizer.lr, epochs and max_steps are
ignored. The test ends early if the loss diverges. hydra.run.dir=DIR sets the folder, and
plots=false omits the plot.

example:
  nnopt lr-find dataset=mnist optimizer=adam {GROUP}.max_lr=1
"""


def main(arguments: list[str]) -> int:
    """Run a range test, write the files, and print the suggestion."""
    options = overrides_parser("lr-find", PURPOSE, KEYS).parse_intermixed_args(arguments)
    plan, sweep = read_overrides(options.overrides, options.config_dir)
    point = plan.points[0]
    prepared = prepare(point.config, trains=False)
    folder = make_directory(plan, "lr-find")
    write_text(folder / "config.yaml", to_yaml(point.container))
    config, dataset, architecture = point.config, prepared.dataset, prepared.architecture
    initial = initial_weights(config, architecture, dataset)
    with (
        LrSearchProgress(sweep.steps) as progress,
        memory_shortage(config.batch_size, config.accumulation_steps),
        load_backend(config.backend.name).device_errors(),
    ):
        found = suggest_learning_rate(config, dataset, architecture, sweep, initial, progress.step)
    _write(found, sweep, point, folder)
    _report(found, folder)
    if found.lr is None:
        raise TrainingError(f"no learning rate to suggest: {found.advice}")
    if found.advice:
        console.note(f"note: {found.advice}")
    console.note(f"continue with: {command(point, options.config_dir, found.lr)}")
    return 0


def read_overrides(overrides: Sequence[str], config_dir: str | None) -> tuple[Plan, LrRangeTest]:
    """Return the plan of the run, and the settings of the range test. Raises ConfigError."""
    own = [x for x in overrides if x.startswith(f"{GROUP}.") and "=" in x]
    problems = Problems()
    with problems.collect():
        sweep = _read_sweep(own)
    with problems.collect():
        plan = plan_one([x for x in overrides if x not in own], config_dir)
    problems.check()
    return plan, sweep


def _read_sweep(overrides: Sequence[str]) -> LrRangeTest:
    try:
        given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"cannot read {' '.join(overrides)!r}: {one_line(error)}") from error
    sweep = read_keys(LrRangeTest, asdict(LrRangeTest()) | given.get(GROUP, {}), GROUP)
    if sweep.min_lr >= sweep.max_lr:
        raise ConfigError(
            f"{GROUP}.min_lr = {sweep.min_lr:g}: needs to be below "
            f"{GROUP}.max_lr = {sweep.max_lr:g}"
        )
    return sweep


def command(point: Point, config_dir: str | None, rate: float) -> str:
    """Return the shell command that trains the configuration with a learning rate."""
    others = [x for x in point.overrides if x.partition("=")[0] != "optimizer.lr"]
    folder = [] if config_dir is None else ["--config-dir", config_dir]
    return shlex.join(["nnopt", "run", *folder, *others, f"optimizer.lr={rate:g}"])


def _write(found: LrSuggestion, sweep: LrRangeTest, point: Point, folder: Path) -> None:
    """Write the curve, the suggestion and, unless plots=false, a plot. Raises OutputError."""
    curve = found.curve
    write_lr_curve(folder / "lr_find.csv", curve.rates, curve.losses, curve.smoothed)
    outcome = {
        "suggestion": found.lr,
        "advice": found.advice,
        "diverged": curve.diverged,
        "steps": len(curve.rates),
        "sweep": asdict(sweep),
        "overrides": list(point.overrides),
    }
    write_json(folder / "lr_find.json", outcome)
    if draws_plots(point.config):
        from nnopt.plots.run.lr_curve import plot_lr_find

        plot_lr_find(found, folder / "lr_find.png", point.config.name)


def _report(found: LrSuggestion, folder: Path) -> None:
    """Print notable learning rates with their smoothed losses, and the paths of the files."""
    curve = found.curve
    steps = {"first step": 0}
    if found.edge_step is not None:
        steps |= {"smallest loss": curve.lowest, "largest usable": found.edge_step}
    steps["diverged" if curve.diverged else "last step"] = len(curve.rates) - 1
    rows = [
        (name, f"{curve.rates[step]:.2g}", f"{curve.smoothed[step]:.4g}")
        for name, step in steps.items()
    ]
    if found.lr is not None:
        rows.insert(1, ("suggestion", f"{found.lr:g}", f"{found.loss_at_suggestion:.4g}"))
    console.print_table(("", "learning rate", "smoothed loss"), rows, "lrr")
    files = {"folder": folder, "curve": folder / "lr_find.csv"}
    if (folder / "lr_find.png").exists():
        files["picture"] = folder / "lr_find.png"
    console.summary("lr-find", {}, files)
