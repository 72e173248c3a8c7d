"""Asking one server for each of many nodes in turn.

1. Polls are spread over the interval, so that a thousand nodes do not come together.
2. While the server cannot be reached one poll at a time tries, ever more rarely; trouble with one node holds up no other.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

from update.errors import FieldrelayError, SlowError, StoreError, UnreachableError

_LOG = logging.getLogger(__name__)
_CONCURRENT = 4
_TICK_S = 1.0
_FIRST_S = 5.0
_LONGEST_S = 900.0
_SPREAD_FIRST_S = 30.0
_Each = TypeVar("_Each")


class Rounds(Generic[_Each]):
    """`everybody` is asked for at every look; `ask` asks for one of them and gives the seconds until the next time.

    `contact` is when the server last answered, `trouble` what stands in the way since.
    """

    def __init__(
        self,
        server: str,
        everybody: Callable[[], Awaitable[Mapping[str, _Each]]],
        ask: Callable[[_Each], Awaitable[float]],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._everybody = everybody
        self._ask = ask
        self._now = now
        self._clock = clock
        self._chance = chance
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._away = 0
        self._resting_until_s = 0.0
        self._asking = asyncio.Semaphore(_CONCURRENT)
        self.contact: datetime | None = None
        self.trouble: FieldrelayError | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Whom it asks for."""
        return tuple(self._due)

    async def run(self) -> None:
        """For ever; whatever cannot be done now is tried again."""
        while True:
            if self._clock() >= self._resting_until_s:
                try:
                    await self.poll_all()
                except StoreError as error:
                    self.note(error)
            await asyncio.sleep(_TICK_S)

    async def poll_all(self) -> None:
        """Ask for every one that is due, once."""
        due = await self._ready()
        if self._away:  # rule 2
            due = due[:1]
        await asyncio.gather(*[self._poll(name, each) for name, each in due])

    def hasten(self, name: str) -> None:
        """Ask for one at the next look: there is news of it."""
        if name in self._due and name not in self._failures:
            self._due[name] = self._clock()

    def hasten_all(self) -> None:
        """Ask for everybody at the next look."""
        for name in self._due:
            self.hasten(name)

    def note(self, error: FieldrelayError) -> None:
        """Keep what stands in the way; told once."""
        if self.trouble is None or self.trouble.code != error.code:
            _LOG.warning("%s: %s (%s)", self._server, error, error.code)
        self.trouble = error

    async def _ready(self) -> list[tuple[str, _Each]]:
        """Those whose time has come, the longest waiting first."""
        everybody = await self._everybody()
        for name in [name for name in self._due if name not in everybody]:
            del self._due[name]
        for name in everybody:
            self._due.setdefault(name, self._clock() + self._chance() * min(_SPREAD_FIRST_S, len(everybody) * 0.1))
        ready = sorted((when, name) for name, when in self._due.items() if when <= self._clock())
        return [(name, everybody[name]) for _, name in ready]

    async def _poll(self, name: str, each: _Each) -> None:
        async with self._asking:
            begun = self._clock()
            try:
                sleep_s = await self._ask(each)
            except FieldrelayError as error:
                self._failed(name, error)
                return
        self._away, self.trouble, self.contact = 0, None, self._now()
        self._failures.pop(name, None)
        if self._due.get(name, begun) <= begun:  # not hastened meanwhile
            self._due[name] = self._clock() + sleep_s * (0.9 + 0.2 * self._chance())

    def _failed(self, name: str, error: FieldrelayError) -> None:
        self.note(error)
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        self._due[name] = self._clock() + self._pause_s(failures)
        if isinstance(error, (UnreachableError, SlowError)):  # it is the server, not this node
            self._away += 1
            self._resting_until_s = self._clock() + self._pause_s(min(self._away, failures))

    def _pause_s(self, failures: int) -> float:
        return min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures - 1, 30)) * (0.5 + self._chance() / 2)
