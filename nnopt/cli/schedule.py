"""``nnopt schedule``: the learning rate of every step, without data and without training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from nnopt.analysis.tabulate import counted
from nnopt.cli.parsers import overrides_parser, picture_path, positive_number
from nnopt.config.compose import compose_config
from nnopt.errors import ConfigError
from nnopt.recipe.prepare import planned_length
from nnopt.schema import Config, PlateauConfig
from nnopt.terminal import console
from nnopt.terminal.safe_stream import standard_output
from nnopt.training.length import Length
from nnopt.training.planned_rates import needs_log_axis, planned_rates

PURPOSE = """\
Print and draw the learning rate of every optimizer step. No data are read, and nothing is
trained."""

EXAMPLES = """\
examples:
  nnopt schedule dataset=cifar10 schedule=one_cycle epochs=20
  nnopt schedule schedule=cosine schedule.warmup_epochs=5 --out schedule.png
  nnopt schedule dataset=csv dataset.train=table.csv schedule=step --steps-per-epoch 120
"""

MAX_RATES = 200_000
"""Maximum number of computed rates. In a longer training, the rates of every k-th step are."""

ROWS = 9  # number of evenly spaced steps in the table
CURVE_COLUMNS, CURVE_LINES, MIN_COLUMNS = 80, 16, 40  # the width is that of the terminal, if known


@dataclass(frozen=True)
class Planned:
    """The learning rates of a training: those of the steps 0, ``every``, 2 ``every``, ..."""

    length: Length
    every: int
    rates: NDArray[np.float64]

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The number of epochs before the step of each rate."""
        return np.arange(len(self.rates)) * self.every / self.length.steps_per_epoch


def main(arguments: list[str]) -> int:
    """Print the learning rates, draw them in the terminal and, with ``--out``, to a file."""
    parser = overrides_parser("schedule", PURPOSE, EXAMPLES)
    parser.add_argument(
        "--steps-per-epoch",
        type=positive_number,
        metavar="N",
        help="number of steps per epoch (default: from the sizes of the dataset and the batch)",
    )
    parser.add_argument("--out", metavar="FILE", help="draw to a file: .png or .svg")
    options = parser.parse_intermixed_args(arguments)
    path = None if options.out is None else picture_path(options.out)
    config = compose_config(options.overrides, options.config_dir)
    label = "learning rate"
    if config.optimizer.lr == "auto":
        label = "learning rate / suggested rate"
        config = replace(config, optimizer=replace(config.optimizer, lr=1.0))
    planned = plan(config, options.steps_per_epoch)
    _print(config, planned, label)
    if path is not None:
        from nnopt.plots.run.curves import plot_schedule

        steps_per_epoch = planned.length.steps_per_epoch / planned.every
        plot_schedule(planned.rates, steps_per_epoch, path, config.schedule.name, label)
        console.note(f"wrote {console.short(path)}")
    return 0


def plan(config: Config, steps_per_epoch: int | None = None) -> Planned:
    """Return the learning rates of a training. Raises ConfigError if its length is not known."""
    length = planned_length(config, steps_per_epoch)
    if length is None:
        raise ConfigError(
            f"the number of training samples of dataset.name = {config.dataset.name!r} is only "
            "known after its files are read; add --steps-per-epoch N"
        )
    schedule = planned_rates(config, length)
    every = -(-length.steps // MAX_RATES)
    return Planned(length, every, np.array([schedule(x) for x in range(0, length.steps, every)]))


def _print(config: Config, planned: Planned, label: str) -> None:
    _print_curve(planned, label)
    console.print_table(("epoch", "step", label, ""), _rows(planned), "rrrl")
    length = planned.length
    console.note(
        f"schedule {config.schedule.name}: {counted(length.epochs, 'epoch')} of "
        f"{counted(length.steps_per_epoch, 'step')}, {counted(length.steps, 'step')} in total"
    )
    if isinstance(config.schedule, PlateauConfig):
        console.note(
            "note: the validation metric determines the reductions of a plateau schedule, so they "
            f"are not shown; each multiplies the rate by {config.schedule.gamma:g}"
        )


def _rows(planned: Planned) -> list[Sequence[str]]:
    """Return rows of the table: about evenly spaced epochs, and the extreme and last rates."""
    rates, last = planned.rates, len(planned.rates) - 1
    per_epoch = planned.length.steps_per_epoch / planned.every
    epochs = np.linspace(0, last / per_epoch, ROWS)
    steps = per_epoch * (epochs.round() if epochs[-1] >= ROWS else epochs)
    marks: dict[int, list[str]] = {min(round(step), last): [] for step in steps}
    if rates.max() > rates.min():
        marks.setdefault(int(rates.argmax()), []).append("highest")
        marks.setdefault(int(rates.argmin()), []).append("lowest")
    marks.setdefault(last, []).append("last step")
    rows: list[Sequence[str]] = []
    for index in sorted(marks):
        epoch, step = f"{planned.epochs[index]:.4g}", f"{index * planned.every:,}"
        rows.append((epoch, step, f"{rates[index]:.4g}", ", ".join(marks[index])))
    return rows


def _print_curve(planned: Planned, label: str) -> None:
    """Draw the curve with characters, unless plotext or the space or the encoding is missing."""
    stream = standard_output()
    size = shutil.get_terminal_size() if stream.is_terminal() else None
    columns = CURVE_COLUMNS if size is None else size.columns
    if find_spec("plotext") is None:
        console.note("note: no curve, because plotext is missing; pip install 'nnopt[curves]'")
    elif columns >= MIN_COLUMNS and stream.can_show("┤⣿▟"):
        from nnopt.terminal.plotext_curves import rate_curve

        lines = CURVE_LINES if size is None else max(9, min(CURVE_LINES, size.lines - 14))
        is_log = needs_log_axis(planned.rates)
        curve = rate_curve(planned.epochs, planned.rates, label, is_log, columns, lines)
        if size is None:
            for line in curve.plain.splitlines():
                stream.write_line(line.rstrip())
        else:
            stream.rich().print(curve)
