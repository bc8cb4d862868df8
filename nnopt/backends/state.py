"""Comparison of the arrays in a checkpoint with the arrays of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

MAX_LISTED_PROBLEMS = 5


def check_state(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless ``found`` has the names, shapes and types of ``expected``.

    The message contains the first problems and the number of further problems.
    """
    if problems := list(_problems(expected, found)):
        raise ValueError(listed(problems, "; "))


def listed(problems: Sequence[str], separator: str) -> str:
    """Return one text with the first problems and the number of further problems."""
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
