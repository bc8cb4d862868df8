"""The number of usable cores, their use by other processes, and the thread pools."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nnopt.results import cores
from nnopt.results.cores import (
    ProcessorTimes,
    busy_cores,
    cpu_quota,
    processor_times,
    thread_pools,
    ticks_of_all,
    usable_cores,
)

STAT = """\
cpu  60 6 600 9000 0 0 0 7 0 0
cpu0 10 1 100 4000 5 0 0 7 0 0
cpu1 20 2 200 3000 5 0 0 0 0 0
cpu12 30 3 300 2000 5 0 0 0 0 0
intr 5 5 5
"""


def place(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "400000 100000\n"}, 3.0),
        ("0::/a\n", {"a/cpu.max": "nonsense\n"}, None),
        ("0::/a\n", {"a/cpu.max": "100 0\n"}, None),
        (
            "4:cpu,cpuacct:/d\n2:memory:/d\n",
            {"cpu,cpuacct/d/cpu.cfs_quota_us": "200000", "cpu,cpuacct/d/cpu.cfs_period_us": "1e5"},
            None,
        ),
        (
            "4:cpu,cpuacct:/d\n",
            {
                "cpu,cpuacct/d/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("\n:\n", {}, None),
    ],
)
def test_cpu_quota_is_the_smallest_of_a_group_and_its_parents(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    root = place(tmp_path / "cgroup", files)
    path = tmp_path / "membership"
    path.write_text(membership)
    assert cpu_quota(root, path) == quota


def test_cpu_quota_without_control_groups_is_none(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "absent", tmp_path / "no membership") is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 6), (8.0, 6), (2.9, 2), (1.0, 1), (0.3, 1)])
def test_usable_cores_are_limited_by_the_quota_rounded_down(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(cores, "allowed_cores", lambda: frozenset(range(6)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("allowed", "ticks"), [(None, 666), (frozenset({0}), 111), (frozenset({1, 12}), 555)]
)
def test_ticks_of_all_processes_include_only_the_allowed_cores(
    allowed: frozenset[int] | None, ticks: int
) -> None:
    assert ticks_of_all(STAT, allowed) == ticks


@pytest.mark.parametrize(
    ("start", "end", "busy"),
    [
        (ProcessorTimes(10, 100, 5), ProcessorTimes(12, 104, 6), 1.5),
        (ProcessorTimes(10, 100, 5), ProcessorTimes(12, 102, 7), 0.0),
        (ProcessorTimes(10, 100, 5), ProcessorTimes(12, 101.99, 7), 0.0),  # rounding error
        (ProcessorTimes(10, 100, 5), ProcessorTimes(10.01, 100, 5), None),
        (None, ProcessorTimes(10, 100, 5), None),
        (ProcessorTimes(10, 100, 5), None, None),
    ],
)
def test_busy_cores_exclude_the_time_of_this_process(
    start: ProcessorTimes | None, end: ProcessorTimes | None, busy: float | None
) -> None:
    assert busy_cores(start, end) == (None if busy is None else pytest.approx(busy))


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_processor_times_include_this_process() -> None:
    before = processor_times()
    started = time.process_time()
    while time.process_time() < started + 0.05:
        sum(range(1000))
    after = processor_times()
    assert before is not None
    assert after is not None
    assert after.this_process > before.this_process
    assert after.all_processes >= before.all_processes
    assert after.clock > before.clock


def test_thread_pools_are_listed_again_only_after_an_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = thread_pools()
    assert thread_pools() is first
    monkeypatch.setitem(sys.modules, "module_with_threads", types.ModuleType("module_with_threads"))
    assert thread_pools() is not first


def test_cached_thread_pools_report_the_current_number_of_threads() -> None:
    a = np.eye(2)
    assert (a @ a == a).all()  # NumPy has loaded its matrix library
    thread_pools()
    with threadpool_limits(1, user_api="blas"):
        pools = thread_pools().select(user_api="blas").info()
    assert {pool["num_threads"] for pool in pools} == {1}
