"""Comparison of the arrays in a checkpoint with the arrays of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from nnopt.errors import join_problems


def check_state(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless ``found`` has the names, shapes and types of ``expected``.

    The message contains the first problems and the number of further problems.
    """
    if problems := list(_problems(expected, found)):
        raise ValueError(join_problems(problems, "; "))


def _problems(
    expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    yield from (f"{name} is missing" for name in expected if name not in found)
    yield from (f"{name} is unexpected" for name in found if name not in expected)
    for name, array in expected.items():
        if name in found and (array.shape, array.dtype) != (found[name].shape, found[name].dtype):
            kind, other = found[name].dtype, array.dtype
            yield f"{name} is {kind} {found[name].shape}, expected {other} {array.shape}"
