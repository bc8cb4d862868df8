"""Annotations of types: the range of a number, or the pattern of a text."""

from dataclasses import dataclass

Number = int | float


@dataclass(frozen=True)
class Range:
    """The range of a number, or of every number of a list. None means no bound."""

    minimum: Number | None = None
    above: Number | None = None  # an exclusive lower bound
    maximum: Number | None = None
    below: Number | None = None  # an exclusive upper bound


@dataclass(frozen=True)
class Text:
    """The regular expression of a text, or of every text in a list."""

    pattern: str
    allowed: str  # the description of the pattern in error messages


@dataclass(frozen=True)
class Entries:
    """The allowed keys of a map, spelled with hyphens, and the pattern of values that are texts."""

    keys: frozenset[str]
    text: Text


@dataclass(frozen=True)
class Names:
    """A choice of the names of a ``Literal`` and of the components that plug-ins add to a table."""

    table: str  # the name of the table, such as "loss"


LARGEST_SEED = 2**63 - 1
