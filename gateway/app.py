"""The gateway as a whole: the only place that knows all parts. Each `_make_…` builds one of them from configuration.

Order of life: lock the state folder, open the database, renew the certificate, show what is on disk, listen for nodes, open
the operator's socket, tell that all is ready; on the way down the reverse. Background work that ends by itself is a defect
and ends the gateway with it, so that whoever supervises it can start it anew.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from gateway.alone import alone
from gateway.background import background_work
from gateway.config import ContentSection, GatewayConfig, SouthSection, StateFolder
from gateway.control.build import Shown, Site, make_control, make_status, serve_operators
from gateway.control.media import media_control
from gateway.database.engine import Database, sqlite_url
from gateway.fleet.attached.build import AttachedDevices, make_attached
from gateway.fleet.build import Fleet, make_fleet
from gateway.fleet.fitness import Fitness
from gateway.fleet.interlocks import SiteInterlocks
from gateway.fleet.intervals import Intervals
from gateway.fleet.nodes import wanted_content
from gateway.fleet.telling import Telling
from gateway.fleet.variants import Variants
from gateway.north.build import make_mirrors, make_prefetch
from gateway.north.elsewhere import Begin, Elsewhere
from gateway.north.intake.build import begin_visits
from gateway.north.manifests import BundleManifests
from gateway.north.means import Common
from gateway.north.mirrors import Mirrors
from gateway.north.proofs import Proofs
from gateway.north.room import Room
from gateway.north.unlisted import UnlistedBundles, make_unlisted
from gateway.north.uploads.build import begin_pushes
from gateway.north.wan import wan_client, wan_line
from gateway.south.announce import keep_announcing
from gateway.south.bodies import Bodies, SignedOrigins, pseudonym
from gateway.south.content import ContentServer
from gateway.south.credentials import Credentials
from gateway.south.ddi.build import ddi_parts
from gateway.south.enroll import Enrollment
from gateway.south.identity import fingerprint_of, renew_certificate, site_authority
from gateway.south.mirrored.build import Routes, mirrored_routes
from gateway.south.open_files import OpenFiles
from gateway.south.pairs.build import pair_patches
from gateway.south.probes.rounds import probing
from gateway.south.prospects import StoredProspects
from gateway.south.proxy import StockContent
from gateway.south.registry import Registry, make_registry
from gateway.south.relays import Find, Relays
from gateway.south.routes import Part, content_application, listen, make_runner, south_application
from gateway.south.scrub import Scrub
from gateway.south.seeds import old_files
from gateway.web.build import Means, serve_page
from update.durable import Disk
from update.errors import StateError, StoreError
from update.store.journal import Journal
from update.store.store import Store
from update.trust.verified import TargetInfo
from update.wire.authority import SiteAuthority
from update.wire.limits import Shares, fixed
from update.wire.line import Line
from update.wire.tls import server_context

_LOG = logging.getLogger(__name__)
_CERTIFICATE_CHECK_S = 12 * 3600.0
_PATIENCE_S = 10.0
_NATIVE_BUNDLE = ".swu"

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Listening:
    """Where nodes find the gateway, once it is ready."""

    port: int


@dataclass(frozen=True, slots=True)
class Ground:
    """What every part stands on."""

    config: GatewayConfig
    folder: StateFolder
    disk: Disk
    now: Now


async def run(config: GatewayConfig, disk: Disk, *, now: Now, stop: asyncio.Event, ready: Callable[[Listening], None]) -> None:
    """Run until `stop` is set; `ready` is called once, when nodes and operators are served.

    Errors: `StateError` before `fieldrelay gateway init`, `BusyError` beside another gateway on the same state,
    `ConfigurationError`, `FormatVersionError`, `FloorError`, `StoreError`.
    """
    ground = Ground(config, StateFolder(config.gateway.state), disk, now)
    with alone(ground.folder.root, ground.folder.lock):
        async with _database(ground) as database, wan_client(config.wan) as session:
            await _run(ground, database, session, stop, ready)


async def _run(
    ground: Ground,
    database: Database,
    session: aiohttp.ClientSession,
    stop: asyncio.Event,
    ready: Callable[[Listening], None],
) -> None:
    config = ground.config
    authority, tls = _make_identity(ground)
    room = _make_room(config, await asyncio.to_thread(Store, ground.disk, ground.folder.store), database)
    registry, proofs = make_registry(config.repository), Proofs(config.repository, ground.now)
    line = wan_line(config.wan, now=ground.now, clock=asyncio.get_running_loop())
    mirrors = _make_mirrors(ground, session, room, line=line, proofs=proofs, registry=registry)
    elsewhere = Elsewhere(config, ground.now)
    find = _find_verified(room.store, mirrors)
    fleet = _make_fleet(ground, database, mirrors, elsewhere.telling, Fitness(BundleManifests(find, proofs)), find=find)
    async with fleet.presence.kept(), AsyncExitStack() as stack:
        origins = SignedOrigins(registry, session, name=pseudonym(), line=line)
        unlisted = _make_unlisted(ground, database, room, proofs, registry)
        bodies = Bodies([mirrors, origins, unlisted.bodies])
        relays = _make_relays(ground, room, bodies, find)
        stack.push_async_callback(relays.close)
        files = stack.enter_context(closing(OpenFiles()))
        room.let_to(relays.evict, files.forget)
        content = ContentServer(mirrors, find, relays, files)
        background = await stack.enter_async_context(background_work())
        await _shown(config, mirrors, unlisted, background)
        background(_keep_certificate(ground, authority, tls), "certificate")
        background(_make_scrub(ground, room, relays, files).run(), "scrub")
        fleet.begin(background)
        prefetch = make_prefetch(config, database, mirrors, relays, store=room.store, proofs=proofs)
        background(prefetch.run(), "prefetch")
        common = Common(database, session, room, line, mirrors, proofs.prove, unlisted)
        doors = await _begin_orders(ground, fleet, common, elsewhere, mirrors=mirrors, relays=relays, begin=background)
        offering = _make_variants(room, mirrors, proofs, registry, find=find, bodies=bodies, unlisted=unlisted)
        attached = await _attached(ground, database, fleet, content, store=room.store, offering=offering, begin=background)
        parts = _make_parts(ground, database, fleet, content, find=find, offering=offering)
        parts += pair_patches(config.south, mirrors, room, disk=ground.disk, find=find, files=files, begin=background)
        shares = _south_shares(config.south)
        enroll, credentials = Enrollment(attached.spare(fleet.tokens), authority, ground.now), Credentials(fleet.accounts)
        south = south_application(parts, open_to_all=[enroll, *doors], credentials=credentials, shares=shares, shelf=content)
        port = await stack.enter_async_context(_tls_listener(config.south, south, tls))
        mirrored = await stack.enter_async_context(_mirrored(ground, session, line))
        own = StockContent(registry, content, name=origins.name)
        await stack.enter_async_context(_plain_listener(config.south.content, own, mirrored, shares))
        await stack.enter_async_context(_towards_nodes(ground, database, fleet, port, authority, begin=background))
        shown = Shown(mirrored.states, elsewhere.states, prefetch.states, attached.states)
        await stack.enter_async_context(_people(ground, database, mirrors, room, fleet=fleet, shown=shown, begin=background))
        ready(Listening(port))
        await stop.wait()


async def _begin_orders(
    ground: Ground, fleet: Fleet, common: Common, elsewhere: Elsewhere, *, mirrors: Mirrors, relays: Relays, begin: Begin
) -> Sequence[Part]:
    """Orders from elsewhere, and what is brought by hand or pushed: what answers pushers."""
    elsewhere.begin(fleet.takeover, common, begin)
    disk, now = ground.disk, ground.now
    begin_visits(ground.config, common, fleet, mirrors=mirrors, chunks=relays, disk=disk, now=now, begin=begin)
    where = (ground.config, common, fleet, elsewhere.hasten)
    return await begin_pushes(*where, mirrors=mirrors, chunks=relays, disk=disk, now=now, begin=begin)


def _mirrored(ground: Ground, session: aiohttp.ClientSession, line: Line) -> AbstractAsyncContextManager[Routes]:
    return mirrored_routes(ground.config, ground.folder, ground.disk, session, ground.now, line=line)


@asynccontextmanager
async def _tls_listener(section: SouthSection, application: web.Application, tls: ssl.SSLContext) -> AsyncGenerator[int]:
    """Listen for nodes; the port."""
    async with _running(make_runner(application)) as south:
        yield await listen(south, section.addresses, section.port, tls, key="south")


@asynccontextmanager
async def _towards_nodes(
    ground: Ground, database: Database, fleet: Fleet, port: int, authority: SiteAuthority, *, begin: Begin
) -> AsyncGenerator[None]:
    """What the gateway begins by itself: it announces itself, and asks nodes that prove nothing what they run."""
    config = ground.config
    if config.south.interfaces:
        begin(_announcement(config, port, authority), "announcement")
    async with probing(config.probe, database, fleet.sightings, begin):
        yield


async def _announcement(config: GatewayConfig, port: int, authority: SiteAuthority) -> None:
    interfaces, fingerprint = config.south.interfaces, fingerprint_of(authority)
    await keep_announcing(config.gateway.name, port, interfaces, fingerprint=fingerprint)


@asynccontextmanager
async def _database(ground: Ground) -> AsyncGenerator[Database]:
    database = await Database.open(ground.config.gateway.database or sqlite_url(ground.folder.database))
    try:
        yield database
    finally:
        await database.close()


def _make_identity(ground: Ground) -> tuple[SiteAuthority, ssl.SSLContext]:
    certificate, _ = ground.folder.authority
    if not certificate.exists():
        raise StateError(f"{certificate} is missing; `fieldrelay gateway init` makes it, or restore it from a backup")
    authority = site_authority(ground.disk, ground.folder, ground.config.gateway.name, ground.now())
    renew_certificate(ground.disk, ground.folder, authority, ground.config, ground.now())
    return authority, server_context(*ground.folder.server, certificate)


async def _keep_certificate(ground: Ground, authority: SiteAuthority, tls: ssl.SSLContext) -> None:
    """Renew the certificate while the gateway runs; connections made afterwards see the new one."""
    while True:
        await asyncio.sleep(_CERTIFICATE_CHECK_S)
        try:
            if renew_certificate(ground.disk, ground.folder, authority, ground.config, ground.now()):
                tls.load_cert_chain(*ground.folder.server)
                _LOG.info("renewed the gateway's certificate")
        except StoreError as error:
            _LOG.error("the gateway's certificate is due and cannot be renewed: %s (%s)", error, error.code)


def _make_room(config: GatewayConfig, store: Store, database: Database) -> Room:
    quota_bytes, reserve_bytes = config.store.quota_bytes, config.store.reserve_bytes
    repositories, wanted = [section.name for section in config.repository], partial(wanted_content, database)
    return Room(store, quota_bytes=quota_bytes, reserve_bytes=reserve_bytes, repositories=repositories, wanted=wanted)


def _make_fleet(ground: Ground, database: Database, mirrors: Mirrors, telling: Telling, fitness: Fitness, *, find: Find) -> Fleet:
    south = ground.config.south
    return make_fleet(
        database,
        mirrors,
        ground.now,
        telling,
        stuck_after_s=south.stuck_after_s,
        verify_within_s=south.verify_within_s,
        fitness=fitness,
        find=find,
        interlocks=SiteInterlocks(ground.config.interlock),
    )


def _intervals(section: SouthSection) -> Intervals:
    return Intervals(section.polling_interval_s, [(each.nodes, each.interval_s) for each in section.polling])


def _south_shares(section: SouthSection) -> Shares | None:
    """What the nodes share; None without limits."""
    if not section.bytes_per_s and not section.node_bytes_per_s:
        return None
    each = fixed(section.node_bytes_per_s)
    return Shares(fixed(section.bytes_per_s), each=each, clock=asyncio.get_running_loop())


def _make_mirrors(
    ground: Ground, session: aiohttp.ClientSession, room: Room, *, line: Line, proofs: Proofs, registry: Registry
) -> Mirrors:
    where = (ground.config, ground.folder, ground.disk, session, ground.now)
    return make_mirrors(*where, room=room, line=line, proofs=proofs, learn=registry.learn, shown=registry.shown)


def _make_relays(ground: Ground, room: Room, bodies: Bodies, find: Find) -> Relays:
    store = room.store
    look = partial(old_files, store.layout)
    return Relays(
        store.layout.sparse,
        ground.disk,
        bodies.sources_of,
        publish=store.publish,
        find=find,
        grow=room.grow,
        spare=room.spare,
        look=look,
    )


def _make_unlisted(ground: Ground, database: Database, room: Room, proofs: Proofs, registry: Registry) -> UnlistedBundles:
    journal, expecting = Journal(ground.disk, ground.folder.joined), bool(ground.config.hawkbit)
    return make_unlisted(database, room.store, proofs.prove, registry, journal, expecting=expecting)


def _make_variants(
    room: Room, mirrors: Mirrors, proofs: Proofs, registry: Registry, *, find: Find, bodies: Bodies, unlisted: UnlistedBundles
) -> Variants:
    deltas_of, sparse = partial(proofs.deltas_of, room.store), room.store.layout.sparse
    prospects = StoredProspects(deltas_of, registry, find, sparse, bodies.reachable, look=unlisted.bodies.look)
    return Variants(mirrors, prospects, unlisted.forms)


def _make_parts(
    ground: Ground, database: Database, fleet: Fleet, content: ContentServer, *, find: Find, offering: Variants
) -> list[Part]:
    """What nodes ask for: their orders, and content."""
    intervals = _intervals(ground.config.south)
    return [*ddi_parts(database, fleet, content, find, ground.now, intervals=intervals, offering=offering), content]


async def _attached(
    ground: Ground, database: Database, fleet: Fleet, content: ContentServer, *, store: Store, offering: Variants, begin: Begin
) -> AttachedDevices:
    """The agents of devices that have none, begun."""
    where = (ground.config, ground.disk, database, fleet, content)
    devices = await make_attached(*where, layout=store.layout, offering=offering, now=ground.now)
    devices.begin(begin)
    return devices


def _make_scrub(ground: Ground, room: Room, relays: Relays, files: OpenFiles) -> Scrub:
    every_s, journal = ground.config.store.scrub_days * 86400.0, Journal(ground.disk, ground.folder.scrub)
    now, forget = lambda: ground.now().timestamp(), files.forget
    return Scrub(room.store, relays, journal, every_s=every_s, now=now, forget=forget, report=room.note_damage)


def _find_verified(store: Store, mirrors: Mirrors) -> Find:
    """Stored content, hashed at its first use by this process: what rotted on disk counts as missing and is fetched again.

    What is stored for one repository serves another that lists the same content.
    """

    def find(info: TargetInfo) -> Path | None:
        for each in (info, *mirrors.twins(info)):
            try:
                return store.open_verified(each).file
            except StoreError as error:
                _LOG.debug("%s of %s: %s", each.path, each.repository, error)
        return None

    return find


@asynccontextmanager
async def _people(
    ground: Ground, database: Database, mirrors: Mirrors, room: Room, *, fleet: Fleet, shown: Shown, begin: Begin
) -> AsyncGenerator[None]:
    """The operators' socket for commands, and everybody's page."""
    site = Site(ground.config.gateway.name, ground.now, _intervals(ground.config.south), shown)
    status = make_status(database, mirrors, room, fleet, site)
    means = Means(ground.disk, ground.now, ground.folder.server, begin)
    parts = [*make_control(database, mirrors, status, fleet), media_control(ground.config, ground.disk)]
    operators = serve_operators(ground.config.control, parts, ground.disk)
    async with operators, serve_page(ground.config, status, means):
        yield


async def _shown(config: GatewayConfig, mirrors: Mirrors, unlisted: UnlistedBundles, begin: Begin) -> None:
    """Begin to mirror, and wait until what is on disk is shown, so that nodes find it at once; much is read on meanwhile."""
    if not config.repository:
        return
    begin(mirrors.run(), "mirror")
    with suppress(TimeoutError, StoreError):
        async with asyncio.timeout(_PATIENCE_S):
            await mirrors.restored.wait()
            await unlisted.adoption.look()


@asynccontextmanager
async def _running(runner: web.AppRunner) -> AsyncGenerator[web.AppRunner]:
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _plain_listener(
    section: ContentSection, own: StockContent, mirrored: Routes, shares: Shares | None
) -> AsyncGenerator[None]:
    """For stock clients that cannot do TLS, where it is switched on."""
    if not section.enabled:
        yield
        return
    stock = [*(own.peer_routes() if section.peers else []), *mirrored.before(own)]
    async with _running(make_runner(content_application(stock, shares=shares, shelf=own))) as plain:
        await listen(plain, section.addresses, section.port, None, key="south.content")
        yield
