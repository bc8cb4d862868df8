"""The study, the sampler and the pruner of Optuna.

The study is stored in a journal, which remains readable after a process is killed. In the journal,
renamed keys keep their first names, so that older searches continue with the same values. Only code
that runs a search imports this module, because it imports Optuna.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial, TrialState

from nnopt.config.search_parameters import Choice, Drawn, Parameter
from nnopt.errors import ResumeError
from nnopt.io.atomic_files import output_error, shown
from nnopt.io.locks import locked, take
from nnopt.io.own_files import open_to_append
from nnopt.io.received_files import TABLE_BYTES
from nnopt.io.safe_text import visible
from nnopt.plots.sweep.importance import Importance
from nnopt.random import generator
from nnopt.results.metrics import better_direction
from nnopt.schema import RENAMED_KEYS, OptunaConfig
from nnopt.sweeps.search.journal_check import check_last_line, check_study

JOURNAL = "search.journal"
"""Name of the journal in the folder of a search. The journal has a line of JSON for each event."""

MIN_TRIALS = 10
"""Minimum number of finished trials for importances. With fewer, they are close to random."""

MAX_RESAMPLED = 1000  # maximum number of trials for intervals, because a resample copies all trials

STUDY = "search"
"""Name of the study. Hyperband computes the bracket of a trial from this name."""

optuna.logging.disable_default_handler()  # this handler writes to the terminal
logging.getLogger("optuna").propagate = False


class FileLock(JournalFileOpenLock):
    """A lock on the journal. When a process ends, the kernel releases the lock of the process.

    Optuna's own locks are files, which remain for 30 s after a process is killed. If a killed
    process has left an incomplete last line in the journal, ``acquire`` removes the line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait until the lock is free, and acquire it."""
        descriptor = open_to_append(self._path)
        try:
            take(descriptor, wait=True)
            _remove_incomplete_line(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _remove_incomplete_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        end, chunk = size, b""
        while end and b"\n" not in chunk:
            start = max(0, end - 4096)
            chunk, end = os.pread(descriptor, end - start, start), start
        os.ftruncate(descriptor, end + chunk.rfind(b"\n") + 1)


@contextmanager
def lock_search(journal: Path) -> Iterator[None]:
    """Hold the lock of the search. Raises ResumeError if another process holds it."""
    with locked(journal.with_suffix(".lock"), wait=False) as is_held_here:
        if not is_held_here:
            raise ResumeError(f"another process runs the search in {journal.parent}")
        yield


def open_journal(path: Path) -> JournalStorage:
    """Return Optuna's storage for a journal. A missing journal is created."""
    return _open_journal(path, os.getpid())


@cache  # each process then reads each line of the journal only once
def _open_journal(path: Path, process: int) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=FileLock(path)))


class RepeatableSampler(BaseSampler):
    """Optuna's sampler, with a new seed for each trial and for each key that is drawn alone.

    A drawn value depends only on the seed of the search, the number of the trial, the names of the
    keys and the results so far. A resumed search draws the same values as an uninterrupted one.
    """

    def __init__(self, settings: OptunaConfig) -> None:
        self._settings = settings
        self._joint = self._new(0, "")

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the keys for ``sample_relative``. Optuna calls this method once for each trial."""
        self._joint = self._new(trial.number, "")
        return self._joint.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the values of all keys in ``search_space`` together."""
        return self._joint.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw the value of a single key."""
        sampler = self._new(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _new(self, number: int, key: str) -> BaseSampler:
        return new_sampler(self._settings, sampler_seed(self._settings.seed, number, key))


def sampler_seed(seed: int, trial: int, key: str = "") -> int:
    """Return the seed for drawing ``key``, or for drawing keys jointly if ``key`` is empty."""
    return int(generator(seed, "search", trial, zlib.crc32(key.encode())).integers(2**32))


def new_sampler(settings: OptunaConfig, seed: int) -> BaseSampler:
    """Return the sampler of Optuna that the settings select.

    For keys that occur in the same trials, TPE (Bergstra et al. 2011) draws the values jointly
    (Falkner et al. 2018). "Constant liar" treats running trials as bad trials, so that parallel
    workers do not draw similar values. With one worker, this has no effect.
    """
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # Optuna has marked "group" as experimental since 2021
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=settings.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def new_pruner(settings: OptunaConfig, epochs: int) -> BasePruner:
    """Return Optuna's pruner for a training of ``epochs`` epochs. Optuna's steps are epochs."""
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=settings.warmup_epochs)
    if settings.pruner == "hyperband":
        first = min(settings.warmup_epochs, epochs)
        return HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)
    return NopPruner()


def open_study(journal: Path, settings: OptunaConfig, epochs: int) -> Study:
    """Return the study in a journal. A missing journal or study is created.

    Raises ResumeError if nnopt did not write the journal, OutputError if it cannot be written.
    """
    try:
        if journal.exists():
            if journal.stat().st_size > TABLE_BYTES:
                raise ValueError(f"it has more than {TABLE_BYTES:,} bytes")
            check_last_line(journal.read_bytes())
        study = _load_or_create(journal, settings, epochs)
        check_study(study)
    except OSError as error:
        raise output_error("use", journal, error) from error
    except Exception as error:  # Optuna raises many types of errors for wrong JSON
        raise damaged_journal(journal, error) from error
    return study


def damaged_journal(journal: Path, error: Exception) -> ResumeError:
    """Return the error for a journal that is damaged or that nnopt did not write."""
    reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return ResumeError(
        f"{shown(journal)} is not a journal of nnopt, or is damaged ({visible(reason)[:200]}); "
        "begin a new search with nnopt run -m"
    )


def _load_or_create(journal: Path, settings: OptunaConfig, epochs: int) -> Study:
    storage = open_journal(journal)
    parts: dict[str, Any] = {"study_name": STUDY, "storage": storage}
    parts |= {"sampler": RepeatableSampler(settings), "pruner": new_pruner(settings, epochs)}
    names = [study.study_name for study in storage.get_all_studies()]
    if STUDY in names:  # else Optuna would write a failed creation to the journal
        return optuna.load_study(**parts)
    if names or b"\n" in journal.read_bytes():  # it has a complete line
        raise ValueError("it contains no search of nnopt")
    parts["direction"] = "maximize" if better_direction(settings.metric) == "higher" else "minimize"
    return optuna.create_study(**parts)


def load_trial(study: Study, journal: Path, number: int) -> Trial:
    """Return the unfinished trial with this number, even if another process has started it."""
    storage = open_journal(journal)
    identity = storage.get_study_id_from_name(STUDY)
    return Trial(study, storage.get_trial_id_from_study_id_trial_number(identity, number))


def suggest(trial: BaseTrial, parameter: Parameter) -> Drawn:
    """Return the value of a key in a trial. The first call draws the value."""
    key = parameter.with_first_names().key
    if isinstance(parameter, Choice):
        texts = parameter.with_first_names().texts  # strings, because Optuna cannot store lists
        return parameter.texts[texts.index(trial.suggest_categorical(key, texts))]
    low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
    if parameter.is_whole:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def drawn_value(trial: FrozenTrial, parameter: Parameter) -> Drawn | None:
    """Return the value that a trial drew for a key, or None if it did not draw the key."""
    is_drawn = parameter.with_first_names().key in trial.params
    return suggest(trial, parameter) if is_drawn else None


def importances(study: Study, resamples: int = 0) -> list[Importance]:
    """Return the importance of each key by PED-ANOVA (Watanabe et al. 2023), highest first.

    With ``resamples``, each importance has a 90 % interval: the quantiles of its values for this
    number of bootstrap samples of the trials (Efron 1979). There is no interval with more than
    ``MAX_RESAMPLED`` trials. The result is empty if ``why_no_importances`` returns a reason.
    """
    if why_no_importances(study) is not None:
        return []
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    weights = _weights(study)
    if len(done) > MAX_RESAMPLED:
        resamples = 0
    samples: dict[str, list[float]] = {key: [] for key in weights}
    random = generator(0, "importance")
    with _quiet():
        for _ in range(resamples):
            part = optuna.create_study(direction=study.direction)
            part.add_trials([done[i] for i in random.integers(len(done), size=len(done))])
            for key, weight in _weights(part).items():
                samples[key].append(weight)
    found = []
    for key, weight in sorted(weights.items(), key=lambda item: -item[1]):
        low, high = np.quantile(samples[key] or [weight], [0.05, 0.95]).tolist()
        interval = (low, high) if samples[key] else None
        found.append(Importance(RENAMED_KEYS.get(key, key), weight, interval))
    return found


def why_no_importances(study: Study) -> str | None:
    """Return why the importance of keys cannot be computed, or None if it can."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < MIN_TRIALS:
        return f"it needs at least {MIN_TRIALS} finished trials, but there are {len(done)}"
    if len({key for trial in done for key in trial.params}) < 2:
        return "the search has only one key"
    if len({trial.value for trial in done}) == 1:
        return "all trials have the same value"
    return None if _weights(study) else "no key distinguishes the best trials from the others"


def _weights(study: Study) -> dict[str, float]:
    """Return the importances, whose sum is 1; empty if all are 0."""
    from optuna.importance import PedAnovaImportanceEvaluator  # imports scikit-learn, in a second

    with warnings.catch_warnings():  # the evaluator is experimental in Optuna 4
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = PedAnovaImportanceEvaluator()
    weights = evaluator.evaluate(study)
    total = math.fsum(weights.values())
    return {key: weight / total for key, weight in weights.items()} if total > 0 else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Omit messages about new studies from ``search.log``."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
