"""Random numbers as pure functions of seed, stream and counters."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nnopt.random import DropoutMasks, generator


def draws(seed: int, stream: str, *counters: int) -> list[int]:
    return list(map(int, generator(seed, stream, *counters).integers(0, 2**62, 8)))


def test_generator_with_equal_arguments_gives_equal_numbers() -> None:
    first = draws(1, "shuffle", 3)
    draws(1, "shuffle", 4)
    draws(2, "other")
    assert draws(1, "shuffle", 3) == first


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63 - 1), st.sampled_from(["a", "b", "a/b"]), st.integers(0, 2**40)
        ),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_generator_with_different_arguments_gives_different_numbers(
    keys: list[tuple[int, str, int]],
) -> None:
    assert len({tuple(draws(*key)) for key in keys}) == len(keys)


def test_generator_numbers_of_neighbouring_counters_do_not_overlap() -> None:
    """The numbers of counter 1 are not a later section of the numbers of counter 0."""
    assert not set(generator(0, "x", 0).integers(0, 2**62, 1000)) & set(
        generator(0, "x", 1).integers(0, 2**62, 1000)
    )


def test_generator_refuses_four_counters() -> None:
    with pytest.raises(ValueError, match="at most three counters"):
        generator(0, "x", 1, 2, 3, 4)


def test_generator_in_another_process_gives_equal_numbers() -> None:
    code = "from nnopt.random import generator; print(generator(5, 'é', 2).integers(0, 2**62, 4))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {f"{generator(5, 'é', 2).integers(0, 2**62, 4)}\n"}


def test_generator_with_known_arguments_gives_recorded_numbers() -> None:
    """Results of earlier versions are reproducible only if these numbers never change."""
    assert draws(0, "shuffle", 1)[:2] == [1243839554492595959, 3443511245421753879]
    assert DropoutMasks(0, "dropout1", 0.5).bits(3, 4).tolist() == [36850, 58902, 19502, 45387]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.77, 0.999])
def test_dropout_masks_keep_expected_fraction(rate: float) -> None:
    masks = DropoutMasks(1, "dropout1", rate)
    count = 200_000
    kept = int(masks.draw(0, (count,)).sum())
    spread = (rate * (1 - rate) * count) ** 0.5
    assert abs(kept - (1 - rate) * count) < 5 * spread + count / 65536


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.3, 0.5, 0.9])
def test_dropout_scale_equals_inverse_keep_probability(rate: float) -> None:
    """The scale equals 65,536 divided by the number of 16-bit values that keep a unit."""
    masks = DropoutMasks(0, "x", rate)
    threshold = np.uint16(masks._threshold)
    keeping = np.count_nonzero(np.arange(65536, dtype=np.uint16) < threshold)
    assert keeping * masks.scale == 65536
    assert abs(keeping / 65536 - (1 - rate)) < 1e-5


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_dropout_scale_of_extreme_rate_is_finite(rate: float) -> None:
    assert 1 < DropoutMasks(0, "x", rate).scale <= 65536


def test_dropout_masks_depend_only_on_seed_layer_and_step() -> None:
    masks = DropoutMasks(1, "dropout1", 0.5)
    expected = {step: masks.draw(step, (7, 5)) for step in range(4)}
    for step in (3, 1, 0, 1, 2):  # any order, repetitions and other shapes change nothing
        masks.draw(9, (3,))
        assert_array_equal(masks.draw(step, (7, 5)), expected[step])
        assert_array_equal(DropoutMasks(1, "dropout1", 0.5).draw(step, (7, 5)), expected[step])
    assert (expected[0] != expected[1]).any()
    for other in (DropoutMasks(2, "dropout1", 0.5), DropoutMasks(1, "dropout2", 0.5)):
        assert (other.draw(0, (7, 5)) != expected[0]).any()


@given(count=st.integers(1, 40))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_longer_draw_of_dropout_bits_extends_shorter_draw(count: int) -> None:
    masks = DropoutMasks(1, "x", 0.4)
    assert_array_equal(masks.draw(2, (count,)), masks.draw(2, (64,))[:count])
