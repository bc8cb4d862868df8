"""Functions shared by the benchmarks: processes, turns, ratios, and tables with targets."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

NNOPT = Path(sysconfig.get_path("scripts")) / "nnopt"

Result = TypeVar("Result")


# processes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """Wall time, processor time, peak resident memory and output of a finished process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def run_command(*command: object, exit_code: int = 0, **options: Any) -> Process:
    """Run a command and measure it from its start to its end.

    Args:
        command: Program and arguments.
        exit_code: Expected exit code; any other ends the benchmark.
        options: Options of ``subprocess.Popen``, such as ``cwd`` and ``env``.
    """
    arguments = list(map(str, command))
    options.setdefault("stderr", subprocess.STDOUT)
    started = time.perf_counter()
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, **options) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != exit_code:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}\n{output}")
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output)


def run_nnopt(*arguments: object, **options: Any) -> Process:
    """Run ``nnopt`` with these arguments and measure it."""
    return run_command(NNOPT, *arguments, **options)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_summaries(sweep: Path) -> dict[Path, dict[str, Any]]:
    """Return a map from the folder of each run of a sweep to its summary, sorted by seed."""
    paths = sweep.glob("*/summary.json")
    summaries = {path.parent: json.loads(path.read_text("utf-8")) for path in paths}
    return dict(sorted(summaries.items(), key=lambda item: item[1]["seed"]))


# turns --------------------------------------------------------------------------------------------


def take_turns(
    *functions: Callable[[], object], turns: int, turn_seconds: float
) -> list[list[list[float]]]:
    """Call the functions in turns, so that a drift of the machine's speed affects all of them.

    Args:
        functions: The functions to compare.
        turns: Number of turns of each function.
        turn_seconds: Seconds of a turn. A function is called at least twice in each turn.

    Returns:
        Seconds of each call, indexed by function, turn and call.
    """
    seconds: list[list[list[float]]] = [[] for _ in functions]
    for _ in range(turns):
        for function, measured in zip(functions, seconds, strict=True):
            calls: list[float] = []
            end = time.perf_counter() + turn_seconds
            while (started := time.perf_counter()) < end or len(calls) < 2:
                function()
                calls.append(time.perf_counter() - started)
            measured.append(calls)
    return seconds


def compare_with_fastest(
    function: Callable[[], object],
    *references: Callable[[], object],
    turns: int = 25,
    turn_seconds: float = 0.15,
) -> tuple[float, float, float]:
    """Let a function and its references take turns.

    Returns:
        Median seconds of the fastest reference, median seconds of the function, and the median over
        turns of the function's time divided by that reference's. The time of a turn is the median
        of its calls.
    """
    measured = take_turns(*references, function, turns=turns, turn_seconds=turn_seconds)
    *others, own = [[statistics.median(turn) for turn in each] for each in measured]
    fastest = min(others, key=statistics.median)
    return statistics.median(fastest), statistics.median(own), paired_ratio(own, fastest)


def alternate(
    functions: Mapping[str, Callable[[], Result]], rounds: int, warmup: int = 0
) -> dict[str, list[Result]]:
    """Call each function once per round; return the results of the rounds after the warm-up."""
    results: dict[str, list[Result]] = {name: [] for name in functions}
    for _ in range(warmup + rounds):
        for name, function in functions.items():
            results[name].append(function())
    return {name: measured[warmup:] for name, measured in results.items()}


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Compute numerator / denominator for each turn, and return the median."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


# output -------------------------------------------------------------------------------------------


class Table:
    """A table whose rows are printed as they are measured, with a target in the last column.

    Attributes:
        missed: Whether a row has missed its target.
    """

    def __init__(self, *header: str, label_width: int = 26, target: str = "target") -> None:
        self.missed = False
        self._widths = [label_width, *(max(len(title), 9) for title in header[1:])]
        self._print([*header, target])

    def row(self, *cells: str, value: float = math.nan, **target: float) -> None:
        """Print a row.

        Args:
            cells: Texts of the first columns. The other columns are empty, except the last one,
                which shows the target.
            value: The number to compare with the target.
            target: ``at_most=`` or ``at_least=`` and a number; none if the row has no target.
        """
        verdict = ""
        for kind, limit in target.items():
            is_met = value <= limit if kind == "at_most" else value >= limit
            self.missed |= not is_met
            verdict = f"{kind.replace('_', ' ')} {limit:g} {'ok' if is_met else 'MISSED'}"
        missing = len(self._widths) - len(cells)
        self._print([*cells, *[""] * missing, verdict])

    def _print(self, cells: Sequence[str]) -> None:
        label, *others = self._widths
        texts = [f"{cells[0]:<{label}}"]
        texts += [f"{cell:>{width}}" for cell, width in zip(cells[1:-1], others, strict=True)]
        print(" ".join([*texts, f" {cells[-1]}"]).rstrip(), flush=True)


def machine_line() -> str:
    """Return a line with the processor, its cores, and the versions of Python and the libraries."""
    from nnopt.results.environment import machine, versions

    facts = machine()
    cores = f"{facts['usable_cores']} of {facts['logical_cores']} cores"
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{facts['cpu']}, {cores}; {libraries}"


def mean_and_std(values: Sequence[float], decimals: int) -> str:
    """Return a text such as ``98.31 ± 0.06``, or ``98.31`` for a single value."""
    mean = f"{statistics.mean(values):.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"
