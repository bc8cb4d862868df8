"""Fixtures of the tests of tasks and launchers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnopt.config.compose import Point, point_id
from nnopt.sweeps.task import Task

MakeTask = Callable[..., Task]


@pytest.fixture
def make_task(
    tmp_path: Path, make_config: Callable[..., Any], container_of: Callable[..., dict[str, Any]]
) -> MakeTask:
    """Return a function that makes short tasks: ``make_task(3, epochs=5)`` has seed 3."""

    def make(seed: int, **changes: Any) -> Task:
        quick = {"epochs": 1, "dataset.samples_per_class": 20, "plots": False, "seed": seed}
        config = make_config(**quick | changes)
        point = Point(point_id(config), config, container_of(config), (f"seed={seed}",))
        return Task(point, tmp_path / point.id)

    return make
