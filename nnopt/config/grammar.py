"""The functions of Hydra's override grammar, with ranges in decimal numbers.

Hydra computes ``range(0.1,0.5,0.1)`` in binary floating point. One of the values is
0.30000000000000004, and some ranges include the stop value. This module uses exact fractions.

This module must not import ``annotations`` from ``__future__``, because Hydra needs the annotations
of these functions as objects.
"""

import builtins
import random
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from math import ceil, isfinite
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from nnopt.config.hydra_internals import Functions, grammar_functions
from nnopt.errors import ConfigError

MAX_SWEEP_POINTS = 100_000
"""Maximum number of values of a range, and of points of a sweep."""

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
"""Function -> form of a call. ``shuffle`` and ``str`` are omitted, as they accept all values."""


@dataclass
class NumberSweep(ChoiceSweep):
    """The numbers of a range, in order."""


def number_range(start: Any, stop: Any = None, step: Any = 1) -> NumberSweep:
    """Return the numbers from ``start`` up to, but not including, ``stop``. Raises ConfigError.

    A single argument is ``stop``, and ``start`` is 0.
    """
    if stop is None:
        start, stop = 0, start
    for value in (start, stop, step):
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
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
    """Raise ConfigError if ``owner`` has more than ``MAX_SWEEP_POINTS`` points or values."""
    if count > MAX_SWEEP_POINTS:
        number = f"{count:,}" if count < 10**12 else "more than 10^12"
        raise ConfigError(
            f"{owner} has {number} {noun}, but a sweep has at most {MAX_SWEEP_POINTS:,} points; "
            "give fewer values, or search an interval with hydra/sweeper=optuna"
        )


def shuffle(*args: Any, sweep: Any = None, list: Any = None) -> Any:
    """Return the values in a random order, which is the same in every process."""
    return _reordered(_permuted, args, sweep, list)


def sort(*args: Any, sweep: Any = None, list: Any = None, reverse: bool = False) -> Any:
    """Return the values in ascending order, or in descending order if ``reverse`` is true."""

    def value_of(item: Any) -> Any:
        return item.text if isinstance(item, QuotedString) else item

    return _reordered(partial(sorted, key=value_of, reverse=reverse), args, sweep, list)


def _reordered(order: Callable[[Any], Any], args: Sequence[Any], *named: Any) -> Any:
    """Return the values of a sweep, a list or several arguments, reordered by ``order``."""
    given = [*args, *(value for value in named if value is not None)]
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
    """Return a version of the function ``cast`` that keeps the tags and the type of a sweep."""

    def function(*args: Any, value: Any = None) -> Any:
        result = cast(*args, value=value)
        source = args[0] if len(args) == 1 else value
        if isinstance(source, ChoiceSweep) and isinstance(result, ChoiceSweep):
            return replace(source, list=result.list)
        return result

    return function


def cast_str(*args: Any, value: Any = None) -> Any:
    """Convert values to quoted texts, so that Hydra later reads them as texts, not as numbers."""
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
    """Return the functions of the grammar."""
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
    registered = Functions()
    for name, function in by_name.items():
        registered.register(name=name, func=function)
    return registered


def flatten_sweeps(value: Any) -> Any:
    """Return the value of an override. A sweep within a choice is replaced by the sweep's values.

    Raises ConfigError if a sweep occurs anywhere else, such as in a list.
    """
    if isinstance(value, ChoiceSweep):
        if any(isinstance(item, Sweep) for item in value.list):
            value = replace(value, list=builtins.list(_items(value.list)))
        if any(isinstance(item, Sweep | Glob) for item in value.list):
            raise ConfigError(
                "an interval or a glob cannot be one of several choices; list its values instead"
            )
        _refuse_sweeps(value.list)
    elif not isinstance(value, Sweep | Glob):
        _refuse_sweeps(value)
    return value


def _items(values: builtins.list[Any]) -> Iterator[Any]:
    """Yield the values, including the values of nested choices."""
    for item in values:
        yield from _items(item.list) if isinstance(item, ChoiceSweep) else [item]


def _refuse_sweeps(value: Any) -> None:
    if isinstance(value, Sweep | Glob):
        raise ConfigError(
            "a sweep or a glob cannot be part of a list or a map; sweep over the whole list or "
            "map, such as choice([16],[32])"
        )
    if isinstance(value, builtins.list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _refuse_sweeps(item)


def unreadable(text: str, error: Exception) -> str:
    """Return the error message for an override that cannot be parsed."""
    if isinstance(error, RecursionError):
        return f"cannot read {shown(text)}: its brackets are nested too deeply"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigError):
        cause = cause.__cause__
    if cause is not None:
        return f"{shown(text)}: {cause}"
    if isinstance(error, ValueError):
        return f"cannot read {shown(text)}: a number has too many digits"
    if "while evaluating" in str(error):
        called = re.search(r"while evaluating '(\w+)\(", str(error))
        if called and (form := FORMS.get(called[1])):
            return f"{shown(text)}: cannot be evaluated; write {form}"
        return f"{shown(text)}: {' '.join(str(error.__cause__).split())}{_quotes_for(text)}"
    value = text.partition("=")[2].strip()
    if value.count("${") > value.count("}"):
        return f"cannot read {shown(text)}: an interpolation '${{' has no '}}'"
    if value.startswith(("[", "{", "'", '"')):
        return (
            f"cannot read {shown(text)}: its brackets or quotes do not match, or a text in it "
            "needs quotes, because it has characters other than a to z, digits and _-/.+*$%@?|"
        )
    if proposal := _quotes_for(text):
        return f"cannot read {shown(text)}: the value needs quotes{proposal}"
    return f"cannot read {shown(text)}: write key=value"


def _quotes_for(override: str) -> str:
    """Return a hint to quote the values, or "" if the quoted values cannot be parsed either."""
    key, _, value = override.partition("=")
    texts = [QuotedString(text, Quote.double).with_quotes() for text in value.strip().split(",")]
    quoted = f"{key}={','.join(texts)}"
    try:
        OverridesParser(functions()).parse_override(quoted)
    except HydraException:
        return ""
    return f"; for texts write {shlex.quote(quoted)}" if value.strip() else ""


def shown(value: object) -> str:
    """Return the ``repr`` of a value for messages. Dots replace the middle of a long text."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-40:]}"
