"""A part of ``fuzz.py``: one damaged file for each kind of file and command that reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from fuzz import Fuzzer
from fuzz_targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts child processes with fork")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"), TARGETS)
