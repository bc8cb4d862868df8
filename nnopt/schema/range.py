"""The range of a number, said beside its type."""

from __future__ import annotations

from dataclasses import dataclass

Number = int | float


@dataclass(frozen=True)
class Range:
    """Where a number lies, or every number of a list: minimum and maximum are closed ends, above
    and below open ones; None is no bound."""

    minimum: Number | None = None
    above: Number | None = None
    maximum: Number | None = None
    below: Number | None = None


LARGEST_SEED = 2**63 - 1
