"""The note about threads at the start of a run or sweep."""

from __future__ import annotations

import pytest

from nnopt.backends.thread_choice import ThreadChoice
from nnopt.recipe.thread_notes import thread_note
from nnopt.schema import PoolConfig, SequentialConfig

HERE = SequentialConfig("sequential")


def pool(workers: int | None = None, threads: int | None = None) -> PoolConfig:
    return PoolConfig("pool", workers, threads, timeout=None, devices=None)


def by_rule(count: int) -> list[ThreadChoice]:
    return [ThreadChoice(1, "work"), ThreadChoice(count, "work")]


def forced(count: int) -> list[ThreadChoice]:
    return [ThreadChoice(count, "backend.threads")]


@pytest.mark.parametrize(
    ("choices", "launcher", "cores", "busy"),
    [
        (by_rule(1), HERE, 2, 2.0),  # a single thread never waits for another thread
        (by_rule(2), HERE, 2, None),
        (by_rule(2), HERE, 2, 0.3),
        (by_rule(2), HERE, 8, 6.2),
        (forced(2), HERE, 2, 0.0),
        (by_rule(2), pool(), 2, 2.0),  # two workers with one thread each
        (by_rule(8), pool(workers=2), 8, 0.0),
        (forced(1), pool(workers=2, threads=4), 2, 0.0),
        (by_rule(1), pool(workers=2, threads=4), 2, 0.0),
        (by_rule(1), pool(workers=8), 8, 7.0),
    ],
)
def test_thread_note_is_omitted_if_threads_do_not_wait_for_cores(
    choices: list[ThreadChoice], launcher: object, cores: int, busy: float | None
) -> None:
    assert thread_note(choices, 10, launcher, cores, busy) is None


@pytest.mark.parametrize(
    ("choices", "points", "launcher", "cores", "fragments"),
    [
        (forced(8), 1, HERE, 2, ["backend.threads = 8", "2 cores", "backend.threads=2"]),
        (forced(2), 1, HERE, 1, ["the 1 core that", "backend.threads=1"]),
        (by_rule(1), 9, pool(4), 2, ["workers = 4 is", "hydra.launcher.workers=2"]),
        (by_rule(4), 9, pool(4, 2), 4, ["threads = 2 is", "hydra.launcher.workers=2"]),
        (forced(3), 9, pool(2), 4, ["backend.threads = 3 is", "hydra.launcher.workers=1"]),
        (forced(9), 1, pool(4), 4, ["backend.threads = 9", "backend.threads=4"]),
    ],
)
def test_thread_note_about_too_many_threads_contains_the_key(
    choices: list[ThreadChoice], points: int, launcher: object, cores: int, fragments: list[str]
) -> None:
    message = thread_note(choices, points, launcher, cores, None)
    assert message is not None
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message


@pytest.mark.parametrize(
    ("choices", "launcher", "cores", "busy"),
    [
        (by_rule(2), HERE, 2, 1.4),
        (forced(2), HERE, 2, 0.9),
        (by_rule(4), HERE, 8, 5.0),
        (by_rule(4), pool(2), 8, 1.0),
    ],
)
def test_thread_note_on_busy_machine_proposes_one_thread(
    choices: list[ThreadChoice], launcher: object, cores: int, busy: float
) -> None:
    message = thread_note(choices, 10, launcher, cores, busy)
    assert message is not None
    assert message.startswith(f"other processes use {busy:.1f} of the {cores} cores")
    assert "backend.threads=1" in message
