"""Check of the arrays of a checkpoint against a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

MAX_LISTED_PROBLEMS = 5


def check_state(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless both have arrays with the same names, shapes and types.

    The message lists the first problems and the number of the others.
    """
    if problems := list(_problems(expected, found)):
        raise ValueError(listed(problems, "; "))


def listed(problems: Sequence[str], separator: str) -> str:
    """Return the first problems as one text, with the number of the others."""
    others = len(problems) - MAX_LISTED_PROBLEMS
    more = f" and {others} more" if others > 0 else ""
    return separator.join(problems[:MAX_LISTED_PROBLEMS]) + more


def _problems(
    expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    yield from (f"{name} is missing" for name in expected if name not in found)
    yield from (f"{name} is unexpected" for name in found if name not in expected)
    for name, array in expected.items():
        if name in found and (array.shape, array.dtype) != (found[name].shape, found[name].dtype):
            kind, other = found[name].dtype, array.dtype
            yield f"{name} is {kind} {found[name].shape}, expected {other} {array.shape}"
