"""Tab completion: verbs are completed here, groups and keys by Hydra.

A shell that ran ``eval "$(nnopt -sc install=bash)"`` calls ``nnopt -sc query=bash`` with the line
typed so far in COMP_LINE, and completes with the words that are printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

VERBS_WITH_OVERRIDES = ("run", "describe", "gradcheck", "lr-find")
DATA_VERBS = ("list", "fetch", "verify")


def complete(words: list[str], verbs: Iterable[str]) -> int:
    """Answer ``-sc install=SHELL``, ``-sc uninstall=SHELL`` or ``-sc query=SHELL``."""
    command = words[-1]
    if not command.startswith("query="):
        return _ask_hydra(command)
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    if len(typed) < 2 or (len(typed) == 2 and not line.endswith(" ")):
        print(" ".join([*verbs, "version"]))
        return 0
    verb = typed[1]
    if verb in VERBS_WITH_OVERRIDES:
        before, _, after = line.partition(f" {verb}")
        os.environ["COMP_LINE"] = before + after
        return _ask_hydra(command)
    if verb in ("compare", "report", "diff", "resume"):
        before = typed[-1] if line.endswith(" ") else typed[-2]
        print(" ".join(_words_of(verb, before, "" if line.endswith(" ") else typed[-1])))
    else:
        print(" ".join(DATA_VERBS) if verb == "data" else "")
    return 0


def _ask_hydra(command: str) -> int:
    from nnopt.config.show import complete_words

    complete_words(command)
    return 0


def _words_of(verb: str, before: str, last: str) -> Iterable[str]:
    """Options, and what follows some of them; nothing for folders, which the shell completes."""
    from nnopt.cli.compare import FORMATS
    from nnopt.cli.compare import parser as compare_parser
    from nnopt.cli.diff import parser as diff_parser
    from nnopt.cli.report import parser as report_parser
    from nnopt.cli.resume import parser as resume_parser
    from nnopt.results.metrics import METRICS

    after = {"--metric": METRICS, "--sort": METRICS, "--format": FORMATS}
    after["--weights"] = ("best", "last")
    if before in after:
        return after[before]
    parsers = {"compare": compare_parser, "report": report_parser, "diff": diff_parser}
    parser = (parsers | {"resume": resume_parser})[verb]()
    options = (option for action in parser._actions for option in action.option_strings)
    return options if last.startswith("-") else ()
