"""librsync's rolling sum with numpy; imported only where numpy is (see `rabin_karp.best_sums`).

Products of 32 bits wrap by themselves, which is the arithmetic that is wanted. Of the sums at all places, those whose
upper 20 bits occur in no known sum are left out by one look-up; what remains is searched in the sorted known sums.
"""

from array import array
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from update.chunks.rabin_karp import INVERSE, MULTIPLIER, Found, powers

_ROWS_BYTES: Final = 1 << 20
_SHIFT: Final = 12


class NumpySums:
    """Some hundred megabytes per second."""

    def __init__(self, block_bytes: int, known: Iterable[int] = (), positions: int = 1) -> None:
        self._size = block_bytes
        self._seed = np.uint32(pow(MULTIPLIER, block_bytes, 1 << 32))
        self._falling = _words(powers(MULTIPLIER, block_bytes))[::-1].copy()
        self._rising = _words(powers(MULTIPLIER, positions)) * self._falling[0]
        self._inverse = _words(powers(INVERSE, positions + block_bytes))
        self._known = np.unique(np.fromiter(known, dtype=np.uint32))
        self._maybe = np.zeros(1 << 32 - _SHIFT, dtype=np.bool_)
        self._maybe[self._known >> _SHIFT] = True

    def of_blocks(self, data: bytes) -> "array[int]":
        """See `WeakSums`."""
        count = len(data) // self._size
        blocks = np.frombuffer(data, dtype=np.uint8, count=count * self._size).reshape(count, self._size)
        sums, step = array("I"), max(_ROWS_BYTES // self._size, 1)
        for first in range(0, count, step):
            products = np.multiply(blocks[first : first + step], self._falling, dtype=np.uint32, casting="unsafe")
            sums.frombytes((products.sum(axis=1, dtype=np.uint32) + self._seed).tobytes())
        return sums

    def find(self, data: bytes) -> Found:
        """See `WeakSums`."""
        count = len(data) - self._size + 1
        if count <= 0 or not self._known.size:
            return array("Q"), array("I")
        totals = np.zeros(len(data) + 1, dtype=np.uint32)
        np.cumsum(np.frombuffer(data, dtype=np.uint8) * self._inverse[: len(data)], dtype=np.uint32, out=totals[1:])
        values = (totals[self._size :] - totals[:count]) * self._rising[:count] + self._seed
        places = np.flatnonzero(self._maybe[values >> _SHIFT])
        sums = values[places]
        at = np.searchsorted(self._known, sums)
        at[at == self._known.size] = 0
        right = self._known[at] == sums
        return array("Q", places[right].astype(np.uint64).tobytes()), array("I", sums[right].tobytes())


def _words(values: "array[int]") -> NDArray[np.uint32]:
    return np.array(values, dtype=np.uint32)
