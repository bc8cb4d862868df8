"""The command line: runs a verb, and converts errors to one line and an exit code.

Exit codes: 0 success, 2 configuration or usage, 3 data, 4 resume, 5 failed training,
6 output, 130 Ctrl-C, 143 SIGTERM, SIGHUP or SIGUSR1, 1 a bug in nnopt.

The module of a verb is imported only when the verb runs, because ``nnopt version`` must be fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # importing typing would take a tenth of the time of ``nnopt version``
if TYPE_CHECKING:
    import logging

USAGE = """\
nnopt: train every network twice, by hand in NumPy and in PyTorch, from one YAML

  nnopt run [key=value ...]        train one configuration, or every point of a sweep (-m)
      nnopt run dataset=mnist optimizer=adam seed=1
      nnopt run -m optimizer.lr=0.1,0.01 'seed=range(3)'
  nnopt resume DIR                 continue a run or a sweep, train longer, add values
      nnopt resume outputs/latest 'seed=range(10)'
  nnopt compare DIR ...            one table of runs and sweeps: means over seeds, tests
      nnopt compare outputs/latest --baseline optimizer=sgd
  nnopt report DIR                 one HTML page of a run, a sweep or a folder of several
      nnopt report outputs/latest
  nnopt evaluate RUN               metrics of a trained network on a part of a dataset
      nnopt evaluate outputs/latest --part validation
  nnopt predict RUN INPUT          predictions for a CSV file, an array or images
      nnopt predict outputs/latest new.csv --out predictions.csv
  nnopt diff A B                   compare two runs: keys, metrics and weights
      nnopt diff outputs/runs/ONE outputs/runs/OTHER --out pictures
  nnopt describe [key=value ...]   print the network: layers, shapes, parameters, FLOPs
      nnopt describe dataset=mnist architecture.hidden=[256,128]
  nnopt schedule [key=value ...]   print and draw the learning rate of every step, without data
      nnopt schedule dataset=cifar10 schedule=one_cycle epochs=20 --out schedule.png
  nnopt gradcheck [key=value ...]  compare the NumPy backend's gradients with finite differences
      nnopt gradcheck architecture.activation=gelu regularizer.norm=batch
  nnopt lr-find [key=value ...]    train once with a rising learning rate, suggest a rate
      nnopt lr-find dataset=mnist optimizer=adam lr_find.max_lr=1
  nnopt data list|fetch|verify     list, download or verify the datasets
      nnopt data fetch mnist
  nnopt data show NAME [key=value] draw training samples of a dataset, and count its classes
      nnopt data show cifar10 regularizer=augmentation
  nnopt version                    print the version

`nnopt run --help` lists every configuration group and key.
Tab completion: eval "$(nnopt -sc install=bash)"
--debug after any verb prints the traceback of an error.
"""

VERBS = (
    *(
        "run",
        "resume",
        "compare",
        "report",
        "evaluate",
        "predict",
        "diff",
        "describe",
        "schedule",
        "gradcheck",
    ),
    *("lr-find", "data"),
)
"""The verbs. ``main(arguments)`` of ``nnopt.cli.VERB`` runs a verb and returns the exit code."""

OUTPUT_ERROR_CODE = 6
"""The exit code of a successful command whose results or notes could not be printed."""


def main() -> None:
    """Run the command line of this process, and exit with the exit code of the verb."""
    _open_standard_descriptors()
    sys.exit(run_verb(sys.argv[1:]))


def run_verb(arguments: list[str]) -> int:
    """Run a command line, given without the name of the program. Return the exit code."""
    from nnopt.terminal.safe_stream import guarded_streams

    with guarded_streams() as (output, errors):
        try:
            code = _dispatch(arguments)
        except SystemExit as stop:  # raised by --help, and by signals
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            code = 1 if isinstance(stop.code, str) else stop.code or 0
        output.flush()
        if output.failure is not None:
            errors.write_line(
                f"nnopt: error: cannot write to standard output: {output.failure.strerror}; the "
                "printed output is incomplete, files are complete. Free disk space, or redirect "
                "the output"
            )
        errors.flush()
        is_lost = output.failure is not None or errors.failure is not None
        return OUTPUT_ERROR_CODE if is_lost and code == 0 else code


def _open_standard_descriptors() -> None:
    """Open the null device for each closed descriptor from 0 to 2.

    Otherwise the next opened file would be the standard output of libraries and child processes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system assigns the lowest free number


def _dispatch(arguments: list[str]) -> int:
    if "-sc" in arguments or "--shell-completion" in arguments:
        from nnopt.cli.completion import complete

        return complete(arguments, VERBS)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    verb, *rest = arguments
    if verb in ("version", "--version"):
        from nnopt import __version__

        print(__version__)
        return 0
    return _run_guarded(verb, [x for x in rest if x != "--debug"], debug="--debug" in rest)


def _load_verb(verb: str) -> Callable[[list[str]], int]:
    from importlib import import_module

    from nnopt.errors import ConfigError, suggest

    if verb not in VERBS:
        hint = suggest(verb, [*VERBS, "version"])
        raise ConfigError(f"unknown verb {verb!r}; {hint}; `nnopt --help` describes the verbs")
    run: Callable[[list[str]], int] = import_module(f"nnopt.cli.{verb.replace('-', '_')}").main
    return run


def _run_guarded(verb: str, arguments: list[str], debug: bool) -> int:
    """Run a verb. Print an error as one line. Return the exit code."""
    from nnopt.errors import NnoptError, is_memory_shortage

    try:
        with _log_on_stderr():
            return _load_verb(verb)(arguments)
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, NnoptError):
            for line in str(error).splitlines():
                _print_error(f"error: {line}")
            return error.exit_code
        if is_memory_shortage(error):  # not in training, where it becomes a TrainingError
            reason = f": {error}" if str(error) else ""
            _print_error(f"error: out of memory{reason}; try dataset.subset=N")
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
def _log_on_stderr() -> Iterator[None]:
    """Print nnopt's log records and the warnings of other packages to stderr, one line each."""
    import logging

    from nnopt.io.safe_text import visible

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"nnopt: {visible(record.getMessage())}"

    seen: set[str] = set()

    def is_printed(record: logging.LogRecord) -> bool:
        if getattr(record, "once", False):  # print the message only once
            if record.msg in seen:
                return False
            seen.add(record.msg)
        return record.name == "nnopt" or record.levelno >= logging.WARNING

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(is_printed)
    logging.getLogger().addHandler(handler)
    logging.getLogger("nnopt").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _print_error(message: str) -> None:
    from nnopt.io.safe_text import visible

    print(f"nnopt: {visible(message)}", file=sys.stderr)
