"""A site whose nodes a wfx assigns: the like of `north_site`, with the same words for what a test does with it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from gateway.database.engine import Database, sqlite_url
from gateway.fleet.telling import Telling
from gateway.north.spacing import Spacing
from gateway.north.wfx.client import Shown, WfxClient
from gateway.north.wfx.delivery import Delivery
from gateway.north.wfx.following import Following, Server
from gateway.north.wfx.obtain import Obtain
from gateway.north.wfx.telling import WfxTeller
from gateway.north.wfx.upstream import WfxUpstream
from gateway.north.wfx.workflow import State
from tests.builders.fleet import Clock
from tests.builders.north_site import Ground, NorthSite, even, make_ground

PLANT = "wfx:plant"
WORKFLOWS = ("wfx.workflow.dau.direct", "wfx.workflow.dau.phased")


@asynccontextmanager
async def wfx_site(
    folder: Path,
    url: str,
    *,
    prefix: str = "",
    workflows: Sequence[str] = WORKFLOWS,
    hosts: Sequence[str] = (),
    tags: Sequence[str] = (),
    max_bytes: int = 1 << 20,
    unverified: State = State.ACTIVATED,
    events: bool = False,
) -> AsyncIterator[NorthSite]:
    """A site whose nodes are clients of the names `prefix` and their own."""
    database = await Database.open(sqlite_url(folder / "gateway.db"))
    clock = Clock()
    teller = WfxTeller(PLANT, clock, unverified=unverified)
    try:
        ground = make_ground(folder, database, clock, Telling({PLANT: teller}))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
            client = WfxClient(
                session,
                url,
                Spacing(1000, now=lambda: 0.0),
                Shown(lambda: {"Authorization": "Bearer of-the-site"}, "X-Client-Id"),
                artifact_hosts=frozenset(hosts),
                tags=tags,
            )
            obtain = Obtain(client, ground.vouched, max_bytes=max_bytes)
            server = Server(PLANT, client, obtain, teller, frozenset(workflows))
            yield _site(database, clock, ground, server, prefix, events=events)
            await obtain.close()
    finally:
        await database.close()


def _site(database: Database, clock: Clock, ground: Ground, server: Server, prefix: str, *, events: bool) -> NorthSite:
    elapsed = [0.0]

    def client_id(node: str) -> str:
        return prefix + node

    delivery = Delivery(database, server.client, PLANT, clock, client_id=client_id, chance=even)
    upstream = WfxUpstream(
        database,
        server,
        Following(database, ground.fleet.takeover, server, clock),
        delivery,
        now=clock,
        client_id=client_id,
        poll_interval_s=60,
        events=events,
        clock=lambda: elapsed[0],
        chance=even,
    )
    return NorthSite(
        database, ground.fleet, upstream, delivery, ground.shelf, ground.store, clock, elapsed, prefix, assigner=PLANT
    )
