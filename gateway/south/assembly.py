"""From chunks to requests, and from the pieces of their answers to chunks again: pure, and without judging the bytes.

Pieces of one range come in order, so that no more than one chunk per range is open at any time.
"""

from collections.abc import Iterable, Iterator

from update.chunks.plan import merge
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.errors import ProtocolError


def requests(index: HeaderIndex, numbers: Iterable[int], *, max_ranges: int) -> Iterator[list[int]]:
    """Groups of ascending chunk numbers, each of at most `max_ranges` merged ranges."""
    group: list[int] = []
    spans = 0
    end = -1
    for number in numbers:
        chunk = index[number]
        spans += chunk.start != end
        if spans > max_ranges:
            yield group
            group, spans = [], 1
        group.append(number)
        end = chunk.start + chunk.length
    if group:
        yield group


def batches(index: HeaderIndex, numbers: Iterable[int], *, max_bytes: int) -> Iterator[list[int]]:
    """Groups of chunk numbers in the order given, each of at most `max_bytes` stored bytes, or of one chunk."""
    batch: list[int] = []
    left_bytes = max_bytes
    for number in numbers:
        length = index[number].length
        if batch and length > left_bytes:
            yield batch
            batch, left_bytes = [], max_bytes
        batch.append(number)
        left_bytes -= length
    if batch:
        yield batch


class Assembly:
    """The chunks `numbers` of one file, in the making; `spans` are the ranges to ask for."""

    def __init__(self, index: HeaderIndex, numbers: list[int]) -> None:
        self._index = index
        self._wanted = set(numbers)
        self._open: dict[int, bytearray] = {}
        self._ready: list[tuple[int, bytes]] = []
        self.ready_bytes = 0
        self.spans = merge(Range(index[number].start, index[number].length) for number in numbers)

    def feed(self, offset: int, piece: bytes) -> None:
        """Take bytes from `offset` on; those that nobody asked for, or that came before, are dropped.

        `ProtocolError` when bytes are left out within a chunk.
        """
        for number in self._wanted.intersection(self._index.covering(offset, len(piece))):
            chunk = self._index[number]
            part = self._open.setdefault(number, bytearray())
            start = chunk.start + len(part) - offset
            if start < 0:
                raise ProtocolError(f"bytes {-start} before byte {offset} were left out")
            part += piece[start : chunk.start + chunk.length - offset]
            if len(part) == chunk.length:
                self._wanted.discard(number)
                self._ready.append((number, bytes(self._open.pop(number))))
                self.ready_bytes += chunk.length

    def take(self) -> list[tuple[int, bytes]]:
        """The chunks that are whole (number, stored bytes), each once."""
        ready, self._ready, self.ready_bytes = self._ready, [], 0
        return ready
