"""What one line carries: so many connections at once, and so many bytes per second, shared by what is read over it.

Both waits are our own and never the peer's fault: the place is taken before the time for the answer begins to run, and what
was received is paid for between two reads, which the guard of `rate.py` does not count. The peer notices by its window.

One connection is kept for small answers (metadata, messages): content that takes hours cannot keep news out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from update.wire.limits import Shares


class Line(Protocol):
    """The line that requests go over."""

    @asynccontextmanager
    def connection(self, *, small: bool) -> AsyncIterator[None]:
        """Hold one of its connections; `small` answers have one that content does not get."""
        ...

    async def received(self, source: str, count: int) -> None:
        """Wait until the line may carry more, after `count` bytes from `source`."""
        ...


class FreeLine:
    """A line without limits of ours."""

    @asynccontextmanager
    async def connection(self, *, small: bool) -> AsyncIterator[None]:  # noqa: ARG002 - as `Line` has it
        """At once."""
        yield

    async def received(self, source: str, count: int) -> None:
        """At once."""


class BoundedLine:
    """At most `connections` at once (2 at least); `shares` None: as many bytes as come. Each source has one share."""

    def __init__(self, *, connections: int, shares: Shares | None = None) -> None:
        self._all = asyncio.Semaphore(connections)
        self._content = asyncio.Semaphore(max(1, connections - 1))
        self._shares = shares

    @asynccontextmanager
    async def connection(self, *, small: bool) -> AsyncIterator[None]:
        """Hold one of the connections, in the order of asking."""
        if small:
            async with self._all:
                yield
            return
        async with self._content, self._all:
            yield

    async def received(self, source: str, count: int) -> None:
        """Pay for what came."""
        if self._shares is not None:
            await self._shares.of(source).take(count)


FREE: Final = FreeLine()
