"""A site with a listener for masters that push, and a master that speaks as SWUpdate's `swuforward` handler does.

async with push_site(folder, all_or_none=True) as site:
    await site.add_node("n1")
    async with site.master() as master:           # its websocket is open
        answer = await master.push(bundle)
        await site.say("n1", "closed", "success", "Update Installed.")
        assert await master.end() == "SUCCESS"
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from gateway.database.records import Action, ClientKind
from gateway.fleet.judgement import Told
from gateway.fleet.telling import Telling
from gateway.north.push.build import PushUpstream, push_tellers, push_upstream
from gateway.sections.pushed import SwuforwardSection
from tests.builders.fleet import Clock
from tests.builders.north_site import Ground, make_ground
from update.trust.verified import Provenance
from update.wire import ddi

ASSIGNER = "swuforward:line"
PATIENCE_S = 30.0


@dataclass(slots=True)
class Master:
    """One master: everything that it was told, in order."""

    session: aiohttp.ClientSession
    url: str
    socket: aiohttp.ClientWebSocketResponse
    told: list[dict[str, str]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def push(self, bundle: bytes, **options: object) -> tuple[int, str]:
        """Upload as the handler does; status and text of the answer."""
        form = aiohttp.MultipartWriter("form-data")
        part = form.append(bundle, {"Content-Type": "application/octet-stream"})
        part.set_content_disposition("form-data", name="swupdate-package", filename="swupdate.swu")
        return await self.post(form, **options)

    async def post(self, body: object, **options: object) -> tuple[int, str]:
        """Upload anything."""
        async with self.session.post(f"{self.url}/upload", data=body, **options) as answer:  # type: ignore[arg-type]  # passed on
            return answer.status, await answer.text()

    async def listen(self) -> None:
        """Hear until the other side hangs up."""
        async for message in self.socket:
            self.told.append(json.loads(message.data))
            self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what is told."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.news.clear()
                await self.news.wait()

    async def end(self) -> str:
        """The status that ends an upload, as the handler waits for it."""
        await self.until(lambda: bool({"SUCCESS", "FAILURE"} & set(self.statuses)))
        return self.statuses[-1]

    @property
    def statuses(self) -> list[str]:
        return [each["status"] for each in self.told if each["type"] == "status"]

    @property
    def texts(self) -> str:
        return "\n".join(each["text"] for each in self.told if each["type"] == "message")


@dataclass(slots=True)
class PushSite:
    """The parts, and what a test does with them."""

    database: Database
    ground: Ground
    upstream: PushUpstream
    clock: Clock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.upstream.door.port}"

    async def add_node(self, name: str, accepts: Provenance = Provenance.CMS) -> None:
        """A node that the listener assigns for."""
        await self.ground.fleet.accounts.give_token(name, ClientKind.SWUPDATE)
        async with self.database.writing() as transaction:
            await nodes.set_assigner(transaction, name, ASSIGNER)
            await nodes.set_accepts(transaction, name, accepts)

    async def action(self, node: str) -> Action:
        """What is wanted of a node now."""
        found = (await self.ground.fleet.progress.standing(node)).action
        assert found is not None
        return found

    async def say(self, node: str, execution: str, finished: str = "none", *details: str) -> None:
        """The node asks for what it was ordered, and says something about it."""
        action = await self.action(node)
        self.clock.advance(1)
        told = Told(f"{node} {self.clock()}", ddi.Execution(execution), ddi.Finished(finished), details=details)
        if action.state == "cancelling":
            await self.ground.fleet.progress.cancel_feedback(node, action.id, told)
            return
        await self.ground.fleet.progress.offer(node, action.id)
        await self.ground.fleet.progress.feedback(node, action.id, told)

    async def succeed(self, node: str) -> None:
        """As a stock swupdate, from its beginning until after its restart."""
        if (await self.action(node)).installed is None:
            await self.say(node, "proceeding", "none", "Installing Update Chunk Artifacts.")
            await self.say(node, "proceeding", "none", "All Chunks Installed.")
        await self.say(node, "closed", "success", "Update Installed.")

    @asynccontextmanager
    async def master(self, address: str = "127.0.0.1") -> AsyncIterator[Master]:
        """A master at an address of the loopback."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(f"{self.url}/", protocols=("swupdate-status-protocol",)) as socket,
        ):
            master = Master(session, self.url, socket)
            listening = asyncio.create_task(master.listen())
            try:
                yield master
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    def stored(self) -> list[str]:
        """The names of every content, and of whatever is left of one on its way."""
        store = self.ground.store
        return sorted(path.name for path in [*store.layout.staging.iterdir(), *(each.file for each in store.held())])


@asynccontextmanager
async def push_site(folder: Path, **options: object) -> AsyncIterator[PushSite]:
    """A site whose listener has these options, and a free port."""
    database = await Database.open(sqlite_url(folder / "gateway.db"))
    section = _section(options)
    clock = Clock()
    ground = make_ground(folder, database, clock, Telling(push_tellers([section])))
    upstream = push_upstream(section, ground.fleet.takeover, ground.vouched, database=database, now=clock, look_s=0.5)
    upstream.door.port = 0
    running = asyncio.create_task(upstream.run())
    try:
        await opened(upstream)
        yield PushSite(database, ground, upstream, clock)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await database.close()


async def opened(upstream: PushUpstream) -> None:
    """Wait until masters can reach it."""
    async with asyncio.timeout(PATIENCE_S):
        await upstream.door.listening.wait()


def _section(options: dict[str, object]) -> SwuforwardSection:
    values: dict[str, object] = {"allowed": ["127.0.0.0/8"], "addresses": ["127.0.0.1"], **options}
    return SwuforwardSection(name="line", repository="plant", **values)  # type: ignore[arg-type]  # checked by pydantic
