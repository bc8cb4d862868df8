"""Run ``fuzz.py`` with one damaged file for each kind of file and each command that reads it."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fuzz import Fuzzer, Report, Target, problem, retype_sweep, sign_sweep
from fuzz_targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts child processes with fork")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"), TARGETS)


@pytest.mark.parametrize("seed", range(len(TARGETS)), ids=lambda seed: TARGETS[seed].title)
def test_command_with_damaged_file_is_refused_or_right(fuzzer: Fuzzer, seed: int) -> None:
    outcome = fuzzer.attempt(seed)
    assert outcome.problem is None, str(outcome)


TARGET = Target("summary", "run/summary.json", ("compare", "run"), lambda: None)
BEFORE = Report(0, "", "", 50_000, {"loss": 0.5})
REFUSED = Report(4, "", "nnopt: error: run/summary.json is damaged\n", 50_000, None)

WRONG_OUTCOMES = {
    "another result": replace(BEFORE, result={"loss": 0.7}),
    "hang": replace(BEFORE, code=None),
    "traceback": replace(BEFORE, err="Traceback (most recent call last):"),
    "bug": replace(REFUSED, code=1, err="nnopt: a bug in nnopt: KeyError"),
    "no message": replace(REFUSED, err=""),
    "long message": replace(REFUSED, err="nnopt: error: " + "x" * 5_000),
    "memory": replace(BEFORE, peak_kib=500_000),
    "killed": replace(BEFORE, code=-9),
}


@pytest.mark.parametrize("report", WRONG_OUTCOMES.values(), ids=WRONG_OUTCOMES)
def test_wrong_outcome_is_a_problem(report: Report) -> None:
    assert problem(TARGET, BEFORE, report, BEFORE.result) is not None


def test_right_outcome_is_no_problem() -> None:
    noted = replace(BEFORE, err="nnopt: summary.json is left out", result={})
    for report in (BEFORE, REFUSED, noted):
        assert problem(TARGET, BEFORE, report, BEFORE.result) is None


def test_accepted_wrong_file_is_a_problem() -> None:
    assert problem(TARGET, BEFORE, BEFORE, ValueError("no table")) is not None


def test_wrong_result_of_exact_target_is_a_problem() -> None:
    noted = replace(BEFORE, err="nnopt: summary.json is damaged", result={"loss": 0.7})
    assert problem(TARGET, BEFORE, noted, BEFORE.result) is None
    exact = replace(TARGET, is_exact=True)
    assert problem(exact, BEFORE, noted, BEFORE.result) is not None


def test_retyped_sweep_has_correct_checksum() -> None:
    signed = sign_sweep({"format": 1, "points": []})
    for seed in range(20):
        found = retype_sweep(signed, random.Random(seed))
        body = found.partition(b",\n")[2][: -len(b"}\n")]
        assert hashlib.sha256(body).hexdigest() == json.loads(found)["sha256"]
        assert json.loads(found) != json.loads(signed)
