"""Chunks of work in a pool of threads."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nnopt.backends.numpy import threads
from nnopt.backends.numpy.threads import SERIAL, ThreadPool, chunk_slices, default_threads


def blas_threads() -> set[int]:
    return {library.get_num_threads() for library in threads._blas_libraries()}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("chunks", [0, 1, 2, 50])
def test_map_computes_every_chunk_once(count, chunks):
    done, workers = [], ThreadPool(count)

    def task(worker: int, chunk: int) -> None:
        assert 0 <= worker < count
        done.append(chunk)

    workers.map(task, range(chunks))
    assert sorted(done) == list(range(chunks))


def test_chunks_of_one_worker_run_one_after_another():
    busy = [threading.Lock() for _ in range(3)]

    def task(worker: int, chunk: int) -> None:
        assert busy[worker].acquire(blocking=False)
        np.linalg.norm(np.ones((100, 100)) @ np.ones((100, 100)))
        busy[worker].release()

    ThreadPool(3).map(task, range(200))


def test_map_runs_two_threads_at_once():
    meet = threading.Barrier(2, timeout=30)
    places: list[int] = []
    ThreadPool(2).map(lambda worker, chunk: places.append(meet.wait()), range(2))
    assert sorted(places) == [0, 1]


def test_threads_end_with_their_pool():
    before = set(threading.enumerate())

    def threads_of(workers: ThreadPool) -> set[threading.Thread]:
        workers.map(lambda _, chunk: workers.scratch("a", (2,), np.float32).fill(chunk), range(5))
        return set(threading.enumerate()) - before

    workers = ThreadPool(3)
    threads = threads_of(workers)
    assert len(threads) == 2
    assert threads_of(workers) == threads
    del workers
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


def test_map_limits_blas_to_one_thread_until_it_returns():
    seen: set[int] = set()
    with threadpool_limits(2, user_api="blas"):
        for chunks in (1, 4):
            ThreadPool(2).map(lambda worker, chunk: seen.update(blas_threads()), range(chunks))
        assert seen == {1}
        assert blas_threads() == {2}


def test_map_does_not_wait_for_a_thread_without_a_chunk():
    """The test keeps the pool's second thread busy, as on a machine whose cores are all in use."""
    workers, release = ThreadPool(2), threading.Event()
    workers.map(lambda worker, chunk: None, range(2))  # this call starts the second thread
    workers._tasks.put(lambda: release.wait(30) and None)
    while not workers._tasks.empty():
        time.sleep(0.001)
    try:
        done: list[tuple[int, int]] = []
        for _ in range(3):
            workers.map(lambda worker, chunk: done.append((worker, chunk)), range(5))
        assert done == [(0, chunk) for chunk in range(5)] * 3
        assert workers._tasks.empty()
    finally:
        release.set()


def test_map_waits_for_a_chunk_that_another_thread_has_started():
    workers, started = ThreadPool(2), threading.Event()
    done = []

    def task(worker: int, chunk: int) -> None:
        if worker == 0:
            assert started.wait(30)  # wait at most 30 s until the second thread has a chunk
        else:
            started.set()
            time.sleep(0.1)
        done.append(chunk)

    workers.map(task, range(2))
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("faulty", [0, 1, 2, 3])
def test_map_raises_error_of_any_thread_and_restores_blas_threads(faulty):
    def task(worker: int, chunk: int) -> None:
        if chunk == faulty:
            raise ZeroDivisionError(chunk)

    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        ThreadPool(2).map(task, range(4))
    assert blas_threads() == before


def test_errstate_applies_in_every_thread():
    states, meet = [], threading.Barrier(2, timeout=30)

    def task(worker: int, chunk: int) -> None:
        meet.wait()
        states.append(np.geterr()["over"])

    with np.errstate(over="ignore"):
        ThreadPool(2).map(task, range(2))
    assert states == ["ignore", "ignore"]


def test_scratch_memory_is_separate_for_each_thread_and_reused():
    workers, meet = ThreadPool(2), threading.Barrier(2, timeout=30)
    first: dict[int, np.ndarray] = {}

    def task(worker: int, chunk: int) -> None:
        meet.wait()
        first[worker] = workers.scratch("a", (4, 5), np.float32)

    workers.map(task, range(2))
    assert not np.shares_memory(first[0], first[1])
    assert not np.shares_memory(first[0], workers.scratch("b", (4, 5), np.float32))
    smaller = workers.scratch("a", (3,), np.float32)
    assert np.shares_memory(first[0], smaller)
    assert smaller.shape == (3,)
    assert workers.scratch("a", (100, 100), np.float32).shape == (100, 100)
    assert workers.scratch("a", (3,), np.float64).dtype == np.float64


def test_cached_views_are_created_again_after_memory_has_grown() -> None:
    workers, made = ThreadPool(1), []

    def halves(own: ThreadPool, size: int) -> tuple[np.ndarray, np.ndarray]:
        made.append(size)
        whole = own.scratch("a", (size,), np.float32)
        return whole[: size // 2], whole[size // 2 :]

    first = workers.cached(halves, 4)
    assert workers.cached(halves, 4) is first
    assert made == [4]
    larger = workers.cached(halves, 6)
    again = workers.cached(halves, 4)
    assert made == [4, 6, 4]
    assert np.shares_memory(again[0], larger[0])
    assert not np.shares_memory(again[0], first[0])


@pytest.mark.parametrize(
    ("count", "largest", "sizes"), [(10, 4, [3, 4, 3]), (8, 4, [4, 4]), (3, 9, [3]), (1, 1, [1])]
)
def test_chunk_slices_have_similar_sizes_within_the_limit(count, largest, sizes):
    chunks = chunk_slices(count, largest)
    assert sorted(x.stop - x.start for x in chunks) == sorted(sizes)
    assert [i for x in chunks for i in range(x.start, x.stop)] == list(range(count))


def test_serial_pool_uses_the_calling_thread():
    names = []
    SERIAL.map(lambda worker, chunk: names.append(threading.current_thread()), range(3))
    assert set(names) == {threading.current_thread()}


def test_default_number_of_threads_is_that_of_the_matrix_library(monkeypatch):
    with threadpool_limits(1):
        assert default_threads() == 1
    monkeypatch.setattr(threads, "_blas_libraries", list)
    assert default_threads() >= 1
