"""Text from elsewhere, made safe to print."""

from __future__ import annotations


def visible(text: str) -> str:
    """Return the text with line breaks, control and format characters, and lone surrogates as
    escapes.

    A terminal obeys control characters, and format characters such as U+202E reorder what is read.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
