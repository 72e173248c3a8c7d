"""The coordinator: carries coordinated releases on from wherever they stand in the database.

- What follows, `coordination` decides; each step is one transaction, in which it is found to follow still. Killed at any
  moment, the next coordinator finds the same step again, or the one after it.
- Interlocks are read immediately before what has a member restart, and before nothing else; a shut one, or one that cannot be
  read, is waited for.
- It is woken by whatever this process writes, and looks by itself every few seconds: for deadlines, and for interlocks.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from typing import Protocol

from gateway.database.coordinated import Coordination
from gateway.database.engine import Database, Transaction
from gateway.database.queries import coordinations
from gateway.fleet.carrying_out import Hand, LastSeen, look_at
from gateway.fleet.coordination import following
from gateway.fleet.coordination_steps import Step, restarted_by
from gateway.fleet.telling import NOBODY, Telling
from update.errors import BusyError, StoreError

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_TOGETHER_S = 0.2


class Interlocks(Protocol):
    """What says whether devices may restart now."""

    async def first_shut(self, names: Sequence[str]) -> str:
        """The first of these that is shut or cannot be read; empty: all are open."""
        ...


class Coordinator:
    """Carries runs on."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        interlocks: Interlocks,
        *,
        telling: Telling = NOBODY,
        last_seen: LastSeen = attrgetter("last_seen"),
    ) -> None:
        self._database = database
        self._now = now
        self._interlocks = interlocks
        self._telling = telling
        self._last_seen = last_seen
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Go on with what is there, again and again, for ever."""
        self._database.watch(self._woken.set)
        while True:
            self._woken.clear()
            try:
                await self.advance()
            except (StoreError, BusyError) as error:
                _LOG.error("coordinated releases cannot go on: %s (%s)", error, error.code)
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._woken.wait()
            await asyncio.sleep(_TOGETHER_S)  # what members say at the same time is looked at once

    async def advance(self) -> None:
        """Do all that can be done now. Errors: `StoreError`, `BusyError`."""
        async with self._database.reading() as transaction:
            live = await coordinations.live(transaction)
        for run in live:
            while await self._advance(run):
                pass

    async def _advance(self, number: int) -> bool:
        """Do the first step that can be done; False where there is none."""
        async with self._database.reading() as transaction:
            run, steps = await self._following(transaction, number)
        shut = ""
        for step in steps:
            blocked = await self._interlocks.first_shut(_interlocks(run, step))
            if not blocked:
                await self._carry_out(number, step)
                return True
            shut = shut or blocked
        if run.shut != shut:
            async with self._database.writing() as transaction:
                await coordinations.wait_for(transaction, number, shut)
        return False

    async def _carry_out(self, number: int, step: Step) -> None:
        """Do a step, if it follows still."""
        async with self._database.writing() as transaction:
            run, steps = await self._following(transaction, number)
            if step not in steps:
                return
            _LOG.info("release %s %s: %s", run.plan, run.version, step)
            await Hand(transaction, self._telling, self._now()).carry_out(run, step)

    async def _following(self, transaction: Transaction, number: int) -> tuple[Coordination, tuple[Step, ...]]:
        run = await coordinations.known(transaction, number)
        return run, following(run, await look_at(transaction, run, self._last_seen), self._now())


def _interlocks(run: Coordination, step: Step) -> Sequence[str]:
    node = restarted_by(step)
    return run.by_name[node].interlocks if node else ()
