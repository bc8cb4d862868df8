"""The parser of the words after a verb. Its errors are like all others of nnopt."""

from __future__ import annotations

import argparse
from typing import NoReturn

from nnopt.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse's parser. It raises ConfigError where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}; `{self.prog} --help` lists the options")
