"""From chunks to requests, and from the pieces of their answers to chunks again: pure, and without judging the bytes.

Pieces of one range come in order, so that no more than one chunk per range is open at any time.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final

from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.errors import ProtocolError

JOIN_BYTES: Final = 96
"""Less than the head of one part more in a multipart answer, which has 100 to 120 bytes."""
_MOST_OPEN: Final = 8


def requests(index: HeaderIndex, numbers: Iterable[int], *, max_ranges: int) -> Iterator[list[int]]:
    """Groups of ascending chunk numbers, each of at most `max_ranges` spans."""
    group: list[int] = []
    count = 0
    end = -JOIN_BYTES - 1
    for number in numbers:
        chunk = index[number]
        count += chunk.start - end > JOIN_BYTES
        if count > max_ranges:
            yield group
            group, count = [], 1
        group.append(number)
        end = chunk.start + chunk.length
    if group:
        yield group


def spans_of(index: HeaderIndex, numbers: Iterable[int]) -> tuple[Range, ...]:
    """The ranges to ask for to get these ascending chunks; those that are near each other are one."""
    spans: list[Range] = []
    for chunk in map(index.__getitem__, numbers):
        if spans and chunk.start - spans[-1].end <= JOIN_BYTES:
            spans[-1] = Range(spans[-1].start, chunk.start + chunk.length - spans[-1].start)
        elif chunk.length:
            spans.append(Range(chunk.start, chunk.length))
    return tuple(spans)


def between(index: HeaderIndex, numbers: Iterable[int]) -> Iterator[int]:
    """The chunks that the spans of `numbers` bring besides."""
    for before, after in pairwise(numbers):
        end = index[before].start + index[before].length
        if after - before > 1 and index[after].start - end <= JOIN_BYTES:
            yield from range(before + 1, after)


class Waiting:
    """Chunks that are to be asked for, given out as requests: upwards through the file and from its start again.

    So what comes in while others are under way travels with its neighbours, and nothing waits longer than one round.
    """

    def __init__(self, index: HeaderIndex) -> None:
        self._index = index
        self._numbers: set[int] = set()
        self._next = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, numbers: Iterable[int]) -> None:
        """These are to be asked for, too."""
        self._numbers.update(numbers)

    def take(self, *, max_ranges: int) -> list[int]:
        """The next request: ascending chunk numbers; [] if nothing waits."""
        numbers = sorted(self._numbers)
        ahead = numbers[bisect_left(numbers, self._next) :] or numbers
        group = next(requests(self._index, ahead, max_ranges=max_ranges), [])
        self._numbers.difference_update(group)
        self._next = group[-1] + 1 if group else 0
        return group


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
        self.spans = spans_of(index, numbers)

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


class Windfall:
    """Chunks that come together from bytes which nobody asked for: those that `is_of_use` names, each whole.

    Answers may come side by side; the pieces of one follow each other. Beyond `_MOST_OPEN` begun chunks the oldest is let go.
    """

    def __init__(self, index: HeaderIndex, is_of_use: Callable[[int], bool]) -> None:
        self._index = index
        self._is_of_use = is_of_use
        self._open: OrderedDict[int, tuple[int, bytearray]] = OrderedDict()  # by the byte that must come next
        self._ready: list[tuple[int, bytes]] = []
        self.ready_bytes = 0

    def feed(self, offset: int, piece: bytes) -> None:
        """Take bytes from `offset` on."""
        begun, part = self._open.pop(offset, (None, bytearray()))
        for number in self._index.covering(offset, len(piece)):
            chunk = self._index[number]
            if number != begun:
                if chunk.start < offset or not self._is_of_use(number):
                    continue
                part = bytearray()
            part += piece[max(0, chunk.start - offset) : chunk.start + chunk.length - offset]
            if len(part) == chunk.length:
                self._ready.append((number, bytes(part)))
                self.ready_bytes += chunk.length
            else:
                self._open[offset + len(piece)] = number, part
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)

    def take(self) -> list[tuple[int, bytes]]:
        """The chunks that are whole (number, stored bytes), not compared with anything yet."""
        ready, self._ready, self.ready_bytes = self._ready, [], 0
        return ready
