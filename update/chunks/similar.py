"""Finds where in an old image the content that new data came from is: the dictionary of one window of a pair patch.

Rules:

1. What the old image has and the new one has not (`gone`) is where changed files were: if it all fits, it is all taken.
2. Further places are chosen by content: every block of the old image has a rolling sum (`rabin_karp`), and one that a
   window anywhere in the new data has too is a vote, one only, for the cell of that block. Most votes first.
3. A vote is a hint, never a proof: a wrong one costs compression. Runs of one byte do not vote.

Memory is about 100 bytes per block, of which there are at most a quarter of a million, and the sums of one segment.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from update.chunks.chunker import Read
from update.chunks.patch_window import MAX_REGIONS
from update.chunks.rabin_karp import MakeSums, weak_sum
from update.chunks.ranges import Range
from update.errors import CorruptError

_MIN_BLOCK_BYTES: Final = 512
_MAX_BLOCKS_LOG: Final = 18
_CELL_BYTES: Final = 1 << 15
_SEGMENT_BYTES: Final = 1 << 18
_READ_BYTES: Final = 1 << 20


class OldContent:
    """The old image, asked for regions; one per patch, the sums are made when they are first needed."""

    def __init__(self, read: Read, size: int, gone: Sequence[Range], make_sums: MakeSums) -> None:
        self._read = read
        self._size = size
        self._gone = tuple(gone)
        self._make_sums = make_sums
        self._block_bytes = max(_MIN_BLOCK_BYTES, (size >> _MAX_BLOCKS_LOG) + 1)
        self._blocks: dict[int, int] = {}

    def regions(self, data: bytes, limit: int) -> tuple[Range, ...]:
        """Up to `limit` bytes of the old image that look most like `data`: ascending, apart from each other."""
        whole = sum(part.length for part in self._gone) <= limit and len(self._gone) < MAX_REGIONS // 2
        chosen = list(self._gone) if whole else []
        left = limit - sum(part.length for part in chosen)
        for cell, _ in self._votes(data).most_common():
            if left < _CELL_BYTES or len(chosen) >= MAX_REGIONS - 1:
                break
            for part in _without(self._cell(cell), chosen):
                chosen.append(part)
                left -= part.length
        return join(chosen)[:MAX_REGIONS]

    def _cell(self, number: int) -> Range:
        start = number * _CELL_BYTES
        return Range(start, min(_CELL_BYTES, self._size - start))

    def _votes(self, data: bytes) -> "Counter[int]":
        if not self._blocks:
            self._index()
        sums = self._make_sums(self._block_bytes, self._blocks, _SEGMENT_BYTES)
        seen: set[int] = set()
        for start in range(0, len(data), _SEGMENT_BYTES):
            _, found = sums.find(data[start : start + _SEGMENT_BYTES + self._block_bytes - 1])
            seen.update(self._blocks[value] for value in found)
        return Counter(number * self._block_bytes // _CELL_BYTES for number in seen)

    def _index(self) -> None:
        sums, size = self._make_sums(self._block_bytes, (), 1), self._block_bytes
        step = _READ_BYTES // size * size
        for offset in range(0, self._size, step):
            data = self._read(offset, min(step, self._size - offset))
            if len(data) != min(step, self._size - offset):
                raise CorruptError(f"the old image ended at byte {offset + len(data)} of {self._size}")
            for number, value in enumerate(sums.of_blocks(data), offset // size):
                self._blocks.setdefault(value, number)
        for byte in range(256):
            self._blocks.pop(weak_sum(bytes([byte]) * size), None)


def _without(part: Range, taken: Iterable[Range]) -> list[Range]:
    """What of `part` is in none of `taken`."""
    left = [part]
    for other in taken:
        pieces = []
        for piece in left:
            before = Range(piece.start, min(piece.end, other.start) - piece.start)
            after_start = max(piece.start, other.end)
            after = Range(after_start, piece.end - after_start)
            apart = other.end <= piece.start or piece.end <= other.start
            pieces += [piece] if apart else [half for half in (before, after) if half.length > 0]
        left = pieces
    return left


def join(parts: Iterable[Range]) -> tuple[Range, ...]:
    """The parts, apart from each other, ascending and with adjacent ones joined."""
    joined: list[Range] = []
    for part in sorted(parts):
        if joined and joined[-1].end == part.start:
            joined[-1] = Range(joined[-1].start, joined[-1].length + part.length)
        else:
            joined.append(part)
    return tuple(joined)
