"""Formats values of a configuration as text, and flattens nested configurations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def format_value(value: Any, scalar: Callable[[Any], str] = str) -> str:
    """Return a value in Hydra's grammar: ``null``, ``true``, ``[64, 32]``, ``{padding: 1}``.

    ``scalar`` formats texts and numbers.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(format_value(item, scalar) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{key}: {format_value(item, scalar)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return scalar(value)


def quoted(value: Any) -> str:
    """Return a value as text, in quotes if Hydra's grammar requires them."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z_/][\w/.-]*", value):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def flatten(container: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and values of a nested configuration. Keys begin with ``prefix``."""
    for key, value in container.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
