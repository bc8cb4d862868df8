"""Run a search, or resume it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from optuna.trial import TrialState

from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.hydra import composing, override_text, parse_overrides
from nnopt.config.plugins import loaded_files_only
from nnopt.errors import ConfigError
from nnopt.io.paths import in_folder
from nnopt.plots.sweep.draw import draw_plot
from nnopt.plots.sweep.importance import plot_importances
from nnopt.schema import OptunaConfig
from nnopt.sweeps.execute import plot, print_summary, run_tasks
from nnopt.sweeps.manifest import Sweep, with_absolute_paths
from nnopt.sweeps.results_table import ResultsTable
from nnopt.sweeps.search.display import SearchProgress, print_best_trials
from nnopt.sweeps.search.search import SearchRun, open_search
from nnopt.sweeps.search.study import importances
from nnopt.sweeps.task import Launcher, TaskResult
from nnopt.terminal import console

RESAMPLES = 50  # number of bootstrap samples for the intervals of importances

CHANGEABLE = ("hydra.sweeper.trials", "hydra.sweeper.timeout", "hydra/launcher", "hydra.launcher.")
"""Prefixes of the keys that may change when a search is resumed."""


def run_search(
    plan: Plan,
    sweep: Sweep,
    launcher: Launcher,
    *,
    fail_fast: bool = False,
    adapt: Callable[[Point], Point] = lambda point: point,
) -> int:
    """Run the remaining trials of a search. Return the same exit codes as ``run_sweep``.

    ``adapt`` changes each point before it runs; ``sweep.json`` contains the unchanged point.
    """
    started = time.monotonic()
    mode = plan.points[0].config.progress
    with open_search(plan, sweep, adapt) as run, SearchProgress(run, mode) as progress:
        table = ResultsTable(run.sweep)

        def on_result(result: TaskResult) -> None:
            run.report(result)
            table.use(run.sweep)

        callbacks = (progress.epoch,) if sweep.launcher.name == "sequential" else ()
        tasks = run.tasks(callbacks)
        stopped = run_tasks(tasks, launcher, table, progress, on_result, fail_fast)
        if stopped is not None:
            return stopped
        plot(run.sweep, run.settings.metric)
        _plot_importances(run)
        print_best_trials(run)
        code = print_summary(run.sweep, table.rows, time.monotonic() - started)
        left = run.settings.trials - len(run.study.get_trials(deepcopy=False))
        if left > 0:  # after the timeout of the search, or with fail_fast
            console.note(
                f"`{console.resume_command(sweep.folder)}` runs the remaining trials: {left}"
            )
        return code


def _plot_importances(run: SearchRun) -> None:
    """Draw the importances of the keys, unless plots=false or they cannot be computed."""
    if not any(point.config.plots is not False for point in run.sweep.points):
        return
    if found := importances(run.study, RESAMPLES):
        trials = len(run.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        metric = run.settings.metric
        draw_plot(
            run.sweep.folder,
            "importance",
            lambda paths: plot_importances(found, trials, metric, paths),
        )


def plan_resumed_search(sweep: Sweep, overrides: Sequence[str]) -> tuple[Plan, Sweep]:
    """Return the plan and the sweep of a resumed search. Raises ConfigError."""
    with in_folder(sweep.working_dir):
        with composing(sweep.config_dir):
            new, before = parse_overrides(overrides), parse_overrides(sweep.overrides)
        if refused := [override_text(o) for o in new if not o.key_or_group.startswith(CHANGEABLE)]:
            names = f"{', '.join(CHANGEABLE)}KEY"
            raise ConfigError(f"{refused[0]!r}: on resume of a search, only {names} can change")
        changed = tuple(override.key_or_group for override in new)
        if "hydra/launcher" in changed:  # drop the settings of the previous launcher
            changed += ("hydra.launcher.",)
        kept = [override_text(o) for o in before if not o.key_or_group.startswith(changed)]
        with loaded_files_only():
            plan = make_plan([*kept, *overrides], multirun=True, config_dir=sweep.config_dir)
        plan = replace(plan, points=tuple(map(with_absolute_paths, plan.points)))
    sweeper = cast(OptunaConfig, plan.sweeper)
    if "hydra.sweeper.trials" not in changed:  # an earlier resume may have raised this number
        sweeper = replace(sweeper, trials=cast(OptunaConfig, sweep.sweeper).trials)
    return plan, replace(sweep, sweeper=sweeper, launcher=plan.launcher)
