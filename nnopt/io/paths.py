"""Paths given by a setting, an argument or an environment variable."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, chdir, nullcontext
from pathlib import Path

from nnopt.errors import ConfigError

DATA_FOLDER = "data"  # folder of the datasets if $NNOPT_DATA_DIR is not set


def environment(name: str, default: str) -> str:
    """Return an environment variable; ``default`` if it is unset, empty or blank."""
    value = os.environ.get(name, "")
    return value if value.strip() else default


def absolute_folder(text: str, key: str) -> str:
    """Return the absolute path of ``text``, the value of a setting ``key``. Raises ConfigError."""
    if problem := path_problem(text):
        raise ConfigError(f"{key} = {text!r}: {problem}")
    return os.path.abspath(os.path.expanduser(text))


def in_folder(path: str) -> AbstractContextManager[None]:
    """Make a folder the working directory within the context, if the folder exists."""
    return chdir(path) if os.path.isdir(path) else nullcontext()


def given_path(text: str, name: str) -> Path:
    """Return the path that the user gave for the argument ``name``. Raises ConfigError."""
    if problem := path_problem(text):
        raise ConfigError(f"{name} {text!r}: {problem}")
    return Path(os.path.expanduser(text))  # a shell does not expand ~ after = or in quotes


def path_problem(text: str) -> str | None:
    """Return why ``text`` cannot be a path, or None if it can."""
    if not text.strip():
        return "needs a path; '.' is the current folder"
    if "\0" in text:
        return "a path cannot contain a null byte"
    if text.startswith("~"):
        if os.environ.get("HOME", "/").strip() == "":
            return "'~' has no meaning, because $HOME is empty; write the whole path"
        if os.path.expanduser(text).startswith("~"):
            return f"there is no user {text[1:].partition('/')[0]!r}; write a name with ~ as ./~..."
    return None
