"""A site whose nodes an assigner elsewhere has: everything between its server and the nodes' edge, in this process.

async with north_site(folder, database, clock, url, token) as site:      # hawkBit; `wfx_site` is its like for wfx
    await site.poll()                                                     # as often as it is due: now
    await site.deliver()
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import aiohttp

from gateway.config import RepositorySection
from gateway.database.engine import Database, sqlite_url
from gateway.database.queries import nodes
from gateway.database.records import Action, ClientKind
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.catalogue import AssignerState
from gateway.fleet.judgement import Told
from gateway.fleet.telling import Telling
from gateway.north.hawkbit.client import HawkbitClient
from gateway.north.hawkbit.credentials import GatewayToken
from gateway.north.hawkbit.delivery import Delivery
from gateway.north.hawkbit.following import Following, Server
from gateway.north.hawkbit.obtain import Obtain
from gateway.north.hawkbit.telling import HawkbitTeller
from gateway.north.hawkbit.upstream import Gateway, HawkbitUpstream
from gateway.north.outbox import Delivered
from gateway.north.proofs import Proofs
from gateway.north.room import Room
from gateway.north.spacing import Spacing
from gateway.north.unlisted import UnlistedBundles, make_unlisted
from gateway.north.vouched import Vouched
from gateway.south.registry import Registry
from tests.builders.bundles import describe, image, signed
from tests.builders.fleet import Clock, Shelf
from tests.builders.keys import make_pki
from update.durable import Disk
from update.store.store import Store
from update.trust.verified import Provenance
from update.wire import ddi

COMPANY = "hawkbit:company"


class Asking(Protocol):
    """An upstream of any kind."""

    async def poll_all(self) -> None: ...

    async def state(self) -> AssignerState: ...


class Delivering(Protocol):
    """A delivery of any kind."""

    async def deliver(self) -> Delivered: ...


@dataclass(slots=True)
class NorthSite:
    """The parts, and what a test does with them. `elapsed` is the clock of the polls, in seconds."""

    database: Database
    fleet: Fleet
    upstream: Asking
    delivery: Delivering
    shelf: Shelf
    store: Store
    clock: Clock
    elapsed: list[float]
    prefix: str
    assigner: str = COMPANY

    async def add_node(self, name: str, kind: ClientKind = ClientKind.SWUPDATE) -> None:
        """A node that the assigner has, and that has been here."""
        await self.fleet.accounts.give_token(name, kind)
        async with self.database.writing() as transaction:
            await nodes.set_assigner(transaction, name, self.assigner)
            await nodes.set_accepts(transaction, name, Provenance.CMS)

    async def poll(self) -> None:
        """Ask for every node, as if its time had come."""
        self.elapsed[0] += 100_000
        await self.upstream.poll_all()

    async def deliver(self) -> Delivered:
        """Send everything, also what is still gathered or was put off."""
        self.clock.advance(3600)
        return await self.delivery.deliver()

    async def action(self, node: str) -> Action | None:
        """What is wanted of a node now."""
        return (await self.fleet.progress.standing(node)).action

    async def say(self, node: str, execution: str, finished: str = "none", *details: str) -> None:
        """The node says something about what it was offered."""
        found = await self.action(node)
        assert found is not None
        report = f"{node} {found.id} {self.clock().isoformat()} {details}"[:60]
        told = Told(report, ddi.Execution(execution), ddi.Finished(finished), details=details)
        self.clock.advance(1)
        await self.fleet.progress.feedback(node, found.id, told)

    async def succeed(self, node: str) -> None:
        """An swupdate installs, restarts, and says so."""
        found = await self.action(node)
        assert found is not None
        await self.fleet.progress.offer(node, found.id)
        for words in ("Installing Update Chunk Artifacts.", "All Chunks Installed."):
            await self.say(node, "proceeding", "none", words)
        await self.say(node, "closed", "success", "Update Installed.")


@dataclass(frozen=True, slots=True)
class Ground:
    """What no assigner is needed for: a store, a repository that lists nothing yet and can prove bundles, and the fleet."""

    fleet: Fleet
    shelf: Shelf
    store: Store
    vouched: Vouched
    unlisted: UnlistedBundles
    registry: Registry


def make_ground(folder: Path, database: Database, clock: Clock, telling: Telling) -> Ground:
    """The ground of a site in `folder`."""
    pki = make_pki().write(folder)
    section = RepositorySection(name="plant", root=folder / "root.json", upstreams=("/nowhere",), cms_roots=(pki.anchors,))
    proofs, store, shelf = Proofs([section], _now), Store(Disk(), folder / "store"), Shelf({"plant": []})
    room = Room(store, quota_bytes=0, reserve_bytes=0, repositories=["plant"])
    registry = Registry(["plant"])
    unlisted = make_unlisted(database, store, proofs.prove, registry)
    listed, adoption = lambda: shelf.targets("plant"), unlisted.adoption
    vouched = Vouched(room, repository="plant", listed=listed, prove=proofs.prove, adoption=adoption)
    fleet = make_fleet(database, shelf, clock, telling, stuck_after_s=0, verify_within_s=3600)
    return Ground(fleet, shelf, store, vouched, unlisted, registry)


@asynccontextmanager
async def north_site(folder: Path, url: str, token: str, *, prefix: str = "") -> AsyncIterator[NorthSite]:
    """A site that shows `token` as its gateway token; controller ids are `prefix` and the node's name."""
    (folder / "token").write_text(token)
    database = await Database.open(sqlite_url(folder / "gateway.db"))
    try:
        async with _site(folder, database, Clock(), url, prefix) as made:
            yield made
    finally:
        await database.close()


@asynccontextmanager
async def _site(folder: Path, database: Database, clock: Clock, url: str, prefix: str) -> AsyncIterator[NorthSite]:
    teller = HawkbitTeller(COMPANY, clock)
    ground = make_ground(folder, database, clock, Telling({COMPANY: teller}))
    fleet = ground.fleet
    elapsed = [0.0]

    def controller(node: str) -> str:
        return prefix + node

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        client = HawkbitClient(session, url, "DEFAULT", GatewayToken(folder / "token"), Spacing(1000, now=lambda: 0.0))
        obtain = Obtain(client, ground.vouched, ground.unlisted.joining, ground.unlisted.bodies)
        server = Server(COMPANY, client, obtain, teller)
        delivery = Delivery(database, client, COMPANY, clock, controller=controller, chance=even)
        upstream = HawkbitUpstream(
            database,
            server,
            Following(database, fleet.takeover, server),
            delivery,
            Gateway("gw", "1.0", ""),
            now=clock,
            controller=controller,
            clock=lambda: elapsed[0],
            chance=even,
        )
        yield NorthSite(database, fleet, upstream, delivery, ground.shelf, ground.store, clock, elapsed, prefix)
        await obtain.close()
        await ground.unlisted.bodies.close()


def bundle_bytes(folder: Path, version: str = "1.2") -> bytes:
    """A small signed `.swu`."""
    content = f"root file system {version}".encode()
    file = signed(folder, describe(images=[image("rootfs.img", content)], version=version), {"rootfs.img": content})
    return file.read_bytes()


def even() -> float:
    """No chance."""
    return 0.0


def _now() -> datetime:
    return datetime.now().astimezone()
