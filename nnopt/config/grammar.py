"""The functions of Hydra's override grammar, with ranges that are counted in decimals.

Hydra counts ``range(0.1,0.5,0.1)`` in binary floating point: one of its values is
0.30000000000000004, and other ranges contain their stop. Here a range has the values that a person
would write, and never contains its stop. ``sort`` and ``shuffle`` reorder these values.

Hydra reads the annotations of these functions as objects, so this module must not import
``annotations`` from ``__future__``.
"""

import builtins
import random
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import ceil, isfinite
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from nnopt.config.hydra_internals import Functions, grammar_functions
from nnopt.errors import ConfigError

MOST_POINTS = 100_000
"""The largest number of values of one range, and of points of one sweep."""


FORMS = {
    "range": "range(STOP), range(START,STOP) or range(START,STOP,STEP)",
    "interval": "interval(START,END)",
    "choice": "choice(VALUE,VALUE)",
    "tag": "tag(log,interval(START,END))",
    "sort": "sort(VALUE,VALUE) with values of one type",
    "glob": "glob(PATTERN)",
    "int": "int(NUMBER)",
    "float": "float(NUMBER)",
    "bool": "bool(true)",
}
"""How the functions are called. ``shuffle`` and ``str`` take any values."""


@dataclass
class NumberSweep(ChoiceSweep):
    """The numbers of a range, in order. A grid takes them all; a search draws from their scale."""


def number_range(start: Any, stop: Any = None, step: Any = 1) -> NumberSweep:
    """Return the numbers from ``start`` to before ``stop``; from 0 if there is no ``stop``.

    Raises ConfigError for an empty step and for a range that is too long.
    """
    if stop is None:
        start, stop = 0, start
    for value in (start, stop, step):
        if not _is_number(value) or not isfinite(value):
            raise ConfigError(f"a range needs finite numbers, got {value!r}")
    if step == 0:
        raise ConfigError("a range needs a step other than 0")
    whole = all(isinstance(value, int) for value in (start, stop, step))
    first, last, by = (Fraction(repr(value)) for value in (start, stop, step))
    count = ceil((last - first) / by)
    check_count(count, "the range", "values")
    exact = [first + by * index for index in builtins.range(count)]
    numbers = [int(value) if whole else float(value) for value in exact]
    return NumberSweep(list=numbers, simple_form=True)  # type: ignore[arg-type]  # a list is invariant


def check_count(count: int, owner: str, noun: str) -> None:
    """Raise ConfigError if there are more points than a sweep may have."""
    if count > MOST_POINTS:
        number = f"{count:,}" if count < 10**12 else "more than 10^12"
        raise ConfigError(
            f"{owner} has {number} {noun}, but a sweep has at most {MOST_POINTS:,} points; take "
            "larger steps, or draw from an interval with hydra/sweeper=optuna"
        )


def shuffle(*args: Any, sweep: Any = None, list: Any = None) -> Any:
    """Return the values in another order, which is the same in every process."""
    return _reordered([*args, *(x for x in (sweep, list) if x is not None)], _permuted)


def sort(*args: Any, sweep: Any = None, list: Any = None, reverse: bool = False) -> Any:
    """Return the values in ascending order, or in descending order."""

    def ordered(values: builtins.list[Any]) -> builtins.list[Any]:
        return sorted(
            values, key=lambda x: x.text if isinstance(x, QuotedString) else x, reverse=reverse
        )

    return _reordered([*args, *(x for x in (sweep, list) if x is not None)], ordered)


def _reordered(
    given: builtins.list[Any], order: Callable[[builtins.list[Any]], builtins.list[Any]]
) -> Any:
    """Return the values of a sweep, of a list, or of several arguments, ordered by ``order``."""
    if not given:
        raise ConfigError("needs values to reorder")
    if len(given) > 1:
        values = builtins.list(_items(given))
        return ChoiceSweep(list=order(values), simple_form=True)
    (value,) = given
    if isinstance(value, ChoiceSweep):
        return replace(value, list=order(builtins.list(_items(value.list))))
    return order(value) if isinstance(value, builtins.list) else value


def _permuted(values: builtins.list[Any]) -> builtins.list[Any]:
    permuted = builtins.list(values)
    random.Random(repr(values)).shuffle(permuted)
    return permuted


def _keeping(cast: Callable[..., Any]) -> Callable[..., Any]:
    """Return a cast that keeps the tags and the type of a sweep when it converts the values."""

    def function(*args: Any, value: Any = None) -> Any:
        result = cast(*args, value=value)
        source = args[0] if len(args) == 1 else value
        if isinstance(source, ChoiceSweep) and isinstance(result, ChoiceSweep):
            return replace(source, list=result.list)
        return result

    return function


def cast_str(*args: Any, value: Any = None) -> Any:
    """Return the values as quoted texts, which the command line of a point keeps as texts."""
    return _quoted(_keeping(grammar_functions.cast_str)(*args, value=value))


def _quoted(value: Any) -> Any:
    if isinstance(value, str):
        return QuotedString(value, Quote.single)
    if isinstance(value, builtins.list):
        return [_quoted(item) for item in value]
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, ChoiceSweep):
        return ChoiceSweep(value.tags, _quoted(value.list), value.simple_form)
    return value


@cache
def functions() -> Functions:
    """Return the functions of the grammar, by name."""
    by_name: dict[str, Callable[..., Any]] = {
        "int": _keeping(grammar_functions.cast_int),
        "float": _keeping(grammar_functions.cast_float),
        "bool": _keeping(grammar_functions.cast_bool),
        "str": cast_str,
        "choice": grammar_functions.choice,
        "range": number_range,
        "interval": grammar_functions.interval,
        "tag": grammar_functions.tag,
        "sort": sort,
        "shuffle": shuffle,
        "glob": grammar_functions.glob,
    }
    found = Functions()
    for name, function in by_name.items():
        found.register(name=name, func=function)
    return found


def flat(value: Any) -> Any:
    """Return a value of an override with the sweeps among its choices replaced by their values.

    Raises ConfigError for a sweep in another place, such as in a list.
    """
    if isinstance(value, ChoiceSweep):
        if any(isinstance(item, Sweep) for item in value.list):
            value = replace(value, list=builtins.list(_items(value.list)))
        for item in value.list:
            _refuse_sweeps(item)
        return value
    if not isinstance(value, Sweep | Glob):
        _refuse_sweeps(value)
    return value


def _items(values: builtins.list[Any]) -> Iterator[Any]:
    """Yield the values, those of nested choices one by one."""
    for item in values:
        if isinstance(item, ChoiceSweep):
            yield from _items(item.list)
        else:
            yield item


def _refuse_sweeps(value: Any) -> None:
    if isinstance(value, Sweep | Glob):
        raise ConfigError(
            "several values may be the whole value of a key or one of its choices, but no part of "
            "a list or a map, and no interval or glob is one of several choices; write each value "
            "in full, such as choice([16],[32])"
        )
    if isinstance(value, builtins.list):
        for item in value:
            _refuse_sweeps(item)
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_sweeps(item)


def unreadable(word: str, error: Exception) -> str:
    """Return the error message for a word of the command line that cannot be parsed."""
    if isinstance(error, RecursionError):
        return f"cannot read {shown(word)}: its brackets are nested too deeply"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__cause__
    if cause is not None:
        return f"{shown(word)}: {cause}"
    if isinstance(error, ValueError):
        return f"cannot read {shown(word)}: a number has too many digits"
    if "while evaluating" in str(error):
        called = re.search(r"while evaluating '(\w+)\(", str(error))
        form = FORMS.get(called[1]) if called else None
        if form:
            return f"{shown(word)}: cannot be evaluated; write {form}"
        return f"{shown(word)}: {' '.join(str(error.__cause__).split())}{_quotes_for(word)}"
    value = word.partition("=")[2].strip()
    if value.count("${") > value.count("}"):
        return f"cannot read {shown(word)}: an interpolation '${{' has no '}}'"
    if value.startswith(("[", "{", "'", '"')):
        return (
            f"cannot read {shown(word)}: its brackets or quotes do not match, or a text in it has "
            "characters other than a to z, digits and _-/.+*$%@?|, and needs quotes"
        )
    if proposal := _quotes_for(word):
        return f"cannot read {shown(word)}: the value needs quotes{proposal}"
    return f"cannot read {shown(word)}: write key=value"


def _quotes_for(word: str) -> str:
    """Return a proposal with quotes around the texts after the ``=``, or "" if it cannot be
    parsed."""
    key, _, value = word.partition("=")
    texts = [QuotedString(text, Quote.double).with_quotes() for text in value.strip().split(",")]
    quoted = f"{key}={','.join(texts)}"
    return (
        f"; for texts write {shlex.quote(quoted)}" if value.strip() and _is_readable(quoted) else ""
    )


def shown(word: object) -> str:
    """Return a word in quotes for a message, without the middle of a long one."""
    text = repr(word)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-40:]}"


def _is_readable(word: str) -> bool:
    try:
        OverridesParser(functions()).parse_override(word)
    except HydraException:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
