"""The callback that reports each epoch of a trial to Optuna's pruner."""

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
class PrunerCallback:
    """Callback that reports each epoch, and raises PrunedError if the pruner stops the trial.

    The callback can be pickled: the receiving process opens the journal again by its path.
    """

    journal: Path
    trial: int  # counted from 0
    settings: OptunaConfig
    epochs: int  # number of epochs of a training that is not pruned

    def __call__(self, row: EpochRow, is_best: bool) -> None:
        """Report an epoch. Raise PrunedError if the pruner stops the trial."""
        value = getattr(row, COLUMNS[self.settings.metric])
        if value is None or row.epoch < self._reported:
            return  # the epoch was not validated, or an earlier process reported a later one
        if row.epoch == self._reported:  # an earlier process has reported this epoch
            self._forget_rung(value)
        else:
            self._trial.report(value, row.epoch)
        if self._trial.should_prune():
            raise PrunedError(
                f"stopped after epoch {row.epoch} by hydra.sweeper.pruner="
                f"{self.settings.pruner}: {COLUMNS[self.settings.metric]} {value:.4g}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the open journal, which cannot be pickled."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _trial(self) -> Any:
        from nnopt.sweeps.search.study import load_trial, open_study  # imports Optuna

        study = open_study(self.journal, self.settings, self.epochs)
        return load_trial(study, self.journal, self.trial)

    @cached_property
    def _reported(self) -> int:
        """The last epoch of the trial that an earlier, killed process reported, or 0."""
        return self._frozen_trial.last_step or 0

    def _forget_rung(self, value: float) -> None:
        """Let Hyperband judge ``value`` again: delete it from the judged values, in memory only."""
        attributes = self._frozen_trial.system_attrs
        rungs = [key for key in attributes if key.startswith("completed_rung_")]
        if rungs and attributes[rungs[-1]] == value:
            del attributes[rungs[-1]]

    @property
    def _frozen_trial(self) -> Any:
        return self._trial.study.get_trials(deepcopy=False)[self.trial]
