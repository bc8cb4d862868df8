"""``conf/hydra/launcher/``: who works on the points of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SequentialConfig:
    """One point after another, in the process of the sweep itself."""

    name: Literal["sequential"]


LauncherConfig = SequentialConfig

LAUNCHERS: Mapping[str, type] = {"sequential": SequentialConfig}
"""Value of ``name`` -> the dataclass of its keys."""
