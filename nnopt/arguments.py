"""What a user types after a verb: its parser, whose errors are lines like all others, and paths."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from nnopt.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse's parser. It raises ConfigError where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}; `{self.prog} --help` lists the options")


def given_path(text: str, name: str) -> Path:
    """Return a path that the user gave for ``name``, with ``~`` as the home folder: a shell leaves
    it as it is after ``=`` and in quotes. Raises ConfigError."""
    if "\0" in text:
        raise ConfigError(f"{name} {text!r}: a path has no null character")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ConfigError(f"{name} {text!r}: there is no such user; write ./{text} for that name")
    return Path(path)
