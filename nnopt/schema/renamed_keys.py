"""Old and new names of keys, values and flags.

nnopt refuses an old name in a configuration or on a command line, and reports the new name. Stored
runs and sweeps with old names are converted when they are read. The ids of points and the studies
of searches use the old names, so that older sweeps can be resumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnopt.schema.values import format_value

RENAMED_KEYS: Mapping[str, str] = {
    "steps": "max_steps",
    "accumulation": "accumulation_steps",
    "last_batch": "drop_last",
    "view": "progress",
    "dataset.points": "dataset.samples_per_class",
    "dataset.drop": "dataset.drop_columns",
    "backend.conv": "backend.conv_algorithm",
    "regularizer.decay_all": "regularizer.decay_norm_and_bias",
    "regularizer.ema": "regularizer.ema_decay",
    "regularizer.swa": "regularizer.swa_start",
    "regularizer.test_flip": "regularizer.test_time_flip",
    "regularizer.augmentation.policy_operations": "regularizer.augmentation.num_ops",
    "regularizer.augmentation.policy_magnitude": "regularizer.augmentation.magnitude",
    "optimizer.adam_ratio": "optimizer.adam_lr_ratio",
    "schedule.warmup": "schedule.warmup_epochs",
    "schedule.every": "schedule.step_size",
    "schedule.factor": "schedule.gamma",
    "schedule.rate": "schedule.decay_rate",
    "schedule.final": "schedule.final_factor",
    "schedule.rise": "schedule.pct_start",
    "schedule.start": "schedule.initial_factor",
    "schedule.min_improvement": "schedule.min_delta",
    "early_stopping.check_every": "early_stopping.validate_every",
    "early_stopping.min_improvement": "early_stopping.min_delta",
    "lr_find.lowest": "lr_find.min_lr",
    "lr_find.highest": "lr_find.max_lr",
}
"""Old dotted key -> new dotted key. Only the last part of a key differs."""

RENAMED_VALUES: Mapping[str, Mapping[str, Any]] = {
    "last_batch": {"keep": False, "drop": True},
    "view": {"terminal": "curves"},
}
"""Old dotted key -> old value -> value of the new key. Other values stay the same."""

ADDED_KEYS: Mapping[str, Any] = {
    "max_time": None,
    "checkpoint": {"interval": 30.0, "keep": False},
    "pruning": {"name": "none"},
    "target": {"metric": None, "value": None},
    "evaluation": {"train": True, "predictions": False, "metrics": []},
    "focal_gamma": 2.0,
    "plugins": [],
}
"""Key that is missing in configurations of earlier versions -> default value of the key."""

ADDED_TO_GROUPS: Mapping[str, Mapping[str, Any]] = {
    "early_stopping": {"min_delta_mode": "absolute"},
    "evaluation": {"metrics": []},
    "initializer": {
        "scale": 1.0,
        "std": 1.0,
        "low": 0.0,
        "high": 1.0,
        "from": None,
        "from_sha256": None,
        "skip": [],
    },
}
"""Group -> the group's keys that earlier versions lack -> their defaults."""

ADDED_TO_CHOICES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "optimizer": {
        "rmsprop": {"momentum": 0.0, "centered": False},
        "adam": {"amsgrad": False},
        "adamw": {"amsgrad": False},
    },
    "schedule": {"plateau": {"min_delta_mode": "absolute"}},
}
"""Group -> name of a choice -> the keys of the choice that earlier versions lack -> defaults."""

RENAMED_FLAGS: Mapping[str, str] = {"--mixed-data": "--allow-mixed-data"}
"""Old flag of a command line -> new flag."""

FIRST_KEYS: Mapping[str, str] = {new: old for old, new in RENAMED_KEYS.items()}
"""New dotted key -> old dotted key."""


def renamed_key(key: str) -> str | None:
    """Return the error message for an old key, or None for any other key."""
    if key not in RENAMED_KEYS:
        return None
    values = RENAMED_VALUES.get(key, {})
    hint = ", ".join(f"{format_value(new)} for {old}" for old, new in values.items())
    return f"{key} is now {RENAMED_KEYS[key]}{hint and f': {hint}'}"


@dataclass(frozen=True)
class _Renaming:
    """A conversion of the names of keys, and of the values of these keys."""

    keys: Mapping[str, str]
    values: Mapping[str, Mapping[Any, Any]]

    def container(self, container: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Convert the names in a configuration. Its dotted keys begin with ``prefix``."""
        converted = {}
        for name, value in container.items():
            key = f"{prefix}{name}"
            if isinstance(value, Mapping):
                value = self.container(value, f"{key}.")
            elif key in self.values and isinstance(value, str | bool):
                value = self.values[key].get(value, value)
            converted[_leaf(self.keys[key]) if key in self.keys else name] = value
        return converted

    def override(self, override: str) -> str:
        """Convert the names in an override, also within a value that is a map or a reference."""
        key, equals, value = override.partition("=")
        sign = key[: len(key) - len(key.lstrip("+~"))]
        key = key[len(sign) :]
        for before, after in self.values.get(key, {}).items():
            word = rf"\b{format_value(before)}\b"
            value = re.sub(word, format_value(after), value, flags=re.IGNORECASE)
        if "{" in value:  # an interpolation, whose braces may be escaped, or a map
            for before, after in self.keys.items():
                reference = rf"(\$\\?{{\s*){re.escape(before)}(\s*\\?}})"
                value = re.sub(reference, rf"\g<1>{after}\g<2>", value)
                if before.startswith(f"{key}."):
                    value = re.sub(rf"(?<![\w.]){_leaf(before)}(?=\s*:)", _leaf(after), value)
        return f"{sign}{self.keys.get(key, key)}{equals}{value}"


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


_TO_NEW = _Renaming(RENAMED_KEYS, RENAMED_VALUES)
_TO_FIRST = _Renaming(
    FIRST_KEYS,
    {
        RENAMED_KEYS[key]: {new: old for old, new in values.items()}
        for key, values in RENAMED_VALUES.items()
    },
)

with_new_keys, with_first_keys = _TO_NEW.container, _TO_FIRST.container
"""Functions that convert a configuration to the new names of its keys, or to the old names."""


def with_added_keys(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the defaults of the keys that it lacks."""
    below = {
        group: _with_missing(section, _added_keys(group, section))
        for group, section in container.items()
        if isinstance(section, Mapping)
    }
    return _with_missing(container, ADDED_KEYS) | below


def without_added_keys(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that ``with_added_keys`` would add again."""
    kept = _without(container, ADDED_KEYS)
    below = {
        group: _without(section, _added_keys(group, section))
        for group, section in kept.items()
        if isinstance(section, Mapping)
    }
    return kept | below


def changed_rule(container: Mapping[str, Any]) -> str | None:
    """Return the error message if an earlier version gave a key of a configuration another effect.

    The keys of the configuration have their current names.
    """
    section = container.get("early_stopping")
    if not isinstance(section, Mapping) or not _depends_on_rule("early_stopping", section):
        return None
    if "min_delta_mode" in section:
        return None
    return (
        f"early_stopping.min_delta = {section['min_delta']} is from an earlier version, in which "
        "it also determined the best weights; now it only determines when the patience starts again"
    )


def _depends_on_rule(group: str, section: Mapping[str, Any]) -> bool:
    """Return whether the results depend on the rule for ``min_delta``, which has changed.

    The key ``min_delta_mode`` shows that the new rule applies, so such a section keeps it.
    """
    return group == "early_stopping" and bool(section.get("min_delta"))


def _added_keys(group: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that earlier versions lack in a group, and their defaults."""
    if _depends_on_rule(group, section):
        return {}
    name = section.get("name")
    of_choice = ADDED_TO_CHOICES.get(group, {}).get(name) if isinstance(name, str) else None
    return {**ADDED_TO_GROUPS.get(group, {}), **(of_choice or {})}


def _with_missing(container: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container with those keys of ``defaults`` that it lacks, after its own keys."""
    return {**container, **{k: x for k, x in defaults.items() if k not in container}}


def _without(container: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container without the keys whose values equal those in ``defaults``."""
    return {k: x for k, x in container.items() if k not in defaults or x != defaults[k]}


new_override, first_override = _TO_NEW.override, _TO_FIRST.override
"""Functions that convert ``accumulation=2`` to ``accumulation_steps=2``, or the reverse."""
