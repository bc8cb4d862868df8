"""The command line: a verb and its words. Imports nothing heavy; each verb does when it is called.

Exit codes: 0 done, 2 configuration or usage, 3 data, 4 resume, 5 training failed,
6 output, 130 Ctrl-C, 143 SIGTERM or SIGHUP, 1 a bug in nnopt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

TYPE_CHECKING = False  # importing typing would take a tenth of the time of nnopt version
if TYPE_CHECKING:
    import logging

USAGE = """\
nnopt: train every network twice, by hand in NumPy and in PyTorch, from one YAML

  nnopt run [key=value ...]        train one configuration, or every point of a sweep (-m)
      nnopt run dataset=mnist optimizer=adam seed=1
      nnopt run -m optimizer.lr=0.1,0.01 'seed=range(3)'
  nnopt resume SWEEP               continue a sweep, retry its failures, add values to it
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


OUTPUT_LOST = 6
"""The exit code of a command whose results or notes could not be printed."""


def main() -> None:
    """The console script: run a verb and exit with its code."""
    _open_standard_descriptors()
    sys.exit(run_verb(sys.argv[1:]))


def run_verb(words: list[str]) -> int:
    """Run one command line; returns its exit code, 6 if some of its output was lost."""
    from nnopt.terminal.safe_stream import guarded_streams

    with guarded_streams() as (output, errors):
        code = _exit_code_of(words)
        output.flush()
        if output.failure is not None:
            errors.write_line(
                f"nnopt: error: cannot write to standard output: {output.failure.strerror}; what "
                "was printed is incomplete, and files are not affected. Make room, or print to "
                "another place"
            )
        errors.flush()
        is_lost = output.failure is not None or errors.failure is not None
        return OUTPUT_LOST if is_lost and code == 0 else code


def _open_standard_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed: else the next file that is opened would
    become the standard output of libraries and child processes."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _exit_code_of(words: list[str]) -> int:
    try:
        return _run_words(words)
    except SystemExit as stop:  # of argparse and Hydra after --help, and of a signal
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0


def _run_words(words: list[str]) -> int:
    if any(word in ("-sc", "--shell-completion") for word in words):
        from nnopt.cli.completion import complete

        return complete(words, VERBS)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    verb, arguments = words[0], words[1:]
    if verb in ("version", "--version"):
        from nnopt import __version__

        print(__version__)
        return 0
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    return _guarded(VERBS.get(verb, partial(_refuse, verb)), arguments, debug)


def _refuse(verb: str, arguments: list[str]) -> int:
    import difflib

    from nnopt.errors import ConfigError

    close = difflib.get_close_matches(verb, [*VERBS, "version"], n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`nnopt --help` lists the verbs"
    raise ConfigError(f"unknown verb {verb!r}; {hint}")


def _guarded(verb: Callable[[list[str]], int], arguments: list[str], debug: bool) -> int:
    """Turn errors into one line each and an exit code; show what is logged before a run begins."""
    from nnopt.errors import NnoptError, is_memory_shortage

    try:
        with _showing_log():
            return verb(arguments)
    except NnoptError as error:
        _print_traceback(debug)
        for line in str(error).splitlines():
            _print_error(f"error: {line}")
        return error.exit_code
    except Exception as error:
        _print_traceback(debug)
        if is_memory_shortage(error):  # outside of a training, which says more: its data, mostly
            what = f": {error}" if str(error) else ""
            _print_error(f"error: out of memory{what}; try dataset.subset=N")
            return 5
        _print_error(f"a bug in nnopt: {type(error).__name__}: {error}; --debug shows where")
        return 1
    except KeyboardInterrupt:
        _print_error("error: interrupted by Ctrl-C")
        return 130
    except SystemExit as stop:
        from nnopt.terminal.interruption import Interruption

        if not isinstance(stop, Interruption):  # argparse has printed its help
            raise
        _print_error(f"error: {stop}")
        return 143


@contextmanager
def _showing_log() -> Iterator[None]:
    """Show what nnopt logs, and the warnings of other packages, on stderr, a line each."""
    import logging

    from nnopt.io.safe_text import visible

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"nnopt: {visible(record.getMessage())}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(lambda x: x.name == "nnopt" or x.levelno >= logging.WARNING)
    handler.addFilter(_first_of_its_kind())
    logging.getLogger().addHandler(handler)
    logging.getLogger("nnopt").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _first_of_its_kind() -> Callable[[logging.LogRecord], bool]:
    """Return a filter that passes one record of each message that is marked with ``once``."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        is_first = record.msg not in seen
        seen.add(record.msg)
        return is_first

    return is_new


def _print_error(message: str) -> None:
    from nnopt.io.safe_text import visible

    print(f"nnopt: {visible(message)}", file=sys.stderr)


def _print_traceback(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def _run(arguments: list[str]) -> int:
    from nnopt.cli.run import launch

    return launch(arguments)


def _resume(arguments: list[str]) -> int:
    from nnopt.cli.resume import main

    return main(arguments)


def _compare(arguments: list[str]) -> int:
    from nnopt.cli.compare import main

    return main(arguments)


def _report(arguments: list[str]) -> int:
    from nnopt.cli.report import main

    return main(arguments)


def _diff(arguments: list[str]) -> int:
    from nnopt.cli.diff import main

    return main(arguments)


def _describe(arguments: list[str]) -> int:
    from nnopt.cli.describe import main

    return main(arguments)


def _gradcheck(arguments: list[str]) -> int:
    from nnopt.cli.gradcheck import main

    return main(arguments)


def _lr_find(arguments: list[str]) -> int:
    from nnopt.cli.lr_find import main

    return main(arguments)


def _data(arguments: list[str]) -> int:
    from nnopt.cli.data import main

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
