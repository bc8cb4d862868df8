"""Errors about old names of keys state the new names. Stored overrides are converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnopt.config.compose import make_plan
from nnopt.errors import ConfigError
from nnopt.schema import (
    FIRST_KEYS,
    RENAMED_KEYS,
    changed_rule,
    first_override,
    new_override,
    with_added_keys,
    without_added_keys,
)
from nnopt.schema.renamed_keys import ADDED_TO_CHOICES, ADDED_TO_GROUPS

OVERRIDES = [
    ("accumulation=2", "accumulation_steps=2"),
    ("last_batch=keep,drop", "drop_last=false,true"),
    ("view=terminal", "progress=curves"),
    ("epochs=${steps}", "epochs=${max_steps}"),
    (r"epochs=$\{steps\}", r"epochs=$\{max_steps\}"),
    (
        "early_stopping={check_every: 1, min_improvement: 0.1}",
        "early_stopping={validate_every: 1, min_delta: 0.1}",
    ),
    ("++schedule.every=range(1,5)", "++schedule.step_size=range(1,5)"),
    ("optimizer.lr=interval(0.1,1)", "optimizer.lr=interval(0.1,1)"),
]
"""Pairs of an override with old names and the same override with new names."""


@pytest.mark.parametrize(("old", "new"), OVERRIDES)
def test_override_is_converted_in_both_directions(old: str, new: str) -> None:
    assert new_override(old) == new
    assert first_override(new) == old
    assert new_override(new) == new


def test_renamed_keys_are_unambiguous() -> None:
    assert len(FIRST_KEYS) == len(RENAMED_KEYS)
    assert FIRST_KEYS.keys().isdisjoint(RENAMED_KEYS)


STORED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"optimizer": {"name": "adam", "lr": 1}}, {"amsgrad": False}),
    ({"optimizer": {"name": "rmsprop", "lr": 1}}, {"momentum": 0.0, "centered": False}),
    ({"optimizer": {"name": "sgd", "lr": 1}}, {}),
    ({"optimizer": {"name": ["adam"]}}, {}),
    ({"schedule": {"name": "plateau", "min_delta": 0}}, {"min_delta_mode": "absolute"}),
    (
        {"initializer": {"hidden": "zeros"}},
        {"scale": 1.0, "std": 1.0, "low": 0.0, "high": 1.0}
        | {"from": None, "from_sha256": None, "skip": []},
    ),
    ({"early_stopping": {"min_delta": 0}}, {"min_delta_mode": "absolute"}),
    ({"early_stopping": {"min_delta": 0.1}}, {}),
]
"""A stored configuration of an earlier version -> the keys of its group that are added."""


@pytest.mark.parametrize(("stored", "added"), STORED)
def test_added_keys_of_groups_are_added_and_removed(
    stored: dict[str, Any], added: dict[str, Any]
) -> None:
    ((group, section),) = stored.items()
    converted = with_added_keys(stored)
    assert converted[group] == section | added
    assert without_added_keys(converted) == stored
    assert with_added_keys(converted) == converted


@pytest.mark.parametrize(
    ("section", "is_earlier"),
    [
        ({"min_delta": 0.1}, True),
        ({"min_delta": 0.0}, False),
        ({"min_delta": 0.1, "min_delta_mode": "absolute"}, False),
    ],
)
def test_changed_rule_reports_min_delta_of_earlier_versions(
    section: dict[str, Any], is_earlier: bool
) -> None:
    message = changed_rule({"early_stopping": section})
    assert (message is not None) is is_earlier
    assert message is None or message.startswith("early_stopping.min_delta = 0.1 is from")


def test_added_key_with_another_value_is_kept() -> None:
    stored = {"optimizer": {"name": "adam", "amsgrad": True}}
    assert with_added_keys(stored)["optimizer"] == stored["optimizer"]
    assert without_added_keys(stored) == stored


def test_defaults_of_added_keys_equal_those_in_the_files() -> None:
    """A plain run of this version therefore has the id of an earlier version."""
    for group, choices in ADDED_TO_CHOICES.items():
        for name, defaults in choices.items():
            section = make_plan([f"{group}={name}"]).points[0].container[group]
            assert {key: section[key] for key in defaults} == defaults
    container = make_plan([]).points[0].container
    for group, defaults in ADDED_TO_GROUPS.items():
        assert {key: container[group][key] for key in defaults} == defaults


REFUSED = [
    ("accumulation=2", "accumulation is now accumulation_steps"),
    ("last_batch=keep", "last_batch is now drop_last: false for keep, true for drop"),
    ("epochs=${steps}", "epochs: steps is now max_steps"),
    ("batch_size=${schedule.every}", "batch_size: schedule.every is now schedule.step_size"),
    (
        "optimizer={name: muon, adam_ratio: 1}",
        "set a key with optimizer.KEY=VALUE; optimizer.adam_ratio is now optimizer.adam_lr_ratio",
    ),
]


@pytest.mark.parametrize(("override", "message"), REFUSED)
def test_error_about_override_with_old_key_states_new_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan([override])
    assert caught.value.exit_code == 2
    assert message in str(caught.value)


def test_error_about_file_with_old_key_in_interpolation_states_new_key(workplace: Path) -> None:
    folder = workplace / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nepochs: ${steps}\n")
    with pytest.raises(ConfigError, match=r"epochs: steps is now max_steps .*mine.yaml, line 2"):
        make_plan(["experiment=mine"])
