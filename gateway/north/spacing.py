"""A distance in time between the requests to one server, however many nodes they are for."""

import asyncio
from collections.abc import Callable


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
