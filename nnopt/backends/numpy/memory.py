"""Arrays that start at a cache line.

NumPy aligns arrays to 16 bytes. A 64-byte vector load then usually touches two cache lines, which
doubles the time of an element-wise operation on data in the cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE_BYTES = 64
"""Size of a cache line in bytes, on x86 and most ARM processors."""


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an uninitialized C-contiguous array, aligned to CACHE_LINE_BYTES."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE_BYTES
    array: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return array


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return a C-contiguous array of zeros, aligned to CACHE_LINE_BYTES."""
    array = empty(shape, dtype)
    array.fill(0)
    return array
