"""Annotations of types: the range of a number, or the pattern of a text."""

from dataclasses import dataclass

Number = int | float


@dataclass(frozen=True)
class Range:
    """The range of a number, or of every number of a list. None means no bound.

    Attributes:
        minimum: The least allowed value.
        above: A lower bound that is not allowed itself.
        maximum: The largest allowed value.
        below: An upper bound that is not allowed itself.
    """

    minimum: Number | None = None
    above: Number | None = None
    maximum: Number | None = None
    below: Number | None = None


@dataclass(frozen=True)
class Text:
    """The pattern of a text, or of every text in a list.

    Attributes:
        pattern: A regular expression, which the whole text must match.
        allowed: The description of the pattern in error messages.
    """

    pattern: str
    allowed: str


@dataclass(frozen=True)
class Entries:
    """The allowed keys of a map, written with hyphens, and the pattern of values that are texts."""

    keys: frozenset[str]
    text: Text


LARGEST_SEED = 2**63 - 1
