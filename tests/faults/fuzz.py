"""Damage one file at a time, run the command that reads it, and check the outcome.

    python tests/faults/fuzz.py --count 300 --seed 0

Each attempt copies a small folder of runs and data, the workplace. It damages one file in the copy
and runs one command in a child process. The kinds of damage are bit flips, truncation, swapped or
removed bytes, another file's content, and wrong types with a correct checksum. The command must
refuse the file in one line, repair it, or be unaffected by it. An attempt fails on a wrong result,
a traceback, a hang, far more memory than with the undamaged file, or a change outside the copy.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnopt.results import checkpoint_file
from nnopt.results.summary import values_digest

SECONDS = 30
"""A command that takes longer counts as a hang; undamaged files take under 2 s."""

EXTRA_MEMORY = 64 * 2**10
"""KiB of memory that a command may use in addition to its peak with the undamaged, small file."""

EXIT_CODES = (0, 2, 3, 4, 5, 6)

Random = random.Random


@dataclass(frozen=True)
class Report:
    """Exit code, output, peak memory and result of one command. ``code`` is None after a hang."""

    code: int | None
    out: str
    err: str
    peak_kib: int
    result: Any


@dataclass(frozen=True)
class Target:
    """A kind of file, a command that reads it, and the correct result.

    file: a glob pattern below the workplace. result: a function that the child process calls after
    the command, in the workplace. reference: an independent reader of the damaged file, which
    returns the correct result or raises ValueError. Without a reference, the result of the
    undamaged file is correct. damages: the kinds of damage in addition to ``BYTE_DAMAGES``. With
    ``is_exact``, any other result than the correct one is wrong, even if a message names the file.
    """

    name: str
    file: str
    words: tuple[str, ...]
    result: Callable[[], Any]
    reference: Callable[[Path], Any] | None = None
    damages: tuple[str, ...] = ()
    is_exact: bool = False

    @property
    def title(self) -> str:
        return f"{self.name}: nnopt {' '.join(self.words)}"


# Kinds of damage ---------------------------------------------------------------------------------


def flip_bits(data: bytes, rng: Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(data: bytes, rng: Random) -> bytes:
    return data[: rng.choice((0, 1, 10, len(data) // 2, len(data) - 1, rng.randrange(len(data))))]


def remove_range(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :]


def repeat_range(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data))
    end = start + rng.randrange(1, 200)
    return data[:end] + data[start:end] * rng.choice((1, 3)) + data[end:]


def swap_ranges(data: bytes, rng: Random) -> bytes:
    middle = rng.randrange(len(data))
    return data[middle:] + data[:middle]


def insert_noise(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data))
    noise = rng.choice(
        (b"\0" * 50, b"\xff\xfe", b"\n\n", rng.randbytes(30), b"9" * 5_000, b"{[" * 400)
    )
    return data[:start] + noise + data[start:]


def replace_all(data: bytes, rng: Random) -> bytes:
    others = (
        b"[]",
        b"{}",
        b"null",
        b"3",
        b"<html>busy</html>",
        rng.randbytes(200),
        b"PK\x03\x04",
        b'"x"',
    )
    return rng.choice(others)


BYTE_DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "flip bits": flip_bits,
    "truncate": truncate,
    "remove bytes": remove_range,
    "repeat bytes": repeat_range,
    "swap halves": swap_ranges,
    "insert bytes": insert_noise,
    "replace content": replace_all,
}

WRONG_VALUES: tuple[Any, ...] = (
    *("x", "../../x", "\u001b[2J", -1, 10**30, 1e308, True),
    *([], {}, [[]], {"a": 1}, [1, "a"], {"name": {}}),
)


def wrong_type(value: Any, rng: Random, depth: int = 0) -> Any:
    """Replace one entry of the value, at a random depth, by an entry of another type."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        key = rng.choice(sorted(value))
        return {**value, key: wrong_type(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and (depth == 0 or rng.random() < 0.8):
        index = rng.randrange(len(value))
        return [*value[:index], wrong_type(value[index], rng, depth + 1), *value[index + 1 :]]
    return rng.choice([wrong for wrong in WRONG_VALUES if _kind(wrong) != _kind(value)])


def _kind(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number else type(value).__name__


def sign_sweep(value: dict[str, Any]) -> bytes:
    """Return the bytes of a new ``sweep.json`` with these values and a correct checksum."""
    body = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items() if key != "sha256"
    )
    return f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}",\n{body}}}\n'.encode()


def retype_sweep(data: bytes, rng: Random) -> bytes:
    return sign_sweep(wrong_type({k: v for k, v in json.loads(data).items() if k != "sha256"}, rng))


def retype_model(data: bytes, rng: Random) -> bytes:
    """Replace a value of ``model.json`` by a value of the wrong type, with a correct checksum."""
    values = wrong_type({k: v for k, v in json.loads(data).items() if k != "sha256"}, rng)
    return json.dumps(values | {"sha256": values_digest(values)}).encode()


def retype_lines(data: bytes, rng: Random) -> bytes:
    """Replace a value in one line of a JSON Lines file by a value of the wrong type."""
    lines = data.splitlines()
    index = rng.randrange(len(lines))
    lines[index] = json.dumps(wrong_type(json.loads(lines[index]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def retype_cell(data: bytes, rng: Random) -> bytes:
    """Replace the value of one cell of a CSV file by a wrong value."""
    rows = data.splitlines()
    index = rng.randrange(len(rows))
    cells = rows[index].split(b",")
    wrong = (
        b"",
        b"x",
        b"nan",
        b"inf",
        b"1e999",
        b"=1+1",
        b'"',
        b"\0",
        b"1;2",
        b"-",
        b"0x10",
        b"1_0",
    )
    cells[rng.randrange(len(cells))] = rng.choice(wrong)
    rows[index] = b",".join(cells)
    return b"\n".join(rows) + b"\n"


def sign_checkpoint(values: Any, arrays: dict[str, Any]) -> bytes:
    """Return the bytes of a new checkpoint with a correct checksum."""
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    arrays = {"values": text, **arrays}
    file = io.BytesIO()
    np.savez(file, sha256=checkpoint_file._digest(arrays), **arrays)
    return file.getvalue()


ARRAY_DAMAGES: tuple[Callable[[Any], Any], ...] = (
    lambda array: array.astype(np.float64 if array.dtype != np.float64 else np.float32),
    lambda array: array.astype(np.int16),
    lambda array: array.reshape(1, *array.shape),
    lambda array: np.zeros(()),
    lambda array: np.zeros((0, 3), array.dtype),
    lambda array: np.concatenate([array.ravel(), np.ones(1000, array.dtype)]),
)


def retype_checkpoint(data: bytes, rng: Random) -> bytes:
    """Return a checkpoint with another format, a value of the wrong type, or a wrong array."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files if name != "sha256"}
    values = json.loads(arrays.pop("values").tobytes())
    kind, name = rng.choice(("format", "value", "value", "array", "array")), rng.choice([*arrays])
    if kind == "format":
        values["format"] += 1
    elif kind == "value":
        values = wrong_type(values, rng)
    elif rng.random() < 0.2:
        arrays[f"{name}2"] = arrays.pop(name)
    else:
        arrays[name] = rng.choice(ARRAY_DAMAGES)(arrays[name])
    return sign_checkpoint(values, arrays)


TYPE_DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "wrong type, signed sweep": retype_sweep,
    "wrong type, signed model": retype_model,
    "wrong type, JSON line": retype_lines,
    "wrong cell": retype_cell,
    "wrong type, signed checkpoint": retype_checkpoint,
}


def damage(target: Target, data: bytes, others: Sequence[bytes], rng: Random) -> tuple[str, bytes]:
    """Damage ``data`` at random; return the name of the damage and the changed content."""
    while True:
        name = rng.choice((*BYTE_DAMAGES, "another file", *target.damages, *target.damages))
        if name == "another file":
            damaged = rng.choice(others)
        elif name == "another checkpoint":
            damaged = rng.choice([x for x in others if b"sha256.npy" in x[:50]])
        else:
            damaged = (BYTE_DAMAGES | TYPE_DAMAGES)[name](data, rng)
        if damaged != data:
            return name, damaged


# Commands in child processes ---------------------------------------------------------------------


def run_command(workplace: Path, arguments: Sequence[str], result: Callable[[], Any]) -> Report:
    """Run a command in a forked child, whose current folder is the workplace."""
    files = {
        name: workplace.parent / f"{workplace.name}.{name}" for name in ("out", "err", "result")
    }
    child = os.fork()
    if child == 0:
        _be_child(workplace, arguments, result, files)
    deadline, code = time.monotonic() + SECONDS, None
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            break
        time.sleep(0.005)
    out, err = (files[name].read_text(errors="replace") for name in ("out", "err"))
    found = json.loads(files["result"].read_text()) if files["result"].exists() else None
    for path in files.values():
        path.unlink(missing_ok=True)
    return Report(code, out, err, usage.ru_maxrss, found)


def _be_child(
    workplace: Path, arguments: Sequence[str], result: Callable[[], Any], files: dict[str, Path]
) -> None:
    """Run the command in the child process, write its output to ``files``, and end the process."""
    code = 99
    try:
        os.setsid()
        os.chdir(workplace)
        for number, name in ((1, "out"), (2, "err")):
            descriptor = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        from nnopt.cli.main import run_verb

        code = run_verb(list(arguments))
        if code == 0:
            files["result"].write_text(json.dumps(result()))
    except BaseException as error:
        print(f"Traceback, not caught by nnopt: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def problem(target: Target, before: Report, after: Report, expected: Any) -> str | None:
    """Return the reason why an outcome is wrong, or None for a correct outcome.

    before, after: reports of the command with the undamaged and with the damaged file. expected:
    the correct result, or ValueError if the command must refuse the file.
    """
    printed = after.out + after.err
    if after.code is None:
        return f"took longer than {SECONDS} s"
    if "Traceback" in printed or "a bug in nnopt" in printed or after.code not in EXIT_CODES:
        return f"exit code {after.code}"
    if after.peak_kib > before.peak_kib + EXTRA_MEMORY:
        return f"{after.peak_kib >> 10} MiB of memory instead of {before.peak_kib >> 10}"
    if after.code != 0:
        messages = [line for line in after.err.splitlines() if line.startswith("nnopt: error: ")]
        if not messages or max(map(len, messages)) > 2_000:
            return f"exit code {after.code} without a message of one short line"
        return None
    file = Path(target.file).name.lstrip("*")
    names_file = file in printed or "is damaged" in printed
    if isinstance(expected, ValueError):
        return None if names_file else f"accepted a file that is wrong: {expected}"
    is_explained = not target.is_exact and (names_file or file in str(after.result))
    if after.result != expected and not is_explained:
        return f"another result without a message: {difference(after.result, expected)}"
    return None


def difference(found: Any, expected: Any, place: str = "") -> str:
    """Return the first place where two results differ, with both values."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        pairs = ((f"{place}.{key}", found[key], expected[key]) for key in expected)
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = (
            (f"{place}[{k}]", *both) for k, both in enumerate(zip(found, expected, strict=True))
        )
    else:
        return f"{place} is {str(found)[:200]}, not {str(expected)[:200]}"
    return next(difference(a, b, where) for where, a, b in pairs if a != b)


# Attempts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One attempt and, if its outcome is wrong, the reason."""

    target: Target
    damage: str
    seed: int
    report: Report
    problem: str | None

    def __str__(self) -> str:
        lines = f"{self.report.out}{self.report.err}".strip().splitlines()
        verdict = f"WRONG: {self.problem}" if self.problem else "right"
        head = f"[{self.seed}] {self.target.title}; {self.damage}: {self.report.code}, {verdict}"
        return "\n    ".join([head, *(lines[-12:] if self.problem else ())])


class Fuzzer:
    """A sequence of attempts, each in a new copy of the workplace.

    The same seed and targets give the same attempt.
    """

    def __init__(self, folder: Path, targets: Sequence[Target]) -> None:
        from fuzz_targets import build_workplace, small_cifar_files

        _import_early()
        small_cifar_files()
        self._folder, self._targets = folder, targets
        self._canary = folder / "outside" / "canary.txt"
        self._canary.parent.mkdir()
        self._canary.write_text("not to be touched")
        self._original = folder / "original"
        build_workplace(self._original)
        self._undamaged: dict[str, Report] = {}

    def attempt(self, seed: int) -> Outcome:
        """Damage one file, chosen by the seed, and check the outcome of its command."""
        rng = random.Random(seed)
        target = self._targets[seed % len(self._targets)]
        before = self._before(target)
        with self._copy() as workplace:
            path = rng.choice(sorted(workplace.glob(target.file)))
            others = [x.read_bytes() for x in sorted(workplace.rglob("*.*")) if x.is_file()]
            name, content = damage(target, path.read_bytes(), others, rng)
            path.write_bytes(content)
            expected: Any = before.result
            if target.reference:
                try:
                    expected = json.loads(json.dumps(target.reference(path)))
                except ValueError as error:
                    expected = error
            report = run_command(workplace, target.words, target.result)
            reason = problem(target, before, report, expected)
        if sorted(self._canary.parent.iterdir()) != [self._canary]:
            reason = "wrote outside the workplace"
        return Outcome(target, f"{name} of {path.name}", seed, report, reason)

    def _before(self, target: Target) -> Report:
        """Return the report of the target's command with undamaged files."""
        if target.title not in self._undamaged:
            with self._copy() as workplace:
                report = run_command(workplace, target.words, target.result)
            if report.code != 0:
                raise RuntimeError(
                    f"{target.title} fails with undamaged files: {report.out}{report.err}"
                )
            self._undamaged[target.title] = report
        return self._undamaged[target.title]

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        workplace = self._folder / "workplace"
        shutil.copytree(self._original, workplace)
        yield workplace
        shutil.rmtree(workplace)


def _import_early() -> None:
    """Import the modules that every child process needs."""
    import pandas  # noqa: F401


def main() -> int:
    """Run the attempts that the command line selects; return 1 if an outcome is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="attempts (default: 300)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first attempt (default: 0)"
    )
    parser.add_argument("--only", default="", help="targets whose title contains this text")
    parser.add_argument("--verbose", action="store_true", help="print right outcomes too")
    options = parser.parse_args()
    from fuzz_targets import TARGETS

    targets = [target for target in TARGETS if options.only in target.title]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), targets)
        for seed in range(options.seed, options.seed + options.count):
            outcome = fuzzer.attempt(seed)
            wrong += outcome.problem is not None
            if outcome.problem or options.verbose:
                print(outcome, flush=True)
    print(f"{options.count} damaged files, {wrong} wrong outcomes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.modules["fuzz"] = sys.modules["__main__"]
    sys.exit(main())
