"""The page over HTTP, with a state that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import aiohttp

from gateway.web.build import web_application
from gateway.web.guard import Budgets
from gateway.web.listener import MAX_CONNECTIONS, listening
from gateway.web.pages import Pages
from gateway.web.snapshot import Condition, Node, Snapshot, Stick
from media.signals import Show

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STICK = Stick("m", "UPDATE", Show.COPYING, False, 1, 42, 100, 42, "", "")
NODE = Node("n1", Condition.UPDATING, False, NOW, "1", "a", "2", NOW, "writing 42 %", 42, 100)


@dataclass
class Shown:
    """What there is to see."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot("gw", "0.1", NOW, (STICK,), (NODE,)))

    looks: int = 0

    async def look(self) -> Snapshot:
        self.looks += 1
        return self.snapshot

    def change(self, **values: object) -> None:
        self.snapshot = replace(self.snapshot, **values)  # type: ignore[arg-type]  # fields by name

    @asynccontextmanager
    async def served(
        self, *, most: int = MAX_CONNECTIONS, budgets: Budgets | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        application = web_application(Pages(self.look, lambda: NOW), ["gw.plant.example"], budgets)
        async with (
            listening(application, ["127.0.0.1"], 0, None, most=most) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            yield session
