"""A distance in time between the requests to one server, however many nodes they are for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from update.wire.line import Line


class Spacing:
    """At most `per_s` beginnings in a second, evenly; `now` is the event loop's clock, in seconds."""

    def __init__(self, per_s: float, *, now: Callable[[], float]) -> None:
        self._gap_s = 1.0 / per_s
        self._now = now
        self._next_s = 0.0

    async def wait(self) -> None:
        """Wait for one's turn."""
        turn = max(self._next_s, self._now())
        self._next_s = turn + self._gap_s
        if (left := turn - self._now()) > 0:
            await asyncio.sleep(left)


class SpacedLine:
    """A line on which every request waits for its turn, also those of which one reading makes many."""

    def __init__(self, line: Line, spacing: Spacing) -> None:
        self._line = line
        self._spacing = spacing

    @asynccontextmanager
    async def connection(self, *, small: bool) -> AsyncIterator[None]:
        """Hold one of the line's connections, when it is one's turn."""
        await self._spacing.wait()
        async with self._line.connection(small=small):
            yield

    async def received(self, source: str, count: int) -> None:
        """As of the line."""
        await self._line.received(source, count)
