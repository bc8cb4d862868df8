"""The verb ``lr-find``: sweep the learning rate over one training, and suggest one.

Nothing of a run is read or changed: the network is a new one, the folder one of its own.
"""

from __future__ import annotations

import shlex
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from nnopt.backends import load_backend
from nnopt.cli.run import make_directory
from nnopt.config.compose import Plan, Point, plan_one, to_yaml, words_parser
from nnopt.config.hydra import one_line
from nnopt.config.validate import read_keys
from nnopt.errors import ConfigError, TrainingError, memory_shortage
from nnopt.io.atomic_files import write_json, write_text
from nnopt.recipe.prepare import prepare
from nnopt.results.lr_curve import write_curve
from nnopt.schema import draws_plots
from nnopt.terminal import console
from nnopt.terminal.training_progress import LrSearchProgress
from nnopt.training.lr_finder import LrRangeTest, LrSuggestion, suggest_learning_rate

GROUP = "lr_find"
"""What stands before the dot in the verb's own keys."""

PURPOSE = """\
Train the configured network once while the learning rate rises exponentially from step to step,
write the losses and their picture into a fresh folder, and suggest a learning rate."""

KEYS = f"""\
keys of the sweep:
  {GROUP}.lowest=RATE    of the first step (default: {LrRangeTest.lowest:g})
  {GROUP}.highest=RATE   of the last step, if the loss has not diverged before \
(default: {LrRangeTest.highest:g})
  {GROUP}.steps=N        optimizer steps in between, evenly spaced on a logarithmic scale \
(default: {LrRangeTest.steps})

Everything else is as for nnopt run: data, batches, augmentation, regularizers, optimizer and seed=.
The schedule is ignored during the sweep, and so are optimizer.lr, epochs and steps.
hydra.run.dir=DIR names the folder, plots=false leaves the picture out.

  nnopt lr-find dataset=mnist optimizer=adam {GROUP}.highest=1
"""


def main(arguments: list[str]) -> int:
    """Sweep, write the files, print the suggestion.

    Raises ConfigError, DataError or OutputError; TrainingError (exit code 5) if the curve suggests
    nothing.
    """
    parser = words_parser("lr-find", PURPOSE)
    parser.epilog, parser.formatter_class = KEYS, RawDescriptionHelpFormatter
    options = parser.parse_intermixed_args(arguments)
    plan, sweep = read_words(options.overrides, options.config_dir)
    point = plan.points[0]
    prepared = prepare(point.config, trains=False)
    folder = make_directory(plan, "lr-find")
    write_text(folder / "config.yaml", to_yaml(point.container))
    config = point.config
    with (
        LrSearchProgress(sweep.steps) as progress,
        memory_shortage(config.batch_size, config.accumulation),
        load_backend(config.backend.name).device_errors(),
    ):
        found = suggest_learning_rate(
            config, prepared.dataset, prepared.architecture, sweep, progress.step
        )
    _write(found, sweep, point, folder)
    _report(found, folder)
    if found.lr is None:
        raise TrainingError(f"no learning rate to suggest: {found.advice}")
    if found.advice:
        console.note(f"note: {found.advice}")
    console.note(f"continue with: {command(point, options.config_dir, found.lr)}")
    return 0


def read_words(words: Sequence[str], config_dir: str | None) -> tuple[Plan, LrRangeTest]:
    """The run and the sweep that the words ask for. Raises ConfigError with every problem found."""
    own = [word for word in words if word.startswith(f"{GROUP}.") and "=" in word]
    problems: list[str] = []
    sweep = plan = None
    try:
        sweep = _read_sweep(own)
    except ConfigError as error:
        problems += error.problems
    try:
        plan = plan_one([word for word in words if word not in own], config_dir)
    except ConfigError as error:
        problems += error.problems
    if plan is None or sweep is None:
        raise ConfigError(problems)
    return plan, sweep


def _read_sweep(words: Sequence[str]) -> LrRangeTest:
    try:
        given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"cannot read {' '.join(words)!r}: {one_line(error)}") from error
    sweep = read_keys(LrRangeTest, asdict(LrRangeTest()) | given.get(GROUP, {}), GROUP)
    if sweep.lowest >= sweep.highest:
        raise ConfigError(
            f"{GROUP}.lowest = {sweep.lowest:g}: needs to be below "
            f"{GROUP}.highest = {sweep.highest:g}"
        )
    return sweep


def command(point: Point, config_dir: str | None, rate: float) -> str:
    """The line that trains the same configuration with this learning rate, quoted for a shell."""
    kept = [word for word in point.overrides if word.partition("=")[0] != "optimizer.lr"]
    folder = [] if config_dir is None else ["--config-dir", config_dir]
    return shlex.join(["nnopt", "run", *folder, *kept, f"optimizer.lr={rate:g}"])


def _write(found: LrSuggestion, sweep: LrRangeTest, point: Point, folder: Path) -> None:
    """The curve as a table and as a picture, and what was made of it. Raises OutputError."""
    curve = found.curve
    write_curve(folder / "lr_find.csv", curve.rates, curve.losses, curve.smoothed)
    outcome = {
        "suggestion": found.lr,
        "advice": found.advice,
        "diverged": found.curve.diverged,
        "steps": len(found.curve.rates),
        "sweep": {field.name: getattr(sweep, field.name) for field in fields(sweep)},
        "overrides": list(point.overrides),
    }
    write_json(folder / "lr_find.json", outcome)
    if draws_plots(point.config):
        from nnopt.plots.run.lr_curve import plot_lr_find

        plot_lr_find(found, folder / "lr_find.png", point.config.name)


def _report(found: LrSuggestion, folder: Path) -> None:
    """The few points of the curve that matter, and the files."""
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
