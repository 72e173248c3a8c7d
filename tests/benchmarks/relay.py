"""`ONLY=relay`: what a hundred nodes with different old versions cost the origin, through the relay and through peers.

A history of old versions is made by seeded edits of one ext4 image of libraries; every client lacks other chunks of the newest
`.zck`. The origin is the product's own counting upstream: bytes are counted at its socket, heads included. The clients are
the node's own range reader. Peers: the union of what is needed plus the header (nobody can do with less), the clients going
straight to the origin, and nginx as proxy_cache with lock and with slice.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from gateway.north.mirrors import Mirrors
from gateway.north.sources import Current, HttpUpstream
from gateway.north.upstream import Mirror
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.relays import Relays
from gateway.south.routes import content_application, make_runner
from tests.benchmarks import patches
from tests.benchmarks.measure import Row, tool
from tests.benchmarks.proxies import nginx_proxy
from tests.builders.libraries import library_ext4
from tests.builders.repository import START, RepositoryBuilder
from update.chunks.chunker import file_reader, index_image
from update.chunks.plan import Source, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import digest_of
from update.durable import Disk
from update.publish.images import write_zchunk
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.wire.ranged import read_ranges
from update.wire.session import wan_session

CONTENT_BYTES = 120 << 20
CLIENTS = (10, 100)
WAN_CLIENTS = 2  # nginx makes every one of them wait for whole files
WAN_BYTES_PER_S = 20_000_000 // 8
EDITS_PER_VERSION = 4
CLUSTER_BYTES = 128 << 10
_NAME = "plant"


@dataclass(frozen=True, slots=True)
class History:
    """The newest `.zck`, published in a folder, and what each client lacks of it."""

    folder: Path
    root: bytes
    path: str
    content: bytes
    index: HeaderIndex
    wanted: tuple[tuple[Range, ...], ...]

    def clients(self, count: int) -> tuple[tuple[Range, ...], ...]:
        """What `count` clients lack whose versions are spread over the history."""
        return self.wanted[:: len(self.wanted) // count]

    def union_bytes(self, clients: int) -> int:
        """Header and every chunk that one of the first `clients` lacks, once."""
        spans = (span for ranges in self.clients(clients) for span in ranges)
        numbers = {number for span in spans for number in self.index.covering(span.start, span.length)}
        return self.index.header_size + sum(self.index[number].length for number in numbers)


def rows(work: Path) -> Iterator[Row]:
    """Every comparison of this group."""
    history = _make_history(work, max(CLIENTS))
    for clients in CLIENTS:
        union = history.union_bytes(clients)
        ours = asyncio.run(_through_relay(work / f"relay-{clients}", history, clients))
        yield Row(f"origin-bytes-{clients}", ours.origin_bytes, union, "union of needed chunks and header", "B", goal=1.001)
        yield Row(f"origin-bytes-{clients}", ours.origin_bytes, asyncio.run(_direct(history, clients)), "direct", "B")
        if clients == CLIENTS[0]:
            for kind in ("cache", "slice"):
                peer = asyncio.run(_through_nginx(work / f"nginx-{kind}", kind, history, clients))
                yield Row(f"origin-bytes-{clients}", ours.origin_bytes, peer.origin_bytes, f"nginx {kind}", "B")
            direct = asyncio.run(_direct(history, 1))
            yield Row("second-client-bytes", ours.second_bytes, direct, "direct", "B", goal=0.0)
    slow = Faults(bytes_per_s=WAN_BYTES_PER_S)
    ours = asyncio.run(_through_relay(work / "relay-wan", history, WAN_CLIENTS, slow))
    peer = asyncio.run(_through_nginx(work / "nginx-wan", "cache", history, WAN_CLIENTS, slow))
    yield Row("wan-wall", ours.wall_s, peer.wall_s, f"nginx proxy_cache, 20 Mbit/s, {WAN_CLIENTS} clients", "s", goal=1.0)
    yield from patches.rows(work)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a run cost: bytes at the origin for all clients, then for one more client, and seconds for all."""

    origin_bytes: int
    second_bytes: int
    wall_s: float


def _make_history(work: Path, versions: int) -> History:
    image = library_ext4(work / "image", CONTENT_BYTES, tool("mkfs.ext4"))
    zck = work / "image.zck"
    index = write_zchunk(image, zck, Disk())
    content = zck.read_bytes()
    builder = RepositoryBuilder(now=START)
    pinned = {"zckHeader": {"sha256": digest_of(index.raw), "length": index.header_size}}
    builder.add_target("image.zck", content, pinned)
    builder.publish()
    folder = work / "origin"
    builder.write_to(folder)
    dice, old, wanted = random.Random(7), bytearray(image.read_bytes()), []
    for _ in range(versions):
        for _ in range(EDITS_PER_VERSION):
            at = dice.randrange(len(old) // CLUSTER_BYTES) * CLUSTER_BYTES
            old[at : at + CLUSTER_BYTES] = dice.randbytes(CLUSTER_BYTES)
        wanted.append(_lacking(work / "old", bytes(old), index))
    path = f"targets/{digest_of(content)}.image.zck"
    return History(folder, builder.root_bytes, path, content, index, tuple(wanted))


def _lacking(file: Path, old: bytes, index: HeaderIndex) -> tuple[Range, ...]:
    file.write_bytes(old)
    with file.open("rb") as opened:
        source = Source(index_image(file_reader(opened.fileno()), len(old)))
    return plan_delta(index, source).ranges


async def _through_relay(state: Path, history: History, clients: int, faults: Faults | None = None) -> _Cost:
    async with UpstreamServer(history.folder, faults=faults) as origin, _relay(state, history, origin.url) as url:
        before = origin.traffic.sent_bytes
        wall_s = await _fetch_all(url, history, history.clients(clients))
        middle = origin.traffic.sent_bytes
        await _fetch_all(url, history, history.clients(1))
        return _Cost(middle - before, origin.traffic.sent_bytes - middle, wall_s)


async def _direct(history: History, clients: int) -> int:
    async with UpstreamServer(history.folder) as origin:
        await _fetch_all(f"{origin.url}/{history.path}", history, history.clients(clients))
        return origin.traffic.sent_bytes


async def _through_nginx(work: Path, kind: str, history: History, clients: int, faults: Faults | None = None) -> _Cost:
    async with UpstreamServer(history.folder, faults=faults) as origin:
        with nginx_proxy(work, origin.url, kind) as address:
            wall_s = await _fetch_all(f"{address}/{history.path}", history, history.clients(clients))
        return _Cost(origin.traffic.sent_bytes, 0, wall_s)


async def _fetch_all(url: str, history: History, wanted: Sequence[tuple[Range, ...]]) -> float:
    """All clients at once, every byte compared; seconds."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(_fetch(session, url, history, ranges) for ranges in wanted))
        return time.perf_counter() - begun


async def _fetch(session: aiohttp.ClientSession, url: str, history: History, ranges: tuple[Range, ...]) -> None:
    missing = sum(span.length for span in ranges)
    async for offset, piece in read_ranges(session, url, ranges, size=len(history.content)):
        if history.content[offset : offset + len(piece)] != piece:
            raise ValueError(f"wrong bytes at {offset}")
        missing -= len(piece)
    if missing:
        raise ValueError(f"{missing} bytes did not come")


@asynccontextmanager
async def _relay(state: Path, history: History, origin: str) -> AsyncIterator[str]:
    """The gateway's content side over the origin; the URL of the image through it."""
    disk = Disk()
    store = Store(disk, state / "store")
    floor = Floor(disk, (state / "floor-1", state / "floor-2"))
    floor.create()
    async with wan_session() as session:
        upstream = HttpUpstream(session, origin)
        current = Current(upstream)
        trusted = store.layout.trusted(_NAME)
        repository = Repository(
            _NAME, trusted=trusted, root=history.root, fetcher=current, disk=disk, floor=floor, now=lambda: START
        )
        mirror = Mirror(repository, current, [upstream], store, hardware=(), inspect=lambda _file, _info: None, now=lambda: START)
        mirrors = Mirrors([mirror], {_NAME: 3600})
        await mirrors.refresh(_NAME)
        relays = Relays(store.layout.sparse, disk, mirrors.sources_of, publish=store.publish, find=store.find)
        content = ContentServer(mirrors, store.find, relays, OpenFiles())
        runner = make_runner(content_application(content.routes()))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/repositories/{_NAME}/{history.path}"
        finally:
            await runner.cleanup()
            await relays.close()
