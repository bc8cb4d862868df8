"""The baseline of each setting of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from nnopt.analysis.same_data import same_test_set
from nnopt.analysis.settings import Condition, Setting
from nnopt.errors import ConfigError
from nnopt.results.collect import setting_text


def baselines_of(
    settings: Sequence[Setting], conditions: Sequence[Condition], keys: Sequence[str]
) -> list[int | None]:
    """Return the index of the baseline for each setting.

    If one setting meets the conditions, it is the baseline of all settings on its test set. If
    several do, the baseline of a setting also has the same values of all keys outside of the
    conditions. If a condition is about the dataset, the test sets may differ.
    """
    if not conditions:
        return [None] * len(settings)
    candidates = _candidates(settings, conditions, keys)
    across_data = any(condition.key.partition(".")[0] == "dataset" for condition in conditions)
    other_keys = [key for key in keys if key not in {condition.key for condition in conditions}]
    compared_keys = other_keys if len(candidates) > 1 else []

    def baseline_of(i: int) -> int | None:
        if i in candidates:
            return i
        matches = [
            j
            for j in candidates
            if (across_data or same_test_set(settings[i], settings[j]))
            and _are_equal(settings[j], settings[i], compared_keys)
        ]
        return matches[0] if len(matches) == 1 else None

    baselines = [baseline_of(i) for i in range(len(settings))]
    if len(candidates) > 1 and all(j in (None, i) for i, j in enumerate(baselines)):
        named = ", ".join(map(str, conditions))
        raise ConfigError(
            f"--baseline {named} is ambiguous: it matches {len(candidates)} settings, and no "
            f"other setting agrees in {', '.join(other_keys)} with exactly one of them; "
            "add one of these keys to --baseline"
        )
    return baselines


def _candidates(
    settings: Sequence[Setting], conditions: Sequence[Condition], keys: Sequence[str]
) -> list[int]:
    """Return the indices of the settings that meet the conditions; raise ConfigError if none do."""
    for condition in conditions:
        if condition.key not in keys:
            raise ConfigError(
                f"--baseline {condition}: {condition.key} is no column of this table; "
                f"keys that vary: {', '.join(keys) or 'none'}"
            )
    indices = [i for i, x in enumerate(settings) if all(c.holds(x.values) for c in conditions)]
    if not indices:
        key = conditions[0].key
        values = dict.fromkeys(setting_text(x.values[key]) for x in settings if key in x.values)
        named = ", ".join(map(str, conditions))
        raise ConfigError(f"no setting has {named}; values of {key}: {', '.join(values)}")
    return indices


def _are_equal(one: Setting, other: Setting, keys: Sequence[str]) -> bool:
    """Return whether two settings are equal in every key that both have."""
    shared = one.values.keys() & other.values.keys() & set(keys)
    return all(one.values[key] == other.values[key] for key in shared)
