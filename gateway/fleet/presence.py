"""When each node was last here: known at once, written together.

1. Nearly every contact changes nothing but this time. To write and sync each of them would cost a thousand nodes most of a
   core, and flash its life; so the times are kept in memory and written in one unit of work every `every_s`.
2. Whoever shows a time asks here (`last_seen`), and so is never behind.
3. What a crash loses are times, the latest ones: until a node comes again, which takes one interval of its polls, it is shown
   as having been here up to `every_s` earlier. No decision rests on them. A first contact, and whatever else a node does, is
   durable before it is answered.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from gateway.database.engine import Database
from gateway.database.queries import contacts
from gateway.database.records import Node
from update.errors import BusyError, StoreError

EVERY_S: Final = 15.0
_LOG = logging.getLogger(__name__)


class Presence:
    """Of the nodes of one gateway; no more than there are nodes, for only registered ones are noted."""

    def __init__(self, database: Database, now: Callable[[], datetime], *, every_s: float = EVERY_S) -> None:
        self._database = database
        self._now = now
        self._every_s = every_s
        self._seen: dict[str, datetime] = {}
        self._unwritten: set[str] = set()

    def note(self, node: str) -> datetime:
        """A registered node is here; the time."""
        moment = self._seen[node] = self._now()
        self._unwritten.add(node)
        return moment

    def last_seen(self, node: Node) -> datetime:
        """When a node was last here, to the knowledge of this gateway and of those that share its database."""
        return max(node.last_seen, self._seen.get(node.id, node.last_seen))

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Write a last time when the block ends, which is after `run`."""
        try:
            yield
        finally:
            await self.write()

    async def run(self) -> None:
        """Write from time to time, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.write()

    async def write(self) -> None:
        """Write what was not written yet; what cannot be written now is written later."""
        written, self._unwritten = self._unwritten, set()
        if not written:
            return
        try:
            async with self._database.writing() as transaction:
                await contacts.seen(transaction, {node: self._seen[node] for node in written})
        except (StoreError, BusyError) as error:
            self._unwritten |= written
            _LOG.error("cannot note when nodes were here: %s (%s)", error, error.code)
