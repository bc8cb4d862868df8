"""Which points a sweep has: how the values of its keys are combined."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from nnopt.config.grammar import check_count, shown
from nnopt.config.hydra import check_hydra_keys, group_problems, parse_words
from nnopt.errors import ConfigError
from nnopt.schema import GridConfig

log = logging.getLogger("nnopt")

MANY = 2_000
"""A sweep of more points takes seconds to check, which a note explains."""

Axes = dict[str, list[str]]
"""Key -> the words that set it to each of its values."""


def expand(
    settings: GridConfig, parsed: Sequence[Override]
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The overrides of each point, and the keys that vary, in their order.

    parsed: the command line's overrides; they win over ``params``. Within each of ``grids``, whose
    keys win over both, ``mode`` says how the values are combined. Seeds are crossed with everything
    in every mode. Raises ConfigError.
    """
    params = parse_params(settings.params, "hydra.sweeper.params")
    if not isinstance(settings.grids, tuple):
        raise ConfigError(f"hydra.sweeper.grids = {settings.grids!r}: needs a list of maps")
    grids = [
        parse_params(g, f"hydra.sweeper.grids[{i}]") for i, g in enumerate(settings.grids)
    ] or [[]]
    if problems := group_problems([*params, *itertools.chain(*grids)]):
        raise ConfigError(problems)
    typed = {override.key_or_group for override in parsed}
    for key in dict.fromkeys(o.key_or_group for grid in grids for o in grid):
        if key in typed:
            log.warning("%s is set again by hydra.sweeper.grids, which counts", key)
    points: list[tuple[str, ...]] = []
    varied: dict[str, None] = {}
    count = 0
    for grid in grids:
        overrides = {o.key_or_group: o for o in (*params, *parsed, *grid)}
        axes = {key: words_of(override) for key, override in overrides.items()}
        swept = [key for key, override in overrides.items() if override.is_sweep_override()]
        varied |= dict.fromkeys(swept)
        count += _count(settings.mode, axes, swept)
        check_count(count, "the sweep", "points")
        points += _combine(settings.mode, axes, swept)
    if count > MANY:
        log.info("checking %s points before the first one starts", f"{count:,}")
    if settings.grids:  # a key that one grid sets to one value and another grid to another varies
        varied |= _differing(points, [o.key_or_group for grid in grids for o in grid])
    if not points:
        raise ConfigError("the sweep has 0 points; give each swept key at least one value")
    return points, tuple(varied)


def parse_params(params: Any, where: str) -> list[Override]:
    """The overrides that a map from keys to values stands for."""
    if params is None:
        return []
    if not isinstance(params, Mapping):
        raise ConfigError(f"{where} = {params!r}: needs a map from keys to their values")
    parsed: list[Override] = []
    problems: list[str] = []
    for key, value in params.items():
        name = f"{where}.{key} = {shown(value)}"
        if isinstance(value, Mapping):
            inner = next(iter(value), "KEY")
            problems.append(
                f"{name}: needs values, not a map; write each key in full, such as {key}.{inner}"
            )
            continue
        word = f"{key}={_text(value)}"
        try:
            overrides = parse_words([word])
            check_hydra_keys(overrides)
            parsed += overrides
        except ConfigError as error:
            problems += [f"{name}: {_without_word(problem, word)}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return parsed


def _without_word(problem: str, word: str) -> str:
    """Return a problem of a word without the word, which the message has named already."""
    for named in (repr(word), shown(word)):
        problem = problem.removeprefix(f"{named}: ").replace(f"read {named}: ", "read it: ", 1)
    return problem


def _text(value: Any) -> str:
    """A value of YAML as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_text(item)}' for key, item in value.items())}}}"
    return str(value)


def words_of(override: Override) -> list[str]:
    """The words that set the key to each of its values. Raises ConfigError if there are none, or
    if they cannot be told one by one."""
    if override.is_delete():
        return [override.input_line or ""]
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line!r}: a grid needs values one by one, such as {key}=1,2,3 or "
            f"'{key}=range(3)'"
        )
    words = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not words:
        raise ConfigError(f"{override.input_line!r} has no value; the sweep has 0 points")
    return words


def _count(mode: str, axes: Axes, keys: Sequence[str]) -> int:
    """Return the number of points that ``_combine`` makes, without making them."""
    if mode == "grid":
        return math.prod(map(len, axes.values()))
    lengths = [len(axes[key]) for key in keys if key != "seed"]
    rows = max(lengths, default=1) if mode == "zip" else 1 + sum(n - 1 for n in lengths)
    return rows * len(axes.get("seed", [""]))


def _combine(mode: str, axes: Axes, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every point: a word for each key, in the keys' order. Raises ConfigError."""
    if mode == "grid":
        yield from itertools.product(*axes.values())
        return
    swept = {key: axes[key] for key in keys if key != "seed"}
    rows = _zipped(swept) if mode == "zip" else _one_at_a_time(swept)
    for row in rows:
        point = {key: row.get(key, words[0]) for key, words in axes.items()}
        for seed in axes.get("seed", [""]):
            yield tuple((point | ({"seed": seed} if seed else {})).values())


def _zipped(swept: Axes) -> list[dict[str, str]]:
    lengths = {key: len(words) for key, words in swept.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise ConfigError(
            f"hydra.sweeper.mode = 'zip' takes the first value of every key, then the second, and "
            f"needs as many of each, but {told}"
        )
    return [dict(zip(swept, row, strict=True)) for row in zip(*swept.values(), strict=True)] or [{}]


def _one_at_a_time(swept: Axes) -> list[dict[str, str]]:
    base = {key: words[0] for key, words in swept.items()}
    return [base, *({**base, key: word} for key, words in swept.items() for word in words[1:])]


def _differing(points: Sequence[tuple[str, ...]], keys: Sequence[str]) -> dict[str, None]:
    """Those of the keys that are not set to the same in all points."""
    found: dict[str, None] = {}
    for key in dict.fromkeys(keys):
        texts = {next((w for w in p if w.lstrip("+").startswith(f"{key}=")), "") for p in points}
        if len(texts) > 1:
            found[key] = None
    return found
