"""The rolling hash of zchunk over whole blocks: where a chunk might end.

With T the table and rol a 32-bit rotation, the hash of the 48 bytes that end at position p is
`H[p] = XOR of rol(T[x[p - k]], k)` for k = 0..47, and p is a candidate when its low 15 bits are zero. Both searches
compute all positions of a block at once by doubling: a hash of 2k bytes is the rotated hash of the first k of them
xor the hash of the last k. 48 = 16 + 16 + 16, and a rotation by 16 or 32 bits exchanges halves or nothing, so the last
step needs no rotation at all.
"""

from array import array
from collections.abc import Callable
from typing import Final, Protocol

from update.chunks.table import TABLE

WINDOW_BYTES: Final = 48
MASK: Final = 0x7FFF
_WORD: Final = 0xFFFFFFFF


class Search(Protocol):
    """Finds candidates; not shared between threads."""

    @property
    def parallel(self) -> bool:
        """Whether several threads search faster than one."""
        ...

    def find(self, data: bytes) -> "array[int]":
        """Ascending positions p in `data`, 47 <= p, where the window that ends at p matches."""
        ...


def rotate(value: int, bits: int) -> int:
    """`value` rotated left within 32 bits."""
    return (value << bits | value >> 32 - bits) & _WORD


def hash_window(window: bytes) -> int:
    """The hash of one window."""
    value = 0
    for byte in window:
        value = rotate(value, 1) ^ TABLE[byte]
    return value


def roll(value: int, oldest: int, newest: int) -> int:
    """The hash after the window has moved by one byte."""
    return rotate(value, 1) ^ rotate(TABLE[oldest], WINDOW_BYTES % 32) ^ TABLE[newest]


class PureSearch:
    """The search without numpy: one Python integer holds all hashes of a block in lanes of 32 bits."""

    parallel: Final = False
    _BLOCK: Final = 16384

    def __init__(self) -> None:
        lanes = self._BLOCK + WINDOW_BYTES
        self._planes = [bytes(word >> shift & 0xFF for word in TABLE) for shift in (0, 8, 16, 24)]
        self._masks = {bits: self._rotation_masks(bits, lanes) for bits in (1, 2, 4, 8)}

    @staticmethod
    def _rotation_masks(bits: int, lanes: int) -> tuple[int, int]:
        """What stays within its lane after a shift to the left, and after one to the right."""
        low = (1 << bits) - 1
        return (
            int.from_bytes((_WORD ^ low).to_bytes(4, "little") * lanes, "little"),
            int.from_bytes(low.to_bytes(4, "little") * lanes, "little"),
        )

    def find(self, data: bytes) -> "array[int]":
        """See `Search`."""
        found = array("I")
        for start in range(0, len(data) - WINDOW_BYTES + 1, self._BLOCK):
            block = data[start : start + self._BLOCK + WINDOW_BYTES - 1]
            if block.strip(block[:1]):
                found.extend(start + at for at in self._find_in(block))
        return found

    def _find_in(self, block: bytes) -> list[int]:
        lanes = bytearray(4 * len(block))
        for byte, plane in enumerate(self._planes):
            lanes[byte::4] = block.translate(plane)
        hashes = int.from_bytes(lanes, "little")
        for bits, (left, right) in self._masks.items():
            hashes = (hashes << bits & left | hashes >> 32 - bits & right) ^ hashes >> 32 * bits
        hashes ^= hashes >> 32 * 16 + 16 ^ hashes >> 32 * 32
        result = hashes.to_bytes(len(lanes), "little")
        low, high = result[0::4], result[1::4]
        found, last = [], len(block) - WINDOW_BYTES
        at = low.find(0)
        while 0 <= at <= last:
            if not high[at] & MASK >> 8:
                found.append(at + WINDOW_BYTES - 1)
            at = low.find(0, at + 1)
        return found


def numpy_search() -> Callable[[], Search] | None:
    """The maker of the fast search, where numpy is installed: it is needed only where images are built."""
    try:
        from update.chunks.rolling_numpy import NumpySearch  # noqa: PLC0415 - the late import that the architecture permits
    except ImportError:
        return None
    return NumpySearch


def best_search() -> Callable[[], Search]:
    """The maker of the fastest search that this installation has."""
    return numpy_search() or PureSearch
