"""Asks those nodes for which something is under way: before they install, so that their boot is known, and until it has ended.

A node without anything under way is left alone. What cannot be found out is logged when it changes; the deadline of what was
installed ends it as unverified (`gateway.fleet.deadlines`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Final

import aiohttp

from gateway.database.engine import Database
from gateway.database.queries import actions
from gateway.fleet.sightings import Sightings
from gateway.sections.probes import ProbeSection
from gateway.south.probes.probe import ask
from update.errors import FieldrelayError, StoreError

_LOG = logging.getLogger(__name__)
_LOOK_S: Final = 1.0
_AT_ONCE: Final = 16


class Probes:
    """The configured probes; `clock` in seconds."""

    def __init__(
        self,
        sections: Sequence[ProbeSection],
        database: Database,
        sightings: Sightings,
        session: aiohttp.ClientSession,
        clock: Callable[[], float],
    ) -> None:
        self._sections = sections
        self._database = database
        self._sightings = sightings
        self._session = session
        self._clock = clock
        self._due_s: dict[str, float] = {}
        self._trouble: dict[str, str] = {}

    async def run(self) -> None:
        """Ask again and again, for ever."""
        while True:
            try:
                await self.round()
            except StoreError as error:
                _LOG.error("cannot look for what is to be probed: %s (%s)", error, error.code)
            await asyncio.sleep(_LOOK_S)

    async def round(self) -> int:
        """Ask everybody who is due; how many those were."""
        async with self._database.reading() as transaction:
            busy = {action.node for action in await actions.everything_unfinished(transaction) if action.offered is not None}
        for gone in self._due_s.keys() - busy:
            del self._due_s[gone]
            self._trouble.pop(gone, None)
        now_s = self._clock()
        due = [(node, section) for node in sorted(busy) if (section := self._section(node)) and self._due_s.get(node, 0) <= now_s]
        limit = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for node, section in due:
                self._due_s[node] = now_s + section.every_s
                group.create_task(self._ask(node, section, limit))
        return len(due)

    def _section(self, node: str) -> ProbeSection | None:
        fitting = (each for each in self._sections if any(fnmatchcase(node, pattern) for pattern in each.nodes))
        return next(fitting, None)

    async def _ask(self, node: str, section: ProbeSection, limit: asyncio.Semaphore) -> None:
        try:
            async with limit:
                sighting = await ask(section, node, self._session)
            await self._sightings.seen(node, sighting)
            trouble = ""
        except FieldrelayError as error:
            trouble = f"{error} ({error.code})"
        if trouble and self._trouble.get(node) != trouble:
            _LOG.warning("probe %s of node %s: %s", section.name, node, trouble)
        self._trouble[node] = trouble


@asynccontextmanager
async def probing(
    sections: Sequence[ProbeSection],
    database: Database,
    sightings: Sightings,
    begin: Callable[[Coroutine[object, object, object], str], None],
) -> AsyncGenerator[None]:
    """Ask while the context lasts, where anything is configured."""
    if not sections:
        yield
        return
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
        begin(Probes(sections, database, sightings, session, asyncio.get_running_loop().time).run(), "probes")
        yield
