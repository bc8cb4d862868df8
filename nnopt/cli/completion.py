"""Tab completion. This module completes verbs and options. Hydra completes groups and keys.

After ``eval "$(nnopt -sc install=bash)"`` the shell calls ``nnopt -sc query=bash`` with the typed
line in the variable COMP_LINE, and offers the words that nnopt prints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

VERBS_WITH_OVERRIDES = ("run", "describe", "schedule", "gradcheck", "lr-find")
DATA_VERBS = ("list", "fetch", "verify", "show")


def complete(arguments: list[str], verbs: Iterable[str]) -> int:
    """Answer ``-sc install=SHELL``, ``-sc uninstall=SHELL`` or ``-sc query=SHELL``."""
    command = arguments[-1]
    if command.startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        typed = line.split() if not line.endswith(" ") else [*line.split(), ""]
        if len(typed) < 3:
            print(" ".join([*verbs, "version"]))
            return 0
        verb, before, last = typed[1], typed[-2], typed[-1]
        if verb == "data" and typed[2:3] == ["show"] and len(typed) > 4:
            verb = f"data show {typed[3]}"  # followed by overrides
        elif verb not in VERBS_WITH_OVERRIDES:
            words = _data_words(typed) if verb == "data" else _options_of(verb, before, last)
            print(" ".join(words))
            return 0
        program, _, after = line.partition(f" {verb}")
        # Hydra cannot parse the quotes that the shell needs.
        os.environ["COMP_LINE"] = program + after.replace("'", "").replace('"', "")
    from nnopt.config.show import complete_words

    complete_words(command)
    return 0


def _data_words(typed: Sequence[str]) -> Iterable[str]:
    """Return the verbs of ``nnopt data``, or the names of the datasets for one of these verbs."""
    if len(typed) < 4:
        return DATA_VERBS
    from nnopt.data.published import PUBLISHED
    from nnopt.schema import VARIANTS

    names: dict[str, Iterable[str]] = {"show": VARIANTS["dataset"]}
    names |= dict.fromkeys(("fetch", "verify"), PUBLISHED)
    return names.get(typed[2], ())


def _options_of(verb: str, before: str, last: str) -> Iterable[str]:
    """Return the options of a verb, or the values of the option before the cursor."""
    from nnopt.analysis.render import SUFFIXES
    from nnopt.cli.model_parsers import MODEL_PARSERS
    from nnopt.cli.parsers import PARSERS
    from nnopt.results.metrics import METRICS

    parsers = PARSERS | MODEL_PARSERS
    values = {"--metric": METRICS, "--sort": METRICS, "--format": tuple(SUFFIXES.values())}
    values |= {"--weights": ("best", "last"), "--estimate": ("mean", "iqm")}
    values["--part"] = ("train", "validation", "test")
    if verb in MODEL_PARSERS:
        values["--format"] = ("table", "json")
    if verb in parsers and before in values:
        return values[before]
    if verb not in parsers or not last.startswith("-"):  # the shell itself completes folders
        return ()
    return (x for action in parsers[verb]()._actions for x in action.option_strings)
