"""Which launcher goes with ``hydra/launcher=...``."""

from __future__ import annotations

from nnopt.schema import LauncherConfig
from nnopt.sweep.task import Launcher, one_after_another


def make_launcher(config: LauncherConfig) -> Launcher:
    """Who works on the points. No point starts yet."""
    return one_after_another
