"""Old and new names of keys, values and flags.

A configuration or a command line with an old name is refused with the new name. Stored runs and
sweeps with old names are converted when they are read. The ids of points and the studies of
searches use the old names, so that older sweeps can be resumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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

RENAMED_FLAGS: Mapping[str, str] = {"--mixed-data": "--allow-mixed-data"}
"""Old flag of a command line -> new flag."""

FIRST_KEYS: Mapping[str, str] = {new: old for old, new in RENAMED_KEYS.items()}
"""New dotted key -> old dotted key."""

_FIRST_VALUES = {
    RENAMED_KEYS[key]: {new: old for old, new in values.items()}
    for key, values in RENAMED_VALUES.items()
}


def renamed_key(key: str) -> str | None:
    """Return the error message for an old key, or None for any other key."""
    if key not in RENAMED_KEYS:
        return None
    values = RENAMED_VALUES.get(key, {})
    hint = ", ".join(f"{_text(new)} for {old}" for old, new in values.items())
    return f"{key} is now {RENAMED_KEYS[key]}{hint and f': {hint}'}"


def with_new_keys(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the new names of its keys and values."""
    return _converted(container, RENAMED_KEYS, RENAMED_VALUES)


def with_first_keys(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the old names of its keys and values."""
    return _converted(container, FIRST_KEYS, _FIRST_VALUES)


def _converted(
    container: Mapping[str, Any],
    keys: Mapping[str, str],
    values: Mapping[str, Mapping[Any, Any]],
    prefix: str = "",
) -> dict[str, Any]:
    converted = {}
    for name, value in container.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            value = _converted(value, keys, values, f"{key}.")
        elif key in values and isinstance(value, str | bool):
            value = values[key].get(value, value)
        converted[keys[key].rpartition(".")[2] if key in keys else name] = value
    return converted


def new_override(override: str) -> str:
    """Return an override, such as ``accumulation=2``, with the new names of its keys and values.

    Names are also replaced in a value that is a map, and in interpolations.
    """
    return _converted_override(override, RENAMED_KEYS, RENAMED_VALUES)


def first_override(override: str) -> str:
    """Return an override, such as ``accumulation_steps=2``, with the old names."""
    return _converted_override(override, FIRST_KEYS, _FIRST_VALUES)


def _converted_override(
    override: str, keys: Mapping[str, str], values: Mapping[str, Mapping[Any, Any]]
) -> str:
    key, equals, value = override.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    key = key[len(sign) :]
    for before, after in values.get(key, {}).items():
        value = re.sub(rf"\b{_text(before)}\b", _text(after), value, flags=re.IGNORECASE)
    if "{" in value:  # an interpolation or a map
        for before, after in keys.items():
            value = re.sub(_reference(before), rf"\g<1>{after}\g<2>", value)
            if before.startswith(f"{key}."):
                value = re.sub(_entry(before), after.rpartition(".")[2], value)
    return f"{sign}{keys.get(key, key)}{equals}{value}"


def _reference(key: str) -> str:
    """Return the pattern of an interpolation, ``${key}``, whose braces may be escaped."""
    return rf"(\$\\?{{\s*){re.escape(key)}(\s*\\?}})"


def _entry(key: str) -> str:
    """Return the pattern of the name of a key in a map, such as ``{adam_ratio: 1}``."""
    return rf"(?<![\w.]){key.rpartition('.')[2]}(?=\s*:)"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
