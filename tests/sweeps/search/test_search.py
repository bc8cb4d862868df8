"""Searches in which a formula replaces the training. One is compared with Optuna alone."""

from __future__ import annotations

import json
import math
import pickle
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
from data_files import summary_values
from optuna.trial import TrialState

from nnopt.config.compose import Plan, Point, make_plan
from nnopt.config.hydra import composing
from nnopt.errors import PrunedError, ResumeError
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import OptunaConfig
from nnopt.sweeps import manifest
from nnopt.sweeps.manifest import Sweep
from nnopt.sweeps.search import display as best
from nnopt.sweeps.search import study
from nnopt.sweeps.search.search import SearchRun, open_search
from nnopt.sweeps.task import Task, TaskResult

WORDS = [
    "hydra/sweeper=optuna",
    "hydra.sweeper.trials=10",
    "hydra.sweeper.startup_trials=4",
    "optimizer.lr=tag(log, interval(1e-4,1))",
    "batch_size=interval(8,64)",
    "architecture.hidden=choice([8],[16,8])",
]

Score = Callable[[Point], float]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(WORDS, multirun=True)


def with_settings(plan: Plan, **settings: Any) -> Plan:
    assert isinstance(plan.sweeper, OptunaConfig)
    return replace(plan, sweeper=replace(plan.sweeper, **settings))


def score(point: Point) -> float:
    """Return a score whose maximum, 1, is at lr = 0.01, batch_size = 32 and hidden = [16, 8]."""
    config = point.config
    far = math.log10(float(config.optimizer.lr)) + 2
    layers = len(config.architecture.hidden)  # type: ignore[union-attr]
    return 1 - 0.2 * far**2 - ((config.batch_size - 32) / 100) ** 2 - 0.1 * (2 - layers)


def work(task: Task, score: Score = score, epochs: int = 0) -> TaskResult:
    """Write the summary of a task without training, and return the result.

    The task's callbacks receive ``epochs`` epochs, whose validation accuracy approaches the score.
    """
    task.folder.mkdir(exist_ok=True)
    value, status, error = score(task.point), "done", None
    try:
        for epoch in range(1, epochs + 1):
            so_far = value * (1 - 0.5**epoch)
            row = EpochRow(epoch, epoch, 0.1, 1.0, so_far, 1 - so_far, so_far, 0.0, 1.0, 0.1)
            for callback in task.after_epoch:
                callback(row, True)
    except PrunedError as pruned:
        status, error = "pruned", f"{pruned}"
    if value < -1:
        status, error = "diverged", "the loss is not finite"
    metrics = {"best_validation_accuracy": value, "best_validation_loss": 1 - value}
    summary = summary_values(status=status, error=error, **(metrics if status == "done" else {}))
    (task.folder / "summary.json").write_text(json.dumps(summary))
    return TaskResult(task, status, error)


@contextmanager
def another_process() -> Iterator[None]:
    """Clear the cached journal, so that the journal file is read again as in a new process."""
    study._open_journal.cache_clear()
    yield
    study._open_journal.cache_clear()


def sweep_in(folder: Path, plan: Plan) -> Sweep:
    if folder.exists():
        return replace(manifest.read_sweep(folder), sweeper=plan.sweeper)
    folder.mkdir()
    return manifest.create_sweep(replace(plan, points=()), folder)


def search(plan: Plan, folder: Path, steps: int | None = None, **options: Any) -> SearchRun:
    """Run a search and return it. With ``steps``, stop before task number ``steps`` is reported."""
    with another_process(), open_search(plan, sweep_in(folder, plan)) as run:
        for number, task in enumerate(run.tasks(), start=1):
            outcome = work(task, **options)
            if number == steps:
                break
            run.report(outcome)
    return run


def trials_of(run: SearchRun) -> list[tuple[Any, ...]]:
    return [(t.number, t.params, t.value, t.state) for t in run.study.trials]


def test_search_trials_depend_only_on_seed(plan: Plan, tmp_path: Path) -> None:
    first = search(plan, tmp_path / "a")
    assert len(first.study.trials) == 10
    assert len({p.id for p in first.sweep.points}) == 10
    assert trials_of(search(plan, tmp_path / "b")) == trials_of(first)
    other = search(with_settings(plan, seed=1), tmp_path / "c")
    assert not {p.id for p in other.sweep.points} & {p.id for p in first.sweep.points}
    for trial, point in zip(first.study.trials, first.sweep.points, strict=True):
        assert trial.params["optimizer.lr"] == point.config.optimizer.lr  # bit by bit
        assert trial.params["batch_size"] == point.config.batch_size
        assert trial.value == score(point)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_values_of_a_search_equal_values_of_optuna(
    plan: Plan, tmp_path: Path, sampler: str
) -> None:
    run = search(with_settings(plan, sampler=sampler), tmp_path / "a")
    assert isinstance(run.settings, OptunaConfig)
    spaces: dict[str, Callable[[optuna.Trial], Any]] = {
        "architecture.hidden": lambda t: t.suggest_categorical(
            "architecture.hidden", ["[8]", "[16,8]"]
        ),
        "batch_size": lambda t: t.suggest_int("batch_size", 8, 64),
        "optimizer.lr": lambda t: t.suggest_float("optimizer.lr", 1e-4, 1, log=True),
    }
    alone = optuna.create_study(direction="maximize")
    for trial in run.study.trials:
        seed = study.sampler_seed(0, trial.number)
        alone.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=4, multivariate=True, group=True, constant_liar=True
        )
        asked = alone.ask()
        for key, suggest in spaces.items():
            if sampler == "random" or trial.number < 4:  # keys are drawn independently
                key_seed = study.sampler_seed(0, trial.number, key)
                alone.sampler = optuna.samplers.RandomSampler(seed=key_seed)
            assert suggest(asked) == trial.params[key]
        alone.tell(asked, trial.value)


def test_tpe_beats_random_search(plan: Plan) -> None:
    def best_of(sampler: str, seed: int) -> float:
        settings = with_settings(plan, sampler=sampler, seed=seed).sweeper
        assert isinstance(settings, OptunaConfig)
        searched = optuna.create_study(sampler=study.RepeatableSampler(settings))
        for _ in range(30):
            trial = searched.ask()
            x, y = (trial.suggest_float(key, -5, 5) for key in "xy")
            searched.tell(trial, (x - 1) ** 2 + (y + 2) ** 2)
        return searched.best_value

    results = {s: statistics.median(best_of(s, n) for n in range(3)) for s in ("tpe", "random")}
    assert results["tpe"] < 0.3 * results["random"]


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_search_killed_and_resumed_equals_whole_search(
    plan: Plan, tmp_path: Path, pruner: str
) -> None:
    plan = with_settings(plan, pruner=pruner, warmup_epochs=1, trials=8)
    whole = search(plan, tmp_path / "whole", epochs=3)
    folder = tmp_path / "killed"
    for steps in (1, 3, 2, 1):
        search(plan, folder, steps, epochs=3)
        with (folder / study.JOURNAL).open("ab") as file:
            file.write(b'{"op_code":4,"worker')  # an incomplete line
    newest = max(folder.glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()  # as if the last task had not ended before the kill
    resumed = search(plan, folder, epochs=3)
    assert trials_of(resumed) == trials_of(whole)
    assert resumed.sweep.points == whole.sweep.points
    assert {p.name for p in folder.glob("spiral*")} == {p.id for p in whole.sweep.points}


class Killed(BaseException):
    """Raised in place of killing the process."""


@pytest.mark.parametrize("is_judged", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_search_killed_during_pruning_equals_whole_search(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, is_judged: bool
) -> None:
    """The process is killed when the pruner stops a trial. The next process decides again."""
    plan = with_settings(plan, pruner=pruner, warmup_epochs=1, trials=12)
    run = partial(search, plan, score=lambda point: score(point) + 1, epochs=3)
    whole = run(tmp_path / "whole")
    pruned = [(t.number, t.last_step) for t in whole.study.trials if t.state == TrialState.PRUNED]
    assert len(pruned) > 1
    judge, left = optuna.Trial.should_prune, set(pruned)

    def killed(trial: optuna.Trial) -> bool:
        here = trial.number, trial.study.trials[trial.number].last_step
        is_stopped = judge(trial) if is_judged or here not in left else False
        if here in left:
            left.remove(here)
            raise Killed
        return is_stopped

    monkeypatch.setattr(optuna.Trial, "should_prune", killed)
    for _ in pruned:
        with pytest.raises(Killed):
            run(tmp_path / "killed")
    resumed = run(tmp_path / "killed")
    assert trials_of(resumed) == trials_of(whole)
    for trial, expected in zip(resumed.study.trials, whole.study.trials, strict=True):
        assert trial.intermediate_values == expected.intermediate_values
        assert trial.system_attrs == expected.system_attrs


@pytest.mark.parametrize(("trials", "lines"), [(6, 3), (2, 2)])
def test_search_killed_during_draw_equals_whole_search(
    plan: Plan, tmp_path: Path, trials: int, lines: int
) -> None:
    """The search is killed after it has stored one of several values of a trial.

    Optuna draws the values of trial 6 jointly, and the values of trial 2 one by one.
    """
    whole = trials_of(search(with_settings(plan, trials=trials + 1), tmp_path / "whole"))
    search(with_settings(plan, trials=trials), folder := tmp_path / "killed")
    journal = folder / study.JOURNAL
    with another_process(), open_search(plan, sweep_in(folder, plan)) as run:
        next(run.tasks())
    events = journal.read_bytes().splitlines(keepends=True)
    started = max(n for n, line in enumerate(events) if json.loads(line)["op_code"] == 4)
    journal.write_bytes(b"".join(events[: started + lines]))
    assert trials_of(search(with_settings(plan, trials=trials + 1), folder)) == whole


def test_search_resumed_with_more_trials_equals_longer_search(plan: Plan, tmp_path: Path) -> None:
    search(with_settings(plan, trials=5), folder := tmp_path / "s")
    before = {path: path.read_bytes() for path in folder.glob("*/summary.json")}
    more = search(plan, folder)
    assert trials_of(more) == trials_of(search(plan, tmp_path / "whole"))
    assert before.items() <= {p: p.read_bytes() for p in folder.glob("*/summary.json")}.items()
    assert trials_of(search(with_settings(plan, trials=3), folder)) == trials_of(more)


def test_search_repeats_points_without_summary_in_same_trials(plan: Plan, tmp_path: Path) -> None:
    def epochs_of(plan: Plan) -> list[tuple[str, int, tuple[int, tuple[str, ...]]]]:
        seen: list[tuple[str, int, tuple[int, tuple[str, ...]]]] = []
        with another_process(), open_search(plan, sweep_in(tmp_path / "s", plan)) as run:
            running = ""

            def record(row: EpochRow, best: bool) -> None:
                seen.append((running, row.epoch, run.latest))

            for task in run.tasks((record,)):
                running = task.point.id
                run.report(work(task, epochs=2))
                assert len(run.latest[1]) == 3
                assert set(run.latest[1]) <= set(task.point.overrides)
        return seen

    short = with_settings(plan, trials=4)
    before = epochs_of(short)
    assert [(epoch, number) for _, epoch, (number, _) in before] == [
        (epoch, number) for number in range(1, 5) for epoch in (1, 2)
    ]
    for identity in {identity for identity, _, (number, _) in before if number in (2, 3)}:
        (tmp_path / "s" / identity / "summary.json").unlink()
    more = epochs_of(with_settings(plan, trials=5))
    assert more[:4] == before[2:6]
    assert [(epoch, number) for _, epoch, (number, _) in more[4:]] == [(1, 5), (2, 5)]
    assert epochs_of(short) == []


def test_search_with_other_settings_is_refused(plan: Plan, tmp_path: Path) -> None:
    search(with_settings(plan, trials=2), folder := tmp_path / "s")
    with pytest.raises(ResumeError, match="began: metric, seed would differ"):
        search(with_settings(plan, metric="best_validation_loss", seed=3), folder)


def test_search_with_changed_yaml_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("conf/experiment/mine.yaml")
    mine.parent.mkdir(parents=True)
    overrides = ["hydra/sweeper=optuna", "hydra.sweeper.trials=2", "optimizer.lr=0.1,0.2"]
    overrides.append("experiment=mine")
    mine.write_text("# @package _global_\nbatch_size: 16\n")
    search(make_plan(overrides, multirun=True), folder := tmp_path / "s")
    search(make_plan(overrides, multirun=True), folder)
    mine.write_text("# @package _global_\nbatch_size: 32\n")
    with pytest.raises(ResumeError, match="began: configuration would differ"):
        search(make_plan(overrides, multirun=True), folder)


def test_search_runs_repeated_configuration_once(tmp_path: Path) -> None:
    overrides = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.trials=12",
        "epochs=1,2",
        "optimizer.lr=0.1,0.2",
    ]
    plan = make_plan(overrides, multirun=True)
    run = search(plan, tmp_path / "s", score=lambda p: p.config.epochs / 10)
    assert len(run.sweep.points) == 4
    assert [t.state for t in run.study.trials] == [TrialState.COMPLETE] * 12
    for trial in run.study.trials:
        assert trial.value == int(trial.params["epochs"]) / 10
    assert "repeated draws: 8" in best.count_trials(run)
    assert len(best.best_trials(run)) == 4


def test_search_tasks_may_finish_in_any_order(tmp_path: Path) -> None:
    """Three tasks run at once. A repeated configuration waits for the task that runs it."""
    overrides = ["hydra/sweeper=optuna", "hydra.sweeper.trials=9", "epochs=1,2", "seed=0,1"]
    plan = make_plan(overrides, multirun=True)
    with open_search(plan, sweep_in(tmp_path / "s", plan)) as run:
        tasks = run.tasks()
        waiting = list(islice(tasks, 3))
        while waiting:
            run.report(work(waiting.pop(), score=lambda p: p.config.epochs + p.config.seed))
            waiting += islice(tasks, 1)
    assert {t.value for t in run.study.trials} == {1.5, 2.5}
    assert len(run.study.trials) == 9
    assert len(run.sweep.points) == 4


def test_failed_trial_is_reported_and_not_repeated(plan: Plan, tmp_path: Path) -> None:
    def diverges(point: Point) -> float:
        return -2.0 if float(point.config.optimizer.lr) > 0.1 else score(point)

    run = search(plan, tmp_path / "s", score=diverges)
    failed = [t for t in run.study.trials if t.state == TrialState.FAIL]
    assert failed
    assert {t.number for t in failed} == {
        t.number for t in run.study.trials if t.params["optimizer.lr"] > 0.1
    }
    assert failed[0].user_attrs["error"] == "diverged: the loss is not finite"
    assert len(run.study.trials) == 10
    # A resumed search does not run failed trials again.
    assert trials_of(search(plan, tmp_path / "s", score=diverges)) == trials_of(run)


def test_trial_with_refused_values_counts_as_failed(tmp_path: Path) -> None:
    overrides = [
        "hydra.sweeper.trials=8",
        "optimizer.lr=interval(0.1,1)",
        "regularizer.weight_decay=0.5,4",
    ]
    plan = make_plan(["hydra/sweeper=optuna", *overrides], multirun=True)
    run = search(plan, tmp_path / "s")
    refused = [t for t in run.study.trials if t.state == TrialState.FAIL]
    assert refused
    for trial in run.study.trials:
        product = trial.params["optimizer.lr"] * float(trial.params["regularizer.weight_decay"])
        assert (trial in refused) == (product >= 1)
    assert "must be below 1" in refused[0].user_attrs["error"]
    told_of = [ended for ended in run.finished if ended.status == "refused"]
    assert len(told_of) == len(refused)
    assert told_of[0].error in refused[0].user_attrs["error"]
    assert len(run.sweep.points) == 8 - len(refused)
    assert trials_of(search(plan, tmp_path / "s")) == trials_of(run)


def test_value_of_trial_is_mean_over_seeds_and_no_seed_runs_after_a_failure(tmp_path: Path) -> None:
    overrides = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.trials=6",
        "epochs=interval(1,9)",
        "seed=range(3)",
    ]
    plan = make_plan(overrides, multirun=True)

    def by_seed(point: Point) -> float:
        return -2.0 if point.config.epochs > 5 else point.config.epochs + point.config.seed

    run = search(plan, tmp_path / "s", score=by_seed)
    for trial in run.study.trials:
        epochs = trial.params["epochs"]
        assert trial.value == (None if epochs > 5 else epochs + 1)
        ran = [p for p in run.sweep.points if p.config.epochs == epochs]
        assert len(ran) == (1 if epochs > 5 else 3)  # a skipped seed is no point of the sweep
    assert all((tmp_path / "s" / point.id).exists() for point in run.sweep.points)


def test_search_keeps_points_added_by_another_process(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    read_before = sweep_in(folder, plan)  # as read by a process that then waits for the lock
    run = search(plan, folder, steps=3)
    with another_process(), open_search(plan, read_before) as later:
        assert [p.id for p in later.sweep.points] == [p.id for p in run.sweep.points]
        for task in later.tasks():
            later.report(work(task))
    assert len(manifest.read_sweep(folder).points) == 10


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_search_with_pruner_runs_fewer_epochs_and_does_not_prune_best_trial(
    plan: Plan, tmp_path: Path, pruner: str
) -> None:
    plan = with_settings(plan, pruner=pruner, warmup_epochs=2, trials=16, sampler="random")
    run = search(plan, tmp_path / pruner, epochs=9)
    trials = run.study.trials
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    assert len(pruned) >= 3
    assert all(2 <= max(t.intermediate_values) < 9 for t in pruned)
    assert all(set(t.intermediate_values) == set(range(1, (t.last_step or 0) + 1)) for t in trials)
    assert sum(len(t.intermediate_values) for t in trials) < 0.85 * 9 * 16
    top = max(trials, key=lambda t: max(t.intermediate_values.values()))
    assert top.state == TrialState.COMPLETE
    assert f"hydra.sweeper.pruner={pruner}" in pruned[0].user_attrs["error"]


def test_pruner_works_in_another_process(plan: Plan, tmp_path: Path) -> None:
    plan = with_settings(plan, pruner="median", warmup_epochs=1, sampler="random", trials=12)
    statuses = set()
    with another_process(), open_search(plan, sweep_in(tmp_path / "s", plan)) as run:
        for task in run.tasks():
            sent = pickle.dumps(task)
            kept = study._open_journal
            study._open_journal = study.cache(kept.__wrapped__)  # type: ignore[attr-defined]
            try:
                outcome = work(pickle.loads(sent), epochs=3)
            finally:
                study._open_journal = kept
            outcome = pickle.loads(pickle.dumps(outcome))  # the copy has no open files
            statuses.add(outcome.status)
            run.report(replace(outcome, task=task))
    assert statuses == {"done", "pruned"}
    assert trials_of(run) == trials_of(search(plan, tmp_path / "here", epochs=3))


def test_search_killed_at_pruned_trial_prunes_it_after_same_epoch(
    plan: Plan, tmp_path: Path
) -> None:
    plan = with_settings(plan, pruner="median", warmup_epochs=1, sampler="random", trials=12)
    whole = search(plan, tmp_path / "whole", epochs=3).study.trials
    (pruned, *_) = (t for t in whole if t.state == TrialState.PRUNED)
    search(plan, folder := tmp_path / "killed", pruned.number + 1, epochs=3)
    (folder / pruned.user_attrs["points"][0] / "summary.json").unlink()
    resumed = search(plan, folder, epochs=3).study.trials
    assert resumed[pruned.number].state == TrialState.PRUNED
    assert resumed[pruned.number].intermediate_values == pruned.intermediate_values


def test_search_ends_after_timeout(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("nnopt.sweeps.search.search.time.monotonic", lambda: float(next(clock)))
    run = search(with_settings(plan, timeout=4.5), tmp_path / "s")
    assert len(run.study.trials) == 4


def test_rerun_command_of_best_trial_gives_its_point(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = [
        "optimizer=nesterov",
        "name=mine",
        "regularizer=dropout",
        "early_stopping.patience=7",
    ]
    plan = make_plan([*WORDS, *extra, "hydra.sweeper.trials=5"], multirun=True)
    run = search(plan, tmp_path / "s")
    top = max(run.sweep.points, key=score)
    with composing():
        overrides = list(best.overrides_of(top.container))
    assert make_plan(overrides).points[0].id == top.id
    assert not any(word.startswith(("name=", "plots=", "seed=", "data.")) for word in overrides)
    with run.space.composing():
        best.print_best_trials(run)
    out = capsys.readouterr().out
    assert "5 trials: 5 done; the best by best_validation_accuracy:" in out
    assert f"{score(top):.6g}" in out
    assert "'seed=range(5)'" in out
