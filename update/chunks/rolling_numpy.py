"""The rolling hash over whole blocks with numpy; imported only where numpy is (see `rolling.numpy_search`).

One look-up gives the hash of two bytes. Pairs that begin at even positions and pairs that begin at odd ones are kept
as two runs of one array: every further distance (2, 4, 8, 16, 32) is even, so the runs never mix, and each step is one
operation over both. What is computed across the seam is not looked at. All arrays are made once and stay in cache.
"""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from update.chunks.rolling import MASK, WINDOW_BYTES
from update.chunks.table import TABLE

_BLOCK: Final = 65536  # positions; even
_RUN: Final = (_BLOCK + WINDOW_BYTES) // 2  # pairs in one run, the last of them beyond what is needed
_NEEDED: Final = 2 * _RUN + 1  # bytes that the two runs read
_TAIL: Final = bytes(_NEEDED)


def _pair_table() -> NDArray[np.uint32]:
    """The hash of every two bytes, at first + 256 * second: as a little-endian number reads them."""
    words = np.array(TABLE, dtype=np.uint32)
    pairs = np.arange(65536)
    first = words[pairs & 0xFF]
    return np.asarray((first << 1 | first >> 31) ^ words[pairs >> 8], dtype=np.uint32)


class NumpySearch:
    """Finds candidates at several hundred megabytes per second; one per thread, numpy releases the lock."""

    parallel: Final = True

    def __init__(self) -> None:
        self._table = _pair_table()
        self._pairs = np.empty(2 * _RUN, dtype=np.intp)
        self._hashes = np.empty(2 * _RUN, dtype=np.uint32)
        self._left, self._right = np.empty_like(self._hashes), np.empty_like(self._hashes)
        self._flags = bytearray(2 * _RUN)
        self._matches = np.frombuffer(self._flags, dtype=np.bool_)

    def find(self, data: bytes) -> "array[int]":
        """See `Search`."""
        found = array("I")
        for start in range(0, len(data) - WINDOW_BYTES + 1, _BLOCK):
            if data.startswith(_TAIL, start):
                continue  # a run of zeros matches nowhere, and images are full of them
            fits = start + _NEEDED <= len(data)
            self._hash(data if fits else data[start:] + _TAIL, start if fits else 0)
            last = min(_BLOCK, len(data) - start - WINDOW_BYTES + 1)
            found.extend(start + at + WINDOW_BYTES - 1 for at in sorted(self._found()) if at < last)
        return found

    def _hash(self, data: bytes, start: int) -> None:
        """Set the flags of all windows that begin in the block at `start`."""
        hashes, left, right = self._hashes, self._left, self._right
        for run in (0, 1):
            self._pairs[run * _RUN : (run + 1) * _RUN] = np.frombuffer(data, dtype="<u2", count=_RUN, offset=start + run)
        self._table.take(self._pairs, out=hashes, mode="wrap")
        count = 2 * _RUN
        for size in (2, 4, 8):
            np.left_shift(hashes[:count], size, out=left[:count])
            np.right_shift(hashes[:count], 32 - size, out=right[:count])
            np.bitwise_or(left[:count], right[:count], out=left[:count])
            count -= size // 2
            np.bitwise_xor(left[:count], hashes[size // 2 : size // 2 + count], out=hashes[:count])
        count -= 16
        np.right_shift(hashes[8 : 8 + count], 16, out=left[:count])
        np.bitwise_xor(left[:count], hashes[:count], out=left[:count])
        np.bitwise_xor(left[:count], hashes[16 : 16 + count], out=left[:count])
        np.bitwise_and(left[:count], MASK, out=left[:count])
        np.equal(left[:count], 0, out=self._matches[:count])

    def _found(self) -> list[int]:
        """Beginnings of the matching windows in the block: even ones first, then odd ones."""
        found = []
        at = self._flags.find(1)
        while at >= 0:
            run, pair = divmod(at, _RUN)
            if pair < _BLOCK // 2:
                found.append(2 * pair + run)
            at = self._flags.find(1, at + 1)
        return found
