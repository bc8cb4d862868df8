"""The range of a number, or the pattern of a text, as an annotation of its type."""

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


@dataclass(frozen=True)
class Text:
    """The pattern of a whole text, or of every text in a list; ``allowed`` says it in words."""

    pattern: str
    allowed: str


@dataclass(frozen=True)
class Entries:
    """The entries of a map: its possible keys, with hyphens, and the pattern of its texts."""

    keys: frozenset[str]
    text: Text


LARGEST_SEED = 2**63 - 1
