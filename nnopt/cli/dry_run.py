"""``nnopt run --dry-run``: lists the points of a command line, and runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nnopt.analysis.tabulate import counted
from nnopt.cli.result_folder import check_directory, given_directory, is_single_run
from nnopt.config.compose import Plan, Point
from nnopt.config.search_parameters import Choice, Parameter
from nnopt.errors import Problems
from nnopt.recipe.prepare import Planned, prepare_without_data
from nnopt.recipe.pruning_checks import trained_weights
from nnopt.results.summary import UnusableSummaryError, read_summary
from nnopt.schema import OptunaConfig
from nnopt.sweeps.manifest import MANIFEST, read_sweep
from nnopt.sweeps.point_folder import PENDING, read_state
from nnopt.terminal import console

HEADER = ("number", "status", "overrides", "id")


def dry_run(plan: Plan) -> int:
    """Check and list the points of a plan. No folder is made, and no data are read.

    Points that already exist in the folder of hydra.sweep.dir or hydra.run.dir have the status of
    their run.

    Raises:
        ConfigError: A configuration is wrong, apart from problems that depend on data files.
        DataError: A generated or published dataset has too few samples to be split.
        OutputError: The folder contains other files, or cannot be made or written.
        ResumeError: The folder contains a damaged sweep.
    """
    folder = _existing_folder(plan)
    if folder is None:
        check_directory(plan, "sweeps" if plan.is_sweep else "runs")
    planned = _check_points(plan.points)
    if not plan.is_sweep:
        _print_run(plan.points[0], planned[0], folder)
    elif plan.space is not None:
        _print_search(plan, folder)
    else:
        _print_sweep(plan, folder)
    if folder is not None:
        command = console.resume_command(folder)
        console.note(f"`nnopt run` refuses a folder with results; continue it with `{command}`")
    return 0


def _existing_folder(plan: Plan) -> Path | None:
    """Return the folder of the plan if it already contains a sweep or a run of the same kind."""
    folder = given_directory(plan)
    if folder is None:
        return None
    is_present = (folder / MANIFEST).exists() if plan.is_sweep else is_single_run(folder)
    return folder.resolve() if is_present else None  # the link outputs/latest may change


def _check_points(points: Iterable[Point]) -> list[Planned | None]:
    """Check every point without its data.

    Return None for a point whose data must be read first. Raises ConfigError with the problems of
    all points.
    """
    problems, results = Problems(), []
    for point in points:
        with problems.collect():
            planned = prepare_without_data(point.config)
            if planned is not None:
                trained_weights(point.config.pruning, planned.architecture)
            results.append(planned)
    problems.check()
    return results


def _print_run(point: Point, planned: Planned | None, folder: Path | None) -> None:
    results = {"id": point.id, "overrides": " ".join(point.overrides) or "none"}
    if planned is not None:
        results["parameters"] = f"{planned.architecture.parameter_count:,}"
    if planned is not None and planned.length is not None:
        length = planned.length
        results["training"] = f"{counted(length.epochs, 'epoch')}, {counted(length.steps, 'step')}"
    else:
        results["training"] = f"{counted(point.config.epochs, 'epoch')}; the number of samples is "
        results["training"] += "known after the data are read"
    other = None if folder is None else _other_run(point, folder)
    results["status"] = PENDING.status if folder is None or other else read_state(folder).status
    console.summary(point.config.name, results, {} if folder is None else {"folder": folder})
    if other:
        console.note(f"the folder has another run, {other}; name another folder for this one")


def _other_run(point: Point, folder: Path) -> str | None:
    """Return the id of the run in a folder if it is not that of the point."""
    with suppress(UnusableSummaryError):
        found = read_summary(folder).values.get("id")
        return None if found == point.id else found
    return None


def _print_sweep(plan: Plan, folder: Path | None) -> None:
    """Print the points with the numbers that they have, or would get, in the folder."""
    known = () if folder is None else read_sweep(folder).points
    numbers = {point.id: number for number, point in enumerate(known, start=1)}
    for point in plan.points:
        numbers.setdefault(point.id, len(numbers) + 1)
    fixed = {x for x in plan.points[0].overrides if _key(x) not in plan.varied}
    fixed.intersection_update(*(point.overrides for point in plan.points))
    statuses = _print_points(plan.points, numbers, fixed, folder)
    same = [x for x in plan.points[0].overrides if x in fixed]
    if same:
        console.note(f"in every point: {' '.join(same)}")
    console.note(_count_text(statuses))
    others = numbers.keys() - {point.id for point in plan.points}
    if others:
        console.note(f"the folder has {counted(len(others), 'point')} outside of this command")


def _print_search(plan: Plan, folder: Path | None) -> None:
    """Print the search space, and the existing points of the search."""
    settings, space = plan.sweeper, plan.space
    assert isinstance(settings, OptunaConfig)
    assert space is not None
    rows = [(parameter.key, _values(parameter)) for parameter in space.parameters]
    console.print_table(("key", "values"), rows, "ll")
    seeds = len(space.seeds)
    each = f" with {seeds} seeds each, {space.points_of(settings)} points" if seeds > 1 else ""
    console.note(
        f"{counted(settings.trials, 'trial')}{each}; metric {settings.metric}, sampler "
        f"{settings.sampler}, pruner {settings.pruner}; the search draws its points one by one"
    )
    if space.fixed:
        console.note(f"in every point: {' '.join(space.fixed)}")
    if folder is not None:
        points = read_sweep(folder).points
        numbers = {point.id: number for number, point in enumerate(points, start=1)}
        console.note(_count_text(_print_points(points, numbers, set(space.fixed), folder)))


def _print_points(
    points: Sequence[Point], numbers: Mapping[str, int], fixed: set[str], folder: Path | None
) -> list[str]:
    """Print a table of points without their ``fixed`` overrides, and return their statuses."""
    points = sorted(points, key=lambda point: numbers[point.id])
    states = [PENDING if folder is None else read_state(folder / x.id) for x in points]
    statuses = [state.status for state in states]
    rows = [
        (
            str(numbers[point.id]),
            status,
            " ".join(x for x in point.overrides if x not in fixed),
            point.id,
        )
        for point, status in zip(points, statuses, strict=True)
    ]
    console.print_table(HEADER, rows, "rlll")
    return statuses


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _values(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return ", ".join(parameter.texts)
    text = f"{parameter.low:g} to {parameter.high:g}"
    if parameter.step is not None and not (parameter.is_whole and parameter.step == 1):
        text += f" in steps of {parameter.step:g}"
    return f"{text}, logarithmic" if parameter.log else text


def _count_text(statuses: Sequence[str]) -> str:
    """Return the number of points, in total and by status: ``3 points: 2 done, 1 pending``."""
    counts = ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())
    return f"{counted(len(statuses), 'point')}: {counts or 'none yet'}"
