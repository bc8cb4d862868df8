"""The command line: a verb and its words. Imports nothing heavy; each verb does when it is called.

Exit codes: 0 done, 2 configuration or usage, 3 data, 4 resume, 5 training failed,
6 output, 130 interrupted (Ctrl-C), 1 a bug in nnopt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

USAGE = """\
nnopt: train every network twice, by hand in NumPy and in PyTorch, from one YAML

  nnopt run [key=value ...]        train one configuration, or every point of a sweep (-m)
      nnopt run dataset=mnist optimizer=adam seed=1
      nnopt run -m optimizer.lr=0.1,0.01 'seed=range(3)'
  nnopt resume SWEEP               go on with a sweep, retry its failures, add values to it
      nnopt resume outputs/latest 'seed=range(10)'
  nnopt compare DIR ...            one table of runs and sweeps, over seeds, with tests
      nnopt compare outputs/latest --baseline optimizer=sgd
  nnopt report DIR                 one HTML page of a run, a sweep or a folder of many
      nnopt report outputs/latest
  nnopt diff A B                   two runs: keys, metrics and weights that differ
      nnopt diff outputs/runs/ONE outputs/runs/OTHER --out pictures
  nnopt describe [key=value ...]   print the network: layers, shapes, parameters, FLOPs
      nnopt describe dataset=mnist architecture.hidden=[256,128]
  nnopt gradcheck [key=value ...]  compare the NumPy backend's gradients with finite differences
      nnopt gradcheck architecture.activation=gelu regularizer.norm=batch
  nnopt lr-find [key=value ...]    sweep the learning rate over one training, suggest one
      nnopt lr-find dataset=mnist optimizer=adam lr_find.highest=1
  nnopt data list|fetch|verify     the datasets: which are here, download, check
      nnopt data fetch mnist
  nnopt version                    print the version

`nnopt run --help` lists every configuration group and key.
Tab completion: eval "$(nnopt -sc install=bash)"
--debug after any verb shows the traceback of an error.
"""


def main() -> None:
    """The console script: run a verb and exit with its code."""
    sys.exit(run_verb(sys.argv[1:]))


def run_verb(words: list[str]) -> int:
    """Run one command line; returns its exit code."""
    if any(word in ("-sc", "--shell-completion") for word in words):
        from nnopt.completion import complete

        return complete(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    verb, arguments = words[0], words[1:]
    if verb in ("version", "--version"):
        from nnopt import __version__

        print(__version__)
        return 0
    if verb not in VERBS:
        import difflib

        close = difflib.get_close_matches(verb, [*VERBS, "version"], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`nnopt --help` lists the verbs"
        print(f"nnopt: error: unknown verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    debug = "--debug" in arguments
    return _guarded(VERBS[verb], [word for word in arguments if word != "--debug"], debug)


def _guarded(verb: Callable[[list[str]], int], arguments: list[str], debug: bool) -> int:
    """Turn errors into one line each and an exit code; show what is logged before a run begins."""
    import logging

    from nnopt.errors import NnoptError

    logging.basicConfig(format="nnopt: %(message)s", level=logging.WARNING)
    logging.getLogger("nnopt").setLevel(logging.INFO)
    try:
        return verb(arguments)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NnoptError as error:
        if debug:
            _print_traceback()
        from nnopt import console

        for line in str(error).splitlines():
            console.error(line)
        return error.exit_code
    except MemoryError as error:  # outside of a training, which says more: its data, mostly
        if debug:
            _print_traceback()
        what = f": {error}" if str(error) else ""
        print(f"nnopt: error: out of memory{what}; try dataset.subset=N", file=sys.stderr)
        return 5
    except Exception as error:
        if debug:
            _print_traceback()
        what = f"{type(error).__name__}: {error}"
        print(f"nnopt: a bug in nnopt: {what}; --debug shows where", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nnopt: interrupted", file=sys.stderr)
        return 130


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def _run(arguments: list[str]) -> int:
    from nnopt.launch import launch

    return launch(arguments)


def _resume(arguments: list[str]) -> int:
    from nnopt.resume import main

    return main(arguments)


def _compare(arguments: list[str]) -> int:
    from nnopt.compare import main

    return main(arguments)


def _report(arguments: list[str]) -> int:
    from nnopt.report.command import main

    return main(arguments)


def _diff(arguments: list[str]) -> int:
    from nnopt.diff import main

    return main(arguments)


def _describe(arguments: list[str]) -> int:
    from nnopt.describe import main

    return main(arguments)


def _gradcheck(arguments: list[str]) -> int:
    from nnopt.gradcheck import main

    return main(arguments)


def _lr_find(arguments: list[str]) -> int:
    from nnopt.lr_find import main

    return main(arguments)


def _data(arguments: list[str]) -> int:
    from nnopt.data_command import main

    return main(arguments)


VERBS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "resume": _resume,
    "compare": _compare,
    "report": _report,
    "diff": _diff,
    "describe": _describe,
    "gradcheck": _gradcheck,
    "lr-find": _lr_find,
    "data": _data,
}
