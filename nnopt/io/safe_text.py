"""Text from elsewhere, made safe to print."""

from __future__ import annotations

import re

PLAIN_WORDS = {
    r"\w+ raised while (composing config|resolving interpolation): ": "",
    r"no viable alternative at input ('\$\{[^']*')": r"the interpolation \1 cannot be read",
    "Cannot merge DictConfig with ListConfig": "a file has a list where a map is needed",
    "Cannot merge ListConfig with DictConfig": "a file has a map where a list is needed",
}
"""Pattern in a message of Hydra or OmegaConf -> the words that take its place."""


def in_plain_words(message: str) -> str:
    """Return a message of Hydra or OmegaConf on one line, without the names of their classes."""
    message = " ".join(message.split())
    for pattern, words in PLAIN_WORDS.items():
        message = re.sub(pattern, words, message)
    return message


def visible(text: str) -> str:
    """Return the text with line breaks, control and format characters, and lone surrogates as
    escapes.

    A terminal obeys control characters, and format characters such as U+202E reorder what is read.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible_lines(text: str) -> str:
    """Return the text as ``visible`` does, with its line breaks and tabs kept."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def quoted(text: str, most: int = 60) -> str:
    """Return the text for a message: on one line, in quotation marks, cut if it is long."""
    end = f"… ({len(text) - most:,} more characters)" if len(text) > most else ""
    return f"'{visible(text[:most])}'{end}"


def shortened(text: str, most: int) -> str:
    """Return the text, cut after ``most`` characters with the number of those left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"
