"""Time that passes only when a test says so, with the timers of an event loop."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

_ROUNDS = 12
"""Steps of the real loop after which woken tasks have come to their next wait."""


@dataclass(slots=True, eq=False)
class Due:
    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class SimulatedTime:
    """A `Clock`; timers are called in their order, each at its own moment."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._due: list[tuple[float, int, Due]] = []
        self._made = 0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Due:
        self._made += 1
        due = Due(callback)
        heappush(self._due, (self.now_s + delay, self._made, due))
        return due

    @property
    def idle(self) -> bool:
        """No timer is set."""
        return all(due.callback is None for _, _, due in self._due)

    async def settle(self) -> None:
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let so much time pass; tasks run after every timer."""
        end_s = self.now_s + seconds
        await self.settle()
        while self._due and self._due[0][0] <= end_s:
            self.now_s, _, due = heappop(self._due)
            if due.callback is not None:
                due.callback()
                await self.settle()
        self.now_s = end_s
        await self.settle()
