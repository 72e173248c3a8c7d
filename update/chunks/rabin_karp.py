"""librsync's rolling sum, RabinKarp: of whole blocks, and of the window at every place of a buffer.

With M = 0x08104225 and everything modulo 2**32, the sum of n bytes is `M**n + SUM x[i] * M**(n-1-i)`. M is odd and so
has an inverse W: with the running totals `P[i] = SUM of x[t] * W**t for t < i`, the sum of the window at i is
`M**n + M**(n-1+i) * (P[i+n] - P[i])`. All windows of a buffer are a few operations on whole rows, without rolling.
"""

from array import array
from collections.abc import Callable, Iterable
from itertools import accumulate
from operator import mul
from typing import Final, Protocol

MULTIPLIER: Final = 0x08104225
INVERSE: Final = pow(MULTIPLIER, -1, 1 << 32)
_WORD: Final = 0xFFFFFFFF

Found = tuple["array[int]", "array[int]"]
"""Ascending positions, and the sum of the window at each."""


class WeakSums(Protocol):
    """Sums of windows of one size; not shared between threads."""

    def of_blocks(self, data: bytes) -> "array[int]":
        """The sum of every full block of `data`, one behind the other; what is left over is not looked at."""
        ...

    def find(self, data: bytes) -> Found:
        """Where in `data` (at most `block_bytes - 1` longer than announced) a window has one of the known sums."""
        ...


MakeSums = Callable[[int, "Iterable[int]", int], WeakSums]
"""(block_bytes, known sums, positions to search at once) -> `WeakSums`."""


def powers(base: int, count: int) -> "array[int]":
    """`base**0 .. base**(count-1)` modulo 2**32."""
    result, value = array("Q"), 1
    for _ in range(count):
        result.append(value)
        value = value * base & _WORD
    return result


def weak_sum(data: bytes | memoryview) -> int:
    """The sum of one block of any length."""
    factors = powers(MULTIPLIER, len(data))
    factors.reverse()
    total: int = pow(MULTIPLIER, len(data), 1 << 32) + sum(map(mul, data, factors))
    return total & _WORD


class PureSums:
    """Without numpy: some megabytes per second."""

    def __init__(self, block_bytes: int, known: Iterable[int] = (), positions: int = 1) -> None:
        self._size = block_bytes
        self._known = frozenset(known)
        self._seed = pow(MULTIPLIER, block_bytes, 1 << 32)
        self._falling = powers(MULTIPLIER, block_bytes)
        self._falling.reverse()
        self._rising = powers(MULTIPLIER, positions)
        self._inverse = powers(INVERSE, positions + block_bytes)
        self._first = pow(MULTIPLIER, block_bytes - 1, 1 << 32)

    def of_blocks(self, data: bytes) -> "array[int]":
        """See `WeakSums`."""
        size, view = self._size, memoryview(data)
        places = range(0, len(data) - size + 1, size)
        return array("I", [(self._seed + sum(map(mul, view[at : at + size], self._falling))) & _WORD for at in places])

    def find(self, data: bytes) -> Found:
        """See `WeakSums`."""
        totals = list(accumulate(map(mul, data, self._inverse), initial=0))
        positions, sums = array("Q"), array("I")
        for at, (factor, before, after) in enumerate(zip(self._rising, totals, totals[self._size :], strict=False)):
            value = (self._seed + factor * self._first * (after - before)) & _WORD
            if value in self._known:
                positions.append(at)
                sums.append(value)
        return positions, sums


def best_sums() -> MakeSums:
    """The fastest that this installation has: numpy is needed only where deltas are made."""
    try:
        from update.chunks.rabin_karp_numpy import NumpySums  # noqa: PLC0415 - the late import that the architecture permits
    except ImportError:
        return PureSums
    return NumpySums
