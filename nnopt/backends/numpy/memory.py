"""Arrays that begin on a cache line.

NumPy aligns to 16 bytes; a 64-byte vector register then straddles two cache lines at every load,
which doubles the time of an element-wise operation on data in the cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64
"""Bytes, on x86 and most ARM processors."""


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An uninitialized array, C-contiguous, its first element at a multiple of CACHE_LINE."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    array: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return array


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Such an array, of zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array
