"""``nnopt run``: train one configuration, or every point of a sweep."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nnopt.analysis.tabulate import counted
from nnopt.backends import load_backend
from nnopt.backends.thread_choice import ThreadChoice, threads_for
from nnopt.cli.parsers import run_parser
from nnopt.cli.result_folder import check_directory, make_directory
from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.point import MAX_POINTS_WITH_PLOTS
from nnopt.errors import ConfigError, OutputError, Problems, TimeLimitError
from nnopt.io.locks import hold
from nnopt.io.own_files import CHECKPOINTS
from nnopt.io.paths import given_path
from nnopt.recipe.prepare import prepare
from nnopt.recipe.pruning_checks import trained_weights
from nnopt.recipe.run import run
from nnopt.recipe.start_weights import start_weights
from nnopt.recipe.stored_config import read_stored_config
from nnopt.recipe.thread_notes import note_threads
from nnopt.results.checkpoint_file import Checkpoint
from nnopt.results.cores import processor_times
from nnopt.schema import OptunaConfig
from nnopt.sweeps.launchers.make import make_launcher
from nnopt.sweeps.manifest import create_sweep
from nnopt.sweeps.point_folder import read_state
from nnopt.terminal import console
from nnopt.terminal.interruption import Interruption, code_of, message_of, stop_on_signals
from nnopt.terminal.live_display import no_curves_reason


def main(arguments: list[str]) -> int:
    """Run the configuration or the sweep of a command line.

    All points are checked before a folder is made. A sweep continues after a failed point.
    """
    start = processor_times()
    stop_on_signals()
    options = _parse(arguments)
    if options.help or options.info:
        from nnopt.config.show import print_help, print_info

        print_info(options) if options.info else print_help(options, run_parser())
        return 0
    base = None
    if options.base is not None:
        folder = given_path(options.base, "--from")
        base = read_stored_config(folder, f"--from {options.base}", options.overrides)
    plan = make_plan(options.overrides, options.multirun, options.config_dir, base)
    if options.cfg:
        from nnopt.config.show import print_config

        print_config(plan, options)
        return 0
    if options.fail_fast and not plan.is_sweep:
        raise ConfigError("--fail-fast applies to a sweep; `nnopt run -m` runs one")
    if options.dry_run:
        from nnopt.cli.dry_run import dry_run  # not needed by a run

        return dry_run(plan)
    kind = "sweeps" if plan.is_sweep else "runs"
    check_directory(plan, kind)
    launcher = make_launcher(plan.launcher)
    threads = prepare_all(plan.points)
    directory = make_directory(plan, kind)
    _note_missing_curves(plan)
    points = len(plan.points)
    if plan.space is not None:
        points = plan.space.points_of(cast(OptunaConfig, plan.sweeper))
    note_threads(threads, points, plan.launcher, start)
    if not plan.is_sweep:
        return _run_single(plan.points[0], directory)
    note_missing_plots(plan.points, points)
    if plan.space is not None:
        from nnopt.sweeps.search.execute import run_search  # imports Optuna

        sweep = create_sweep(replace(plan, points=()), directory)
        return run_search(plan, sweep, launcher, fail_fast=options.fail_fast)
    from nnopt.sweeps.execute import run_sweep  # imports modules that a single run does not need

    return run_sweep(create_sweep(plan, directory), launcher, fail_fast=options.fail_fast)


def _parse(arguments: Sequence[str]) -> Namespace:
    """Return the options. Raises ConfigError for an option that has no effect."""
    options = run_parser().parse_intermixed_args(arguments)
    if options.cfg and options.dry_run:
        raise ConfigError("--cfg and --dry-run print different lists; leave one of them out")
    if options.cfg and options.multirun:
        raise ConfigError("--cfg prints one configuration; leave -m out")
    if not options.cfg and (options.resolve or options.package is not None):
        flag = "--resolve" if options.resolve else "--package"
        raise ConfigError(f"{flag} has no effect without --cfg; add --cfg job")
    return options


def _run_single(point: Point, directory: Path) -> int:
    with hold(directory) as is_ours:
        if not is_ours:  # another process started when the folder was empty
            raise OutputError(f"another process writes into {directory}; name another folder")
        return run_and_report(point, directory)


def run_and_report(point: Point, directory: Path, resumed: Checkpoint | None = None) -> int:
    """Run a point in a folder whose lock is held, print its results and return the exit code.

    After an interruption or the time limit, the command that resumes an unfinished run is printed.
    """
    try:
        summary = run(point, directory, resumed=resumed)
    except (KeyboardInterrupt, Interruption, TimeLimitError) as stop:
        has_checkpoint = any((directory / name).exists() for name in CHECKPOINTS)
        effect = "continues the run" if has_checkpoint else "starts the run over"
        effect = f"`{console.resume_command(directory)}` {effect}"
        if read_state(directory, held=True).status == "done":  # stopped after its last step
            effect = "the run is finished"
        console.error(f"{message_of(stop)}; {effect}")
        return code_of(stop)
    _print_summary(summary, directory)
    return 0


def _note_missing_curves(plan: Plan) -> None:
    """Print the reason if progress=curves is set, but no curves are drawn."""
    if not any(point.config.progress == "curves" for point in plan.points):
        return
    if plan.is_sweep and plan.launcher.name != "sequential":
        console.note(
            "note: progress=curves has no effect: no point runs in this process with "
            f"hydra/launcher={plan.launcher.name}"
        )
    elif reason := no_curves_reason():
        console.note(f"note: progress=curves: {reason}; progress=bar is used instead")


def note_missing_plots(points: Iterable[Point], count: int) -> None:
    """Print a note if ``plots=auto`` draws no plots of points in a sweep of ``count`` points."""
    if count > MAX_POINTS_WITH_PLOTS and any(point.config.plots == "auto" for point in points):
        console.note(
            "note: only the plots of the sweep are drawn; plots=true adds the plots of each point"
        )


def prepare_all(
    points: Iterable[Point], has_started: Callable[[Point], bool] = lambda point: False
) -> list[ThreadChoice]:
    """Load the data and build the network of every point. Return each point's choice of threads.

    The weights of ``initializer.from`` and of ``pruning.from`` are read too; the latter are not
    needed if ``has_started`` is true for a point. Raises ConfigError with the problems of all
    points, DataError or ModelError.
    """
    problems, threads = Problems(), []
    for point in points:
        with problems.collect():
            architecture = prepare(point.config).architecture
            start_weights(point.config, architecture)
            if not has_started(point):
                trained_weights(point.config.pruning, architecture)
            library_threads = load_backend(point.config.backend.name).default_threads()
            threads.append(threads_for(architecture, point.config, library_threads))
    problems.check()
    return threads


def _print_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the results of a run and the paths of its files."""
    results = {
        "test accuracy": f"{summary['test_accuracy']:z.4f}",
        "test loss": f"{summary['test_loss']:z.4f}",
    }
    if summary["train_accuracy"] is not None:
        gap = summary["generalization_gap"]
        results["train accuracy"] = f"{summary['train_accuracy']:.4f} (gap {gap:+z.4f})"
    for name in summary["config"].get("evaluation", {}).get("metrics", ()):
        value = summary.get(f"test_{name}")
        results[f"test {name.replace('_', ' ')}"] = "none" if value is None else f"{value:.6g}"
    if summary["best_validation_accuracy"] is not None:
        best = summary["best_validation_accuracy"]
        results["best validation accuracy"] = f"{best:.4f} (epoch {summary['best_epoch']})"
    if summary["target_reached"] is not None:
        results["target"] = _target(summary)
    results["parameters"] = f"{summary['parameters']:,}"
    if summary["pruning"]:
        ratio = summary["compression_ratio"]
        results["sparsity"] = f"{summary['sparsity']:.4g}, compression ratio {ratio:.3g}"
    if summary["measured_predict_speedup"] is not None:
        step, predict = summary["measured_step_speedup"], summary["measured_predict_speedup"]
        results["measured speed-up"] = f"training step {step:.2f}, prediction {predict:.2f}"
    results["training"] = f"{summary['train_seconds']:.1f} s, {counted(summary['epochs'], 'epoch')}"
    if summary["stopped_early"]:
        results["training"] += ", stopped early"
    paths = {"metrics": folder / "metrics.csv", "weights": folder / "model_best.npz"}
    if (folder / "plots").is_dir():
        paths["plots"] = folder / "plots"
    console.summary(summary["name"], results, {"folder": folder, **paths})


def _target(summary: Mapping[str, Any]) -> str:
    """Describe the target of a run, and when the training has reached it."""
    target = summary["config"]["target"]
    text = f"{target['metric'].replace('_', ' ')} {target['value']:g}"
    if not summary["target_reached"]:
        return f"{text}, not reached"
    steps, epochs = summary["steps_to_target"], summary["epochs_to_target"]
    return (
        f"{text}, reached after {counted(steps, 'step')}, {epochs:.4g} "
        f"epoch{'' if epochs == 1 else 's'}, {summary['seconds_to_target']:.1f} s"
    )
