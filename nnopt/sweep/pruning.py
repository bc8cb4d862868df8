"""Stopping a run that promises little: what it reports to its search after each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnopt.errors import PrunedError
from nnopt.results.history import EpochRow
from nnopt.schema import OptunaConfig
from nnopt.sweep.space import COLUMNS


@dataclass(frozen=True)
class Pruning:
    """A function to be called after each epoch of a trial: raises PrunedError if the search wants
    no more of it. It can be sent to another process, where it opens the journal by its path.

    trial: its number. epochs: as for ``study.new_pruner``.
    """

    journal: Path
    trial: int
    settings: OptunaConfig
    epochs: int

    def __call__(self, row: EpochRow, is_best: bool) -> None:
        value = getattr(row, COLUMNS[self.settings.metric])
        if value is None:  # an epoch without a look at the validation data
            return
        trial = self._trial()
        reported = trial.study.trials[trial.number].last_step or 0
        if row.epoch <= reported:
            return  # the run was killed there, and goes through it once more
        trial.report(value, row.epoch)
        if trial.should_prune():
            raise PrunedError(
                f"stopped after epoch {row.epoch} by hydra.sweeper.pruner="
                f"{self.settings.pruner}: {COLUMNS[self.settings.metric]} {value:.4g}"
            )

    def _trial(self) -> Any:
        from nnopt.sweep.study import open_study, trial_of  # imports Optuna

        return trial_of(
            open_study(self.journal, self.settings, self.epochs), self.journal, self.trial
        )
