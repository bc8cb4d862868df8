"""Random numbers as a pure function of (seed, stream, counters).

The generator is counter-based: Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"). The key is a hash of the seed and the name of the stream. The counter consists of
integers such as epoch and step. No state is kept between steps. Therefore a resumed run continues
with the same numbers, draws from one stream do not change other streams, and both backends draw the
same numbers.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=256)
def _key(seed: int, stream: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def _counter(counters: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return Philox's 256-bit counter: one word that counts draws, then the ``counters``."""
    if len(counters) > 3:
        raise ValueError(f"at most three counters fit into Philox, got {len(counters)}")
    return np.array([0, *counters, *[0] * (3 - len(counters))], dtype=np.uint64)


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Return the random number generator of (seed, stream, counters).

    Args:
        seed: The seed of the run.
        stream: The name of the stream, for example ``"shuffle"``.
        counters: At most three integers >= 0, for example epoch and step.

    Raises:
        ValueError: There are more than three counters.
    """
    key = np.array(_key(seed, stream), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=_counter(counters)))


class DropoutMasks:
    """Dropout masks of one layer, as a pure function of (seed, layer, step).

    A unit is kept if a 16-bit random integer is below ``round((1 - rate) · 65536)``. Drawing a
    float64 for each unit would need four times as many random bits. ``scale`` is the inverse of the
    exact probability of keeping a unit, so that the expected output equals the input.

    Args:
        seed: The seed of the run.
        layer: The name of the layer.
        rate: The probability of dropping a unit.
    """

    def __init__(self, seed: int, layer: str, rate: float) -> None:
        self._philox = np.random.Philox(key=np.array(_key(seed, f"dropout/{layer}"), np.uint64))
        self._state = self._philox.state
        self._threshold = np.uint16(min(max(round((1 - rate) * 65536), 1), 65535))
        self.scale = 65536 / float(self._threshold)

    def bits(self, step: int, count: int) -> NDArray[np.uint16]:
        """Return a 16-bit random integer for each of ``count`` units, shape (count,)."""
        self._state["state"]["counter"][:] = _counter((step,))
        self._philox.state = self._state
        return self._philox.random_raw((count + 3) // 4).view(np.uint16)[:count]

    def draw(self, step: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return a boolean array of shape ``shape``. It is True for the units that are kept."""
        keep: NDArray[np.bool_] = np.less(
            self.bits(step, int(np.prod(shape))).reshape(shape), self._threshold
        )
        return keep
