"""What can only be refused once the size of the data is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnopt import schema
from nnopt.errors import ConfigError
from nnopt.prepare import prepare
from nnopt.schema import Config

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": 10_000}, ["steps = 10000", "epochs = 60"]),
        (
            {"steps": 5, "schedule": schema.ConstantConfig("constant", 2.0)},
            ["warmup = 2", "5 steps"],
        ),
        ({"batch_size": 5000, "last_batch": "drop"}, ["batch_size = 5000", "'drop'"]),
        ({"batch_size": 239, "regularizer.norm": "batch"}, ["batch of 1", "batch_norm1"]),
        ({"batch_size": 1, "regularizer.norm": "batch"}, ["batch of 1", "batch_size=2"]),
    ],
)
def test_sizes_that_do_not_fit_name_both_numbers(
    make_config: MakeConfig, changes: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(make_config(**changes))
    (problem,) = caught.value.problems
    assert all(words in problem for words in expected), problem
