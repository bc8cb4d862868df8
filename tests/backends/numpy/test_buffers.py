"""Buffers that several threads request at the same time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from nnopt.backends.numpy.tape import Buffers

THREADS = 4


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Set Python's thread switch interval to one microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_buffers_requested_by_several_threads_are_distinct() -> None:
    buffers, start = Buffers(), Barrier(THREADS)

    def fill(thread: int) -> bool:
        start.wait()
        right = True
        for number in range(800):
            array = buffers(f"array {number} of {thread}", (5,), np.float32)
            array.fill(thread)
            right &= bool((array == thread).all())
        return right

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(fill, range(THREADS)))
