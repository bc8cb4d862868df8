"""Interruptions by signals. They can be postponed until the training's state is consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nnopt.errors import TimeLimitError
from nnopt.terminal.interruption import (
    Interruption,
    Postponed,
    code_of,
    interrupt,
    message_of,
    postpone_interruptions,
    stop_on_signals,
)

REQUESTS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
NUMBERS = (signal.SIGINT, *REQUESTS)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the handlers of the signals in ``NUMBERS`` after the test."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", REQUESTS)
def test_signal_without_postponement_raises_an_exception_at_once(number: signal.Signals) -> None:
    stop_on_signals()
    with pytest.raises(Interruption) as error:
        signal.raise_signal(number)
    assert message_of(error.value) == f"interrupted by {number.name}"
    assert code_of(error.value) == 143


def postponed_signals(
    *numbers: signal.Signals, with_point: bool = False, error: Exception | None = None
) -> Postponed:
    """Send signals within a context of ``postpone_interruptions``, and return the context.

    After the signals, raise ``error`` if it is given. Otherwise, call ``raise_pending`` if
    ``with_point`` is true.
    """
    with postpone_interruptions() as postponed:
        LATEST[:] = [postponed]
        postponed.raise_pending()
        for number in numbers:
            signal.raise_signal(number)
        assert not postponed.was_raised
        LATEST.append("all signals sent")
        if error is not None:
            raise error
        if with_point:
            postponed.raise_pending()
            pytest.fail("nothing was raised")
    return postponed


LATEST: list[Any] = []
"""The latest context of ``postponed_signals``, and texts that record the progress of a test."""


@pytest.mark.parametrize("with_point", [True, False], ids=["at raise_pending", "at the end"])
@pytest.mark.parametrize("number", NUMBERS)
def test_postponed_signal_raises_its_exception_at_raise_pending_or_at_the_end(
    number: signal.Signals, with_point: bool
) -> None:
    stop_on_signals()
    kind = KeyboardInterrupt if number == signal.SIGINT else Interruption
    with pytest.raises(kind) as error:
        postponed_signals(number, with_point=with_point)
    assert code_of(error.value) == (130 if number == signal.SIGINT else 143)
    assert LATEST[1:] == ["all signals sent"]
    assert LATEST[0].was_raised


def test_context_without_a_signal_raises_nothing() -> None:
    stop_on_signals()
    assert not postponed_signals().was_raised


def test_exception_of_postponed_signal_replaces_an_error_in_the_context() -> None:
    """Otherwise a sweep would start its next point if a point failed after Ctrl-C."""
    stop_on_signals()
    with pytest.raises(Interruption, match="SIGTERM"):
        postponed_signals(signal.SIGTERM, error=ValueError("of the step"))


def test_first_of_several_signals_raises_its_exception() -> None:
    stop_on_signals()
    with pytest.raises(Interruption, match="SIGHUP"):
        postponed_signals(signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)


def test_second_ctrl_c_without_handlers_of_nnopt_raises_an_exception_at_once() -> None:
    """A program that calls nnopt as a library has Python's handler of Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        postponed_signals(signal.SIGINT, signal.SIGINT)
    assert LATEST[1:] == []
    assert not LATEST[0].was_raised
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_in_nested_context_raises_no_exception_in_outer_context() -> None:
    stop_on_signals()
    with postpone_interruptions() as outer:
        with pytest.raises(Interruption):
            postponed_signals(signal.SIGTERM)
        outer.raise_pending()


def postponed_limit(limit: TimeLimitError) -> None:
    with postpone_interruptions():
        interrupt(limit)
        LATEST[:] = ["reached"]


def test_time_limit_is_postponed_like_a_signal() -> None:
    limit = TimeLimitError(3, "max_time")
    with pytest.raises(TimeLimitError):
        postponed_limit(limit)
    assert LATEST == ["reached"]
    with pytest.raises(TimeLimitError):
        interrupt(limit)
    assert (code_of(limit), message_of(limit)) == (5, "took longer than max_time = 3 s")


def test_exception_of_signal_after_time_limit_replaces_the_time_limit() -> None:
    """Otherwise a sweep would ignore a Ctrl-C while it saves a point that ran too long."""
    stop_on_signals()
    with pytest.raises(Interruption):
        limited_and_stopped()
    assert LATEST == ["limited"]


def limited_and_stopped() -> None:
    with postpone_interruptions() as postponed:
        interrupt(TimeLimitError(3, "max_time"))
        try:
            postponed.raise_pending()
        except TimeLimitError:
            LATEST[:] = ["limited"]
            signal.raise_signal(signal.SIGTERM)
            raise


def test_context_in_another_thread_keeps_the_handlers() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: list[object] = []

    def work() -> None:
        with postpone_interruptions():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_context_stays_active_when_context_of_another_thread_ends() -> None:
    """The first context ends while the second one is active."""
    contexts, ends, threads = [], [threading.Event(), threading.Event()], []

    def work(begins: threading.Event, end: threading.Event) -> None:
        with postpone_interruptions() as postponed:
            contexts.append(postponed)
            begins.set()
            end.wait(10)

    for end in ends:
        begins = threading.Event()
        threads.append(threading.Thread(target=work, args=(begins, end)))
        threads[-1].start()
        begins.wait(10)
    ends[0].set()
    threads[0].join()
    limit = TimeLimitError(3, "max_time")
    interrupt(limit)
    assert [context.pending for context in contexts] == [None, limit]
    contexts[1].pending = None  # otherwise the thread would raise the limit
    ends[1].set()
    threads[1].join()
    with pytest.raises(TimeLimitError):
        interrupt(limit)


def test_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signals()
    signal.raise_signal(signal.SIGHUP)
