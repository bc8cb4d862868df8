"""Checks whether a folder is that of a run."""

from __future__ import annotations

from pathlib import Path

from nnopt.errors import ConfigError
from nnopt.io.atomic_files import shown
from nnopt.io.own_files import MODEL, SUMMARY, SWEEP_FILES, WEIGHTS
from nnopt.results.summary import read_summary


def check_run(folder: Path, given: str) -> None:
    """Raise ConfigError unless a folder is that of a run. ``given`` names it in messages."""
    if not folder.is_dir():
        raise ConfigError(f"{given} is not a folder; name the folder of a run")
    names = (MODEL, SUMMARY, *WEIGHTS.values())
    if any((folder / name).exists() for name in names):
        return
    if any((folder / name).exists() for name in SWEEP_FILES - {"plots.log"}):
        runs = sorted(x.name for x in folder.iterdir() if (x / SUMMARY).exists())
        example = f", such as {shown(folder / runs[0])}" if runs else ""
        raise ConfigError(f"{given} is a sweep; name one of its runs{example}")
    raise ConfigError(
        f"{given} is not the folder of a run: it has no {MODEL} and no {SUMMARY}; name the folder "
        "of a run"
    )


def check_done(folder: Path, given: str) -> None:
    """Raise ConfigError if the summary of a run says that the run is not done.

    A folder with a model and without a summary is accepted. Raises DataError for a damaged summary.
    """
    if not (folder / SUMMARY).exists() and (folder / MODEL).exists():
        return
    status = read_summary(folder).values["status"]
    if status != "done":
        raise ConfigError(
            f"{given} is not the folder of a trained run: its status is {status!r}; choose a run "
            "whose status is 'done'"
        )
