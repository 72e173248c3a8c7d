"""Content is sent as fast as each node's share allows: bytes are counted against simulated time, on real sockets."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from gateway.south.files import answer, etag_of
from gateway.south.identity import Identity
from gateway.south.open_files import OpenFiles
from gateway.south.range_response import BLOCK_BYTES, RangeResponse
from gateway.south.routes import content_application, make_runner, south_application
from tests.update.wire.simulated_time import SimulatedTime
from update.chunks.ranges import MultipartParser, Range
from update.digest import digest_of
from update.wire.limits import Shares, fixed

SIZE = 1 << 20
CONTENT = random.Random(5).randbytes(SIZE)
RATE = 256 << 10
BURST = RATE // 4
STILL = 3
FRAMES_BYTES = 4096
"""Heads and boundaries, which are not counted exactly."""


@dataclass(slots=True)
class Client:
    """One request, and what has come of its answer."""

    got: bytearray = field(default_factory=bytearray)
    done: bool = False

    async def read(self, port: int, *headers: str, source: str = "127.0.0.1") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            writer.write("\r\n".join(["GET /content HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]).encode())
            while data := await reader.read(1 << 16):
                self.got += data
        finally:
            self.done = True
            writer.close()

    @property
    def body(self) -> bytes:
        return bytes(self.got).partition(b"\r\n\r\n")[2]


class Parts:
    """The content as a part of the south side."""

    def __init__(self, folder: Path) -> None:
        self.files = OpenFiles(limit=4)
        self._path, self._digest = folder / "content", digest_of(CONTENT)
        self._path.write_bytes(CONTENT)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/content", self._handle)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        lease = self.files.borrow(self._digest) or self.files.open(self._digest, self._path)
        return RangeResponse(answer(request.method, request.headers, SIZE, etag_of(self._digest)), lease)


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[int]:
    runner = make_runner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def drive(clock: SimulatedTime, clients: list[Client], check: Callable[[], None]) -> None:
    """Let time pass when somebody waits for it and no more bytes come, until all have everything."""
    before, still = 0, 0
    for _ in range(100_000):
        check()
        if all(client.done for client in clients):
            return
        had = sum(len(client.got) for client in clients)
        before, still = had, still + 1 if had == before else 0
        if clock.idle or still < STILL:
            await asyncio.sleep(0.001)
        else:
            await clock.advance(0.05)
            still = 0
    pytest.fail("the answers do not end")


def bounded(clock: SimulatedTime, clients: list[Client], rate: int) -> Callable[[], None]:
    """Nobody ever has more than the rate allowed up to now."""

    def check() -> None:
        allowed = rate // 4 + rate * (clock.time() - 1000.0) + len(clients) * FRAMES_BYTES
        assert sum(len(client.got) for client in clients) <= allowed

    return check


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(50_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it does not come")


async def reading(clock: SimulatedTime, rate: int, works: Sequence[tuple[Client, Awaitable[None]]]) -> None:
    tasks = [asyncio.ensure_future(work) for _, work in works]
    clients = [client for client, _ in works]
    try:
        await drive(clock, clients, bounded(clock, clients, rate))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


SPANS = (Range(0, 300_000), Range(400_000, 10), Range(500_000, 300_000))


@pytest.mark.parametrize("header", ["X: whole, by sendfile", f"Range: bytes={','.join(f'{s.start}-{s.end - 1}' for s in SPANS)}"])
async def test_a_node_is_never_sent_more_than_its_rate_allows(tmp_path: Path, header: str) -> None:
    clock, client, parts = SimulatedTime(), Client(), Parts(tmp_path)
    application = content_application(parts.routes(), shares=Shares(fixed(0), each=fixed(RATE), clock=clock))
    async with serving(application) as port:
        await reading(clock, RATE, [(client, client.read(port, header))])
    parts.files.close()
    if header.startswith("Range"):
        boundary = bytes(client.got).partition(b"boundary=")[2][:20].decode()
        found = bytearray(SIZE)
        for offset, data in MultipartParser(boundary, size=SIZE, max_parts=3).feed(client.body):
            found[offset : offset + len(data)] = data
        assert all(found[span.start : span.end] == CONTENT[span.start : span.end] for span in SPANS)
    else:
        assert client.body == CONTENT
    assert clock.time() - 1000.0 >= (len(client.body) - BURST) / RATE - 0.001


async def test_nodes_share_what_is_sent_to_all(tmp_path: Path) -> None:
    clock, parts = SimulatedTime(), Parts(tmp_path)
    many, one = [Client() for _ in range(4)], Client()
    application = content_application(parts.routes(), shares=Shares(fixed(RATE), clock=clock))
    async with serving(application) as port:
        works = [(client, client.read(port, source="127.0.0.2")) for client in many]
        await reading(clock, RATE, [*works, (one, _then_the_others_have_half(one, many, port))])
    parts.files.close()
    assert [client.body for client in (*many, one)] == [CONTENT] * 5


async def _then_the_others_have_half(one: Client, many: list[Client], port: int) -> None:
    """When the address with one request has everything, the one with four has as much: not four times as much."""
    await one.read(port, source="127.0.0.3")
    others = sum(len(client.got) for client in many)
    assert others <= 2 * SIZE, "an address with several requests got more than its share"


async def test_a_node_is_its_certificate_s_name_whatever_its_address(tmp_path: Path) -> None:
    clock, parts = SimulatedTime(), Parts(tmp_path)

    def identify(request: web.Request) -> Identity:
        return Identity(request.headers["X-Node"], digest_of(b""))

    shares = Shares(fixed(0), each=fixed(RATE), clock=clock)
    application = south_application([parts], open_to_all=[], identify=identify, shares=shares)
    same = [Client(), Client()]
    async with serving(application) as port:
        works = [(each, each.read(port, "X-Node: n1", source=f"127.0.0.{2 + n}")) for n, each in enumerate(same)]
        await reading(clock, RATE, works)
    parts.files.close()
    assert [client.body for client in same] == [CONTENT, CONTENT]
    assert clock.time() - 1000.0 >= (2 * SIZE - BURST) / RATE - 0.001


async def test_a_client_that_goes_away_while_it_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    clock, parts, gone, stays = SimulatedTime(), Parts(tmp_path), Client(), Client()
    shares = Shares(fixed(RATE), clock=clock)
    async with serving(content_application(parts.routes(), shares=shares)) as port:
        task = asyncio.ensure_future(gone.read(port, source="127.0.0.2"))
        await _until(lambda: len(gone.got) > BURST // 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reading(clock, RATE, [(stays, stays.read(port))])
    parts.files.close()
    assert stays.body == CONTENT


async def test_without_limits_no_time_passes(tmp_path: Path) -> None:
    clock, client, parts = SimulatedTime(), Client(), Parts(tmp_path)
    async with serving(content_application(parts.routes())) as port:
        await client.read(port)
    parts.files.close()
    assert client.body == CONTENT
    assert clock.idle


async def test_a_small_rate_sends_head_and_first_part_together(tmp_path: Path) -> None:
    clock, client, parts = SimulatedTime(), Client(), Parts(tmp_path)
    shares = Shares(fixed(0), each=fixed(4096), clock=clock)
    async with serving(content_application(parts.routes(), shares=shares)) as port:
        task = asyncio.ensure_future(client.read(port, "Range: bytes=0-5000,9000-9100"))
        while not client.got:
            await (asyncio.sleep(0.001) if clock.idle else clock.advance(0.05))
        first = bytes(client.got)
        await drive(clock, [client], lambda: None)
        await task
    parts.files.close()
    assert b"\r\n\r\n" in first.partition(b"Content-Range: bytes 0-5000/")[2]
    assert len(client.got) < BLOCK_BYTES
