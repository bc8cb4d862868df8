"""Alignment of the NumPy backend's arrays to cache lines."""

import numpy as np
import pytest

from nnopt.backends.numpy.memory import CACHE_LINE_BYTES, empty, zeros
from nnopt.backends.numpy.tape import Buffers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.bool_, np.int32])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (128, 1024)])
def test_arrays_are_aligned_contiguous_and_of_the_requested_shape(shape, dtype):
    for array in (empty(shape, dtype), zeros(shape, dtype), Buffers()("y", shape, dtype)):
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.ctypes.data % CACHE_LINE_BYTES == 0 or array.size == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_zeros_contain_only_zeros():
    assert not zeros((1000,), np.float32).any()


def test_buffers_of_several_batch_sizes_share_memory():
    buffers = Buffers()
    small = buffers("y", (3, 5), np.float32)
    large = buffers("y", (8, 5), np.float32)
    assert not np.shares_memory(small, large)
    assert np.shares_memory(buffers("y", (3, 5), np.float32), large)
    assert np.shares_memory(buffers("y", (4, 2, 5), np.float32), large)
    assert buffers("y", (8, 5), np.float32) is large
    assert not np.shares_memory(buffers("z", (3, 5), np.float32), large)
