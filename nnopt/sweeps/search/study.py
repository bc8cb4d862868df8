"""What nnopt asks of Optuna: a study in a file that survives being killed, a sampler whose draws
are a function of the seed and the trial, a pruner. Imported only by searches, as Optuna is.
"""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

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
from nnopt.random import generator
from nnopt.results.metrics import better_direction
from nnopt.schema import OptunaConfig
from nnopt.sweeps.search.journal_check import check_last_line, check_study

JOURNAL = "search.journal"
"""In a sweep's folder: everything Optuna knows, one line of JSON for each event."""

NAME = "search"
"""Of the study in the journal; Hyperband assigns trials to its brackets by it."""

optuna.logging.disable_default_handler()  # which writes to the terminal
logging.getLogger("optuna").propagate = False


class FileLock(JournalFileOpenLock):
    """One writer at a time. The kernel lets go of the lock when its process dies, however it does;
    Optuna's own locks are files, which a killed process leaves behind for 30 s. A line that a
    killed process has not written to its end is cut off, or the next would be added to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        descriptor = open_to_append(self._path)
        try:
            take(descriptor, wait=True)
            _cut_torn_line(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        os.close(self._descriptor)


def _cut_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        end, chunk = size, b""
        while end and b"\n" not in chunk:
            start = max(0, end - 4096)
            chunk, end = os.pread(descriptor, end - start, start), start
        os.ftruncate(descriptor, end + chunk.rfind(b"\n") + 1)


@contextmanager
def alone(journal: Path) -> Iterator[None]:
    """Let one process at a time ask for trials. Raises ResumeError if another process does."""
    with locked(journal.with_suffix(".lock"), wait=False) as is_mine:
        if not is_mine:
            raise ResumeError(f"another process continues the search in {journal.parent}")
        yield


def open_journal(path: Path) -> JournalStorage:
    """The storage at ``path``, made if it is not there. In one process it is always the same one,
    which then reads only what others have added since."""
    return _open_journal(path, os.getpid())


@cache
def _open_journal(path: Path, process: int) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=FileLock(path)))


class RepeatableSampler(BaseSampler):
    """Optuna's sampler, seeded anew for every trial, and for every key that is drawn on its own.

    So a draw depends on the seed, the trial's number and the results so far, and on nothing that is
    lost with the process: a search that was killed and resumed goes on as it would have.
    """

    def __init__(self, settings: OptunaConfig) -> None:
        self._settings = settings
        self._joint: tuple[int, BaseSampler] = (-1, self._new(0, ""))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._joint = (trial.number, self._new(trial.number, ""))
        return self._joint[1].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._joint[1].sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        sampler = self._new(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _new(self, number: int, key: str) -> BaseSampler:
        return new_sampler(self._settings, sampler_seed(self._settings.seed, number, key))


def sampler_seed(seed: int, trial: int, key: str = "") -> int:
    """The seed of Optuna's sampler for a trial's joint draw, or for that of one key."""
    return int(generator(seed, "search", trial, zlib.crc32(key.encode())).integers(2**32))


def new_sampler(settings: OptunaConfig, seed: int) -> BaseSampler:
    """Optuna's own sampler.

    TPE (Bergstra et al. 2011) is the multivariate one (Falkner et al. 2018), in groups of keys that
    occur together. It takes running trials for bad ones, so that workers beside each other do not
    all try the same place ("constant liar"); of one worker there are none.
    """
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # "group" was new in 2021, and is called an experiment still
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=settings.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def new_pruner(settings: OptunaConfig, epochs: int) -> BasePruner:
    """epochs: of a whole training. Steps are epochs, from 1."""
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=settings.warmup_epochs)
    if settings.pruner == "hyperband":
        first = min(settings.warmup_epochs, epochs)
        return HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)
    return NopPruner()


def open_study(journal: Path, settings: OptunaConfig, epochs: int) -> Study:
    """Return the study in the journal, made if it is not there.

    Raises ResumeError for a journal that nnopt did not write, OutputError if it cannot be written.
    """
    try:
        if journal.exists():
            if journal.stat().st_size > TABLE_BYTES:
                raise ValueError(f"it has more than {TABLE_BYTES:,} bytes")
            check_last_line(journal.read_bytes())
        study = _load_or_make(journal, settings, epochs)
        check_study(study)
    except OSError as error:
        raise output_error("use", journal, error) from error
    except Exception as error:  # Optuna replays any JSON, and fails in many ways
        raise damaged_journal(journal, error) from error
    return study


def damaged_journal(journal: Path, error: Exception) -> ResumeError:
    """Return the error for a journal that is no journal of nnopt."""
    said = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return ResumeError(
        f"{shown(journal)} is not a journal of nnopt, or is damaged ({visible(said)[:200]}); begin "
        "a new search with nnopt run -m"
    )


def _load_or_make(journal: Path, settings: OptunaConfig, epochs: int) -> Study:
    storage = open_journal(journal)
    sampler, pruner = RepeatableSampler(settings), new_pruner(settings, epochs)
    names = [study.study_name for study in storage.get_all_studies()]
    if NAME in names:  # each attempt to make one is written to the journal
        return optuna.load_study(study_name=NAME, storage=storage, sampler=sampler, pruner=pruner)
    if names or b"\n" in journal.read_bytes():  # a killed process leaves half a line at most
        raise ValueError("it has not the study of a search of nnopt")
    is_higher_better = better_direction(settings.metric) == "higher"
    return optuna.create_study(
        study_name=NAME,
        storage=storage,
        sampler=sampler,
        pruner=pruner,
        direction="maximize" if is_higher_better else "minimize",
    )


def trial_of(study: Study, journal: Path, number: int) -> Trial:
    """A trial that has begun, perhaps in another process."""
    storage = open_journal(journal)
    identity = storage.get_study_id_from_name(NAME)
    return Trial(study, storage.get_trial_id_from_study_id_trial_number(identity, number))


def suggest(trial: BaseTrial, parameter: Parameter) -> Drawn:
    """Draw a key, or read what was drawn before."""
    key = parameter.key
    if isinstance(parameter, Choice):  # as texts: Optuna stores no lists
        return trial.suggest_categorical(key, parameter.texts)
    low, high, step, log = parameter.low, parameter.high, parameter.step, parameter.log
    if parameter.is_whole:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=log)
    return trial.suggest_float(key, low, high, step=step, log=log)


def importances(study: Study) -> Mapping[str, float]:
    """How much it takes of each key to be among the better trials, in sum 1, by PED-ANOVA
    (Watanabe et al. 2023); empty if there are too few trials to tell."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 20 or len({trial.value for trial in done}) == 1:
        return {}
    return optuna.importance.get_param_importances(study)
