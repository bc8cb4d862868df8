"""Text from files and libraries, made safe to print."""

from __future__ import annotations

import re

MESSAGE_REPLACEMENTS = {
    r"\w+ raised while (composing config|resolving interpolation): ": "",
    r"no viable alternative at input ('\$\{[^']*')": r"the interpolation \1 cannot be read",
    "Cannot merge DictConfig with ListConfig": "a file has a list where a map is needed",
    "Cannot merge ListConfig with DictConfig": "a file has a map where a list is needed",
}
"""Pattern in a message of Hydra or OmegaConf -> its replacement."""


def simplify_message(message: str) -> str:
    """Return a message of Hydra or OmegaConf on one line, without the names of their classes."""
    message = " ".join(message.split())
    for pattern, replacement in MESSAGE_REPLACEMENTS.items():
        message = re.sub(pattern, replacement, message)
    return message


def visible(text: str) -> str:
    """Return the text with all unprintable characters as escapes.

    A terminal executes control characters, and format characters such as U+202E reorder the text.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    """Return the text as ``visible`` does, with its line breaks and tabs kept."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def quoted(text: str, max_length: int = 60) -> str:
    """Return the text on one line, in quotation marks, shortened to ``max_length``."""
    return f"'{visible(text[:max_length])}'{_omission(text, max_length)}"


def shortened(text: str, max_length: int) -> str:
    """Return the text, cut if it is long, with the number of omitted characters."""
    return text[:max_length] + _omission(text, max_length)


def _omission(text: str, max_length: int) -> str:
    omitted = len(text) - max_length
    return f"… ({omitted:,} more characters)" if omitted > 0 else ""
