"""Random numbers as a pure function of (seed, stream, counters).

A counter-based generator, Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3"), needs no state to be carried along: the key is made of the seed and the name of the
stream, the counter of what is being drawn (epoch, step, layer). So a resumed run continues with the
same numbers, one stream's draws never shift another's, and both backends see the same ones.
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
    """The first word counts the draws themselves, the other three say what is drawn."""
    if len(counters) > 3:
        raise ValueError(f"at most three counters fit into Philox, got {len(counters)}")
    return np.array([0, *counters, *[0] * (3 - len(counters))], dtype=np.uint64)


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """A generator of its own for each (seed, stream, counters): at most three, each >= 0."""
    key = np.array(_key(seed, stream), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=_counter(counters)))


class KeepMasks:
    """Dropout masks of one layer, as a pure function of (seed, layer, step).

    A unit is kept where 16 random bits are below ``round((1 - rate) · 65536)``: a quarter of the
    random numbers that one float per unit would take. What is kept is scaled by the inverse of
    that very probability, so the expectation is exact.
    """

    def __init__(self, seed: int, layer: str, rate: float) -> None:
        self._philox = np.random.Philox(key=np.array(_key(seed, f"dropout/{layer}"), np.uint64))
        self._state = self._philox.state
        self._threshold = np.uint16(min(max(round((1 - rate) * 65536), 1), 65535))
        self.scale = 65536 / float(self._threshold)

    def bits(self, step: int, count: int) -> NDArray[np.uint16]:
        """16 random bits for each of ``count`` units."""
        self._state["state"]["counter"][:] = _counter((step,))
        self._philox.state = self._state
        return self._philox.random_raw((count + 3) // 4).view(np.uint16)[:count]

    def draw(self, step: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """True where a unit is kept, in an array of ``shape``."""
        bits = self.bits(step, int(np.prod(shape))).reshape(shape)
        kept: NDArray[np.bool_] = np.less(bits, self._threshold)
        return kept
