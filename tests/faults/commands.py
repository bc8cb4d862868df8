"""The result of a command, and the guarantees that every command gives.

A command prints no traceback and no "bug in nnopt". It explains an exit code other than 0 in lines
that begin with ``nnopt: error:``, and leaves no temporary file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXIT_CODES = (0, 2, 3, 4, 5, 6, 130, 143)


@dataclass(frozen=True)
class Attempt:
    """The exit code and the output of one command."""

    code: int
    out: str
    err: str

    def is_refused(self, code: int, *fragments: str) -> None:
        """Assert that the command ended with this code and an error that contains ``fragments``."""
        assert self.code == code, f"exit code {self.code}, not {code}: {self.err}"
        for fragment in fragments:
            assert fragment in self.err, f"{fragment!r} is not in: {self.err}"

    def is_done(self, *fragments: str) -> None:
        """Assert that the command succeeded with an output that contains ``fragments``."""
        assert self.code == 0, f"exit code {self.code}: {self.err}"
        for fragment in fragments:
            assert fragment in self.out + self.err, f"{fragment!r} is not in: {self.out + self.err}"

    def keeps_promises(self) -> None:
        """Assert the guarantees of the module docstring, except that about temporary files."""
        printed = self.out + self.err
        assert "Traceback" not in printed, printed
        assert "a bug in nnopt" not in printed, printed
        assert self.code in EXIT_CODES, f"exit code {self.code}: {printed}"
        if self.code in (2, 3, 4, 6):
            assert "nnopt: error: " in self.err, f"exit code {self.code} without a message"


Command = Callable[..., Attempt]
"""``attempt("run", "epochs=-1")``: run a command in this process."""

Trap = Callable[[str, int, Callable[[], object]], None]
"""``trap("os.replace", 2, act)``: the second call of ``os.replace`` calls ``act`` first."""


def temporary_files(folder: Path) -> list[Path]:
    """Return the files and folders below ``folder`` that are named like temporary files."""
    return sorted(path for path in folder.rglob(".*tmp*") if not path.is_symlink())
