"""Stopping a run that promises little: what it reports to its search after each epoch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from nnopt.config.search_space import COLUMNS
from nnopt.errors import PrunedError
from nnopt.results.metrics_file import EpochRow
from nnopt.schema import OptunaConfig


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
        if row.epoch <= self._reported:
            return  # the run was killed there, and goes through it once more
        self._trial.report(value, row.epoch)
        if self._trial.should_prune():
            raise PrunedError(
                f"stopped after epoch {row.epoch} by hydra.sweeper.pruner="
                f"{self.settings.pruner}: {COLUMNS[self.settings.metric]} {value:.4g}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: not what this one has opened."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _trial(self) -> Any:
        from nnopt.sweeps.search.study import open_study, trial_of  # imports Optuna

        study = open_study(self.journal, self.settings, self.epochs)
        return trial_of(study, self.journal, self.trial)

    @cached_property
    def _reported(self) -> int:
        """The last epoch that the trial had reported before this run of it."""
        trials = self._trial.study.get_trials(deepcopy=False)
        return trials[self.trial].last_step or 0
