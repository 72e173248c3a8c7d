"""An upstream of one file that sends what the test tells it to, piece by piece, and notes what it was asked for."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from update.chunks.ranges import Range


class _Spare(Protocol):
    def reaches(self, position: int) -> bool: ...

    async def take(self, offset: int, piece: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Send:
    """So many bytes of the range that is on; `wrong`: the first of them is not what was signed."""

    size: int
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Besides:
    """What stands before the next byte in the file, though nobody asked for it."""

    size: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Break off with an error, or without a word (None)."""

    error: Callable[[], Exception] | None


Order = Send | Besides | Fail


@dataclass(eq=False, slots=True)
class Request:
    """What is asked, and what is to be done next."""

    ranges: tuple[Range, ...]
    orders: "asyncio.Queue[Order]" = field(default_factory=asyncio.Queue)
    passed_on: list[Range] = field(default_factory=list)  # rightly


class HandUpstream:
    """Of `content`. While it is `honest` it sends everything without being told; `asked` lists all requests, of others too."""

    def __init__(self, name: str, content: bytes, asked: list[Request], *, ranged: bool = True) -> None:
        self.name = name
        self.ranged = ranged
        self.honest = False
        self.open: list[Request] = []
        self.asked = asked
        self._content = content

    async def read_ranges(self, ranges: Sequence[Range], spare: _Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        request = Request(tuple(ranges))
        self.open.append(request)
        self.asked.append(request)
        try:
            for span in ranges:
                position = span.start
                while position < span.end:
                    order = Send(span.length) if self.honest else await request.orders.get()
                    match order:
                        case Send(size, wrong):
                            piece = self._content[position : min(position + size, span.end)]
                            if not wrong:
                                request.passed_on.append(Range(position, len(piece)))
                            yield position, bytes([piece[0] ^ 1]) + piece[1:] if wrong else piece
                            position += len(piece)
                        case Besides(size) if spare is not None and spare.reaches(max(0, position - size)):
                            await spare.take(max(0, position - size), self._content[max(0, position - size) : position])
                        case Fail(None):
                            return
                        case Fail(error) if error is not None:
                            raise error()
        finally:
            self.open.remove(request)

    def be_honest(self) -> None:
        """From now on send everything."""
        self.honest = True
        for request in self.open:
            request.orders.put_nowait(Send(1))

    def failed(self) -> None:
        """The order of upstreams is no concern of this one."""
