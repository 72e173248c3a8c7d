"""`ONLY=relay`: what a hundred nodes with different old versions cost the origin, through the relay and through peers.

The history is that of `history.py`: every client lacks other chunks of the newest `.zck`. The origin is the product's own
counting upstream: every byte that leaves its socket counts, so the heads of answers and of multipart parts too. The clients
are the node's own range reader, which puts up with every answer; a stock client ends at varnish's 416. Peers: the union of
what is needed plus the header (nobody can do with less), the clients going straight to the origin, and caching proxies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
from aiohttp import web

from gateway.north.mirrors import Mirrors
from gateway.north.sources import Current, HttpUpstream
from gateway.north.upstream import Mirror
from gateway.simulators.upstream import Faults, UpstreamServer
from gateway.south.content import ContentServer
from gateway.south.open_files import OpenFiles
from gateway.south.relay import GATHER_S
from gateway.south.relays import Relays
from gateway.south.routes import content_application, make_runner
from tests.benchmarks import patches
from tests.benchmarks.history import History, make_history
from tests.benchmarks.measure import Row, absent
from tests.benchmarks.proxies import nginx_proxy, squid_proxy, varnish_proxy
from tests.builders.repository import START
from update.chunks.ranges import Range
from update.durable import Disk
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor
from update.wire.ranged import read_ranges
from update.wire.session import wan_session

CLIENTS = (10, 100)
WAN_CLIENTS = 2  # nginx makes every one of them wait for whole files
WAN = Faults(bytes_per_s=20_000_000 // 8, first_byte_after_s=0.04)
COLD_CHUNKS = 40
_NAME = "plant"

Proxy = Callable[[str], AbstractContextManager[str]]
"""Starts a proxy before an origin, and gives its address."""


def rows(work: Path) -> Iterator[Row]:
    """Every comparison of this group."""
    history = make_history(work, max(CLIENTS))
    for clients in CLIENTS:
        ours = asyncio.run(_through_relay(work / f"relay-{clients}", history, clients))
        yield from _origin_rows(work, history, clients, ours.origin_bytes)
        if clients == CLIENTS[0]:
            direct = asyncio.run(_direct(history, 1))
            yield Row("second-client-bytes", ours.second_bytes, direct, "direct", "B", goal=0.0)
    yield asyncio.run(_cold(work / "relay-cold", history))
    ours = asyncio.run(_through_relay(work / "relay-wan", history, WAN_CLIENTS, WAN))
    nginx = partial(nginx_proxy, work / "nginx-wan", kind="cache")
    peer = asyncio.run(_through_proxy(nginx, history, WAN_CLIENTS, WAN))
    line = f"nginx proxy_cache, 20 Mbit/s, 40 ms, {WAN_CLIENTS} clients"
    yield Row("wan-wall", ours.wall_s, peer.wall_s, line, "s", goal=1.0)
    yield from patches.rows(work)


def _origin_rows(work: Path, history: History, clients: int, ours: int) -> Iterator[Row]:
    """The union first, which nobody can do with less than."""
    name, union = f"origin-bytes-{clients}", history.union_bytes(clients)
    note = f"heads and multipart frames counted; the union lies in {history.union_ranges(clients)} ranges"
    yield Row(name, ours, union, "union of needed chunks and header", "B", goal=1.001, note=note)
    yield Row(name, ours, asyncio.run(_direct(history, clients)), "direct", "B")
    if clients != CLIENTS[0]:
        return
    proxies: dict[str, Proxy] = {
        f"nginx {kind}": partial(nginx_proxy, work / f"nginx-{kind}", kind=kind) for kind in ("cache", "slice")
    }
    if not absent("squid", "squid"):
        proxies["squid, whole objects, collapsed forwarding"] = squid_proxy
    if not absent("varnishd", "varnish"):
        proxies["varnish, which answers several ranges with 416"] = varnish_proxy
    for peer_name, proxy in proxies.items():
        yield Row(name, ours, asyncio.run(_through_proxy(proxy, history, clients)).origin_bytes, peer_name, "B")


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a run cost: bytes at the origin for all clients, then for one more client, and seconds for all."""

    origin_bytes: int
    second_bytes: int
    wall_s: float


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


async def _through_proxy(proxy: Proxy, history: History, clients: int, faults: Faults | None = None) -> _Cost:
    async with UpstreamServer(history.folder, faults=faults) as origin:
        stack = proxy(origin.url)
        address = await asyncio.to_thread(stack.__enter__)
        try:
            wall_s = await _fetch_all(f"{address}/{history.path}", history, history.clients(clients))
            return _Cost(origin.traffic.sent_bytes, 0, wall_s)
        finally:
            await asyncio.to_thread(stack.__exit__, None, None, None)


async def _cold(state: Path, history: History) -> Row:
    """How long the first byte of a chunk takes that nobody has asked for before; the header is here."""
    chunks = [chunk for chunk in history.index if chunk.length > 1000]
    asked = [Range(chunk.start, chunk.length) for chunk in chunks[:: len(chunks) // COLD_CHUNKS]]
    async with (
        UpstreamServer(history.folder) as origin,
        _relay(state, history, origin.url) as url,
        aiohttp.ClientSession() as session,
    ):
        ours = [await _first_byte_s(session, url, span) for span in asked]
        peer = [await _first_byte_s(session, f"{origin.url}/{history.path}", span) for span in asked]
    relayed_ms, direct_ms = (1000 * median(each[1:]) for each in (ours, peer))  # the first one of ours gets the header too
    more = f"{relayed_ms - direct_ms:.1f} ms more, of which {1000 * GATHER_S:g} ms to gather what others ask"
    return Row("cold-first-byte-ms", relayed_ms, direct_ms, "direct", "ms", note=f"medians of {len(asked) - 1}; {more}")


async def _first_byte_s(session: aiohttp.ClientSession, url: str, span: Range) -> float:
    begun = time.perf_counter()
    async with session.get(url, headers={"Range": f"bytes={span.start}-{span.end - 1}"}) as response:
        await response.content.readany()
        taken_s = time.perf_counter() - begun
        await response.read()
        return taken_s


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


async def _always(_needed_bytes: int) -> bool:
    return True


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
        relays = Relays(store.layout.sparse, disk, mirrors.sources_of, publish=store.publish, find=store.find, spare=_always)
        content = ContentServer(mirrors, store.find, relays, OpenFiles())
        runner = make_runner(content_application(content.routes()))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/repositories/{_NAME}/{history.path}"
        finally:
            await runner.cleanup()
            await relays.close()
