"""A search run from its first trial to its last, or continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import chdir, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.hydra import composing, parse_words, word_of
from nnopt.errors import ConfigError
from nnopt.schema import OptunaConfig
from nnopt.sweeps.execute import draw, resume_command, stopped
from nnopt.sweeps.execute import report as report_points
from nnopt.sweeps.manifest import Sweep, settled
from nnopt.sweeps.point_folder import FAILED
from nnopt.sweeps.results_table import Table
from nnopt.sweeps.search.progress import SearchProgress
from nnopt.sweeps.search.search import begin
from nnopt.sweeps.search.summary import report
from nnopt.sweeps.task import Launcher
from nnopt.terminal import console

CHANGEABLE = (
    "hydra.sweeper.trials",
    "hydra.sweeper.timeout",
    "hydra/launcher",
    "hydra.launcher.",
)
"""Settings that may be others when a search is continued: what their names begin with."""


def run_search(
    plan: Plan,
    sweep: Sweep,
    launcher: Launcher,
    *,
    fail_fast: bool = False,
    adapt: Callable[[Point], Point] = lambda point: point,
) -> int:
    """Run the trials that a search has yet to run; returns the exit code: 5 if any point failed,
    130 after Ctrl-C.

    sweep: with the points of the trials there are. fail_fast: no further trial after one fails.
    adapt: changes each point before it runs, but not in ``sweep.json``.
    """
    started = time.monotonic()
    view = plan.points[0].config.view
    with begin(plan, sweep, adapt) as run, SearchProgress(run, view) as progress:
        table = Table(run.sweep)
        looks = (progress.epoch,) if sweep.launcher.name == "sequential" else ()
        try:
            with closing(launcher(run.tasks(looks))) as outcomes:
                for outcome in outcomes:
                    run.tell(outcome)
                    table.take(run.sweep)
                    table.tell(outcome.task.point.id, outcome.status, outcome.error)
                    table.write()
                    progress.update()
                    if fail_fast and outcome.status in FAILED:
                        break
        except (KeyboardInterrupt, SystemExit) as stop:
            progress.close()
            return stopped(sweep, stop)
        finally:
            progress.update()
            progress.close()
            table.take(run.sweep)
            entries = table.write()
        draw(run.sweep, run.settings.metric)
        report(run)
        code = report_points(run.sweep, entries, time.monotonic() - started)
        left = run.settings.trials - len(run.study.get_trials(deepcopy=False))
        if left > 0:  # its time was over, or one has failed
            console.note(f"`{resume_command(sweep.folder)}` runs the {left} trials that are left")
        return code


def resumed(sweep: Sweep, words: Sequence[str]) -> tuple[Plan, Sweep]:
    """Return what is needed to continue a search. Raises ConfigError.

    words: of CHANGEABLE settings.
    """
    is_there = Path(sweep.working).is_dir()
    with chdir(sweep.working) if is_there else nullcontext():
        with composing(sweep.config_dir):
            new, before = parse_words(words), parse_words(sweep.words)
        if refused := [word_of(o) for o in new if not o.key_or_group.startswith(CHANGEABLE)]:
            names = ", ".join(CHANGEABLE)
            raise ConfigError(
                f"{refused[0]!r}: when a search is continued, only {names} can change"
            )
        changed = tuple(override.key_or_group for override in new)
        if "hydra/launcher" in changed:  # and the keys of the one before with it
            changed += ("hydra.launcher.",)
        kept = [word_of(o) for o in before if not o.key_or_group.startswith(changed)]
        plan = make_plan([*kept, *words], multirun=True, config_dir=sweep.config_dir)
        plan = replace(plan, points=tuple(map(settled, plan.points)))
    sweeper = cast(OptunaConfig, plan.sweeper)
    if "hydra.sweeper.trials" not in changed:  # perhaps more than the sweep was begun with
        sweeper = replace(sweeper, trials=cast(OptunaConfig, sweep.sweeper).trials)
    return plan, replace(sweep, sweeper=sweeper, launcher=plan.launcher)
