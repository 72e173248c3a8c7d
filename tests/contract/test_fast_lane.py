"""The contract with asyncio and aiohttp that the fast lane rests on: the same bytes as through aiohttp, on one connection."""

import asyncio
import os
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.edge import refuse_by_name
from gateway.south import fast_lane
from gateway.south.fast_lane import BLOCK_BYTES, FastLane, Lanes, Lookup
from gateway.south.files import answer, etag_of
from gateway.south.open_files import Lease, OpenFiles
from gateway.south.range_response import RangeResponse
from tests.builders.relayed import open_descriptors, until
from update.chunks.ranges import MultipartParser
from update.digest import digest_of
from update.errors import StoreError
from update.trust.verified import TargetCustom, TargetInfo

SIZE = 1_000_003
CONTENT = random.Random(7).randbytes(SIZE)
PATH = "/repositories/plant/targets/os.bin"


@dataclass
class Rig:
    """One content, served by the lane and by aiohttp; `through_aiohttp` counts what the lane left."""

    file: Path
    files: OpenFiles = field(default_factory=OpenFiles)
    listed: bool = True
    complete: bool = True
    trouble: bool = False
    through_aiohttp: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    def __post_init__(self) -> None:
        self.info = TargetInfo("plant", "os.bin", SIZE, digest_of(CONTENT), TargetCustom(), "targets")
        self.gate.set()
        self.lanes = Lanes(self, admits=lambda _: True, idle_s=60)

    def lookup(self, host: str, path: str) -> Lookup | None:
        return (lambda: self.info if self.listed else None) if path == PATH and host.startswith("x") else None

    def opened(self, info: TargetInfo) -> int | None:
        return self.files.peek(info.sha256)

    async def stored(self, info: TargetInfo) -> Lease | None:
        await self.gate.wait()
        if self.trouble:
            raise StoreError("the disk is gone")
        if not self.complete:
            return None
        return self.files.borrow(info.sha256) or self.files.open(info.sha256, self.file)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.through_aiohttp += 1
        lease = self.files.borrow(self.info.sha256) or self.files.open(self.info.sha256, self.file)
        return RangeResponse(answer(request.method, request.headers, SIZE, etag_of(self.info.sha256)), lease)

    def understands(self, data: bytes) -> bool:
        """Whether the lane would answer this itself."""
        lane = FastLane.__new__(FastLane)
        lane._lanes, lane._rest, lane._lookup = self.lanes, b"", None
        return lane._understand(data) is not None

    async def ask(self, *spans: tuple[int, int], head: str = "") -> list[bytes]:
        """All requests on one connection, one after the other; whole answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        answers = []
        for start, last in spans:
            writer.write(request(start, last, head))
            answers.append(await one_answer(reader))
        writer.close()
        await writer.wait_closed()
        return answers


def request(start: int, last: int, more: str = "", path: str = PATH) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x:8080\r\nAccept: */*\r\n{more}Range: bytes={start}-{last}\r\n\r\n".encode()


def expected(start: int, last: int) -> bytes:
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\nContent-Length: {last - start + 1}\r\n"
        f'ETag: "{digest_of(CONTENT)}"\r\nContent-Range: bytes {start}-{last}/{SIZE}\r\n\r\n'
    )
    return head.encode() + CONTENT[start : last + 1]


def asking(spans: Sequence[tuple[int, int]]) -> bytes:
    wanted = ",".join(f"{start}-{last}" for start, last in spans)
    return f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes={wanted}\r\n\r\n".encode()


def parts_of(reply: bytes) -> list[tuple[int, bytes]]:
    head, _, body = reply.partition(b"\r\n\r\n")
    found = re.search(rb"\r\nContent-Type: multipart/byteranges; boundary=([0-9a-f]{20})\r\n", head)
    assert found is not None
    parser, parts = MultipartParser(found[1].decode(), size=SIZE), list[tuple[int, bytes]]()
    for start in range(0, len(body), 70_000):
        for offset, piece in parser.feed(body[start : start + 70_000]):
            if parts and parts[-1][0] + len(parts[-1][1]) == offset and start:
                parts[-1] = parts[-1][0], parts[-1][1] + piece
            else:
                parts.append((offset, piece))
    assert parser.complete
    return parts


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Rig]:
    file.write_bytes(CONTENT)
    made = Rig(file)
    app = web.Application(middlewares=[refuse_by_name])
    app.router.add_get(PATH, made.handle)
    app.on_shutdown.append(made.lanes.close)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    assert runner.server is not None
    made.port = await made.lanes.listen(runner.server, "127.0.0.1", 0, None, backlog=10)
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()
        made.files.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(tmp_path / "content") as made:
        yield made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, Rig]]:
    """For tests that are no coroutines."""
    with asyncio.Runner() as runner:
        context = serving(tmp_path / "content")
        yield runner, runner.run(context.__aenter__())
        runner.run(context.__aexit__(None, None, None))


async def test_range_after_range_is_answered_as_through_aiohttp(rig: Rig) -> None:
    spans = [(0, 0), (5, 99), (SIZE - 1, SIZE - 1), (100, 100 + BLOCK_BYTES - 1), (7, 70_000)]
    assert await rig.ask(*spans) == [expected(*span) for span in spans]
    assert rig.through_aiohttp == 0
    assert await rig.ask(*spans, head="If-Range: *\r\n") != [expected(*span) for span in spans]
    assert await rig.ask(*spans, head=f'If-Range: "{rig.info.sha256}"\r\n') == [expected(*span) for span in spans]
    assert rig.through_aiohttp == 2 * len(spans)


LARGE = (10, SIZE - 20)


async def test_large_ranges_and_several_are_answered_on_the_same_connection(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    for _ in range(3):
        for span in (LARGE, (0, 9), (1, BLOCK_BYTES + 1)):
            writer.write(request(*span))
            assert await one_answer(reader) == expected(*span)
        spans = [(number * 9000, number * 9000 + 8999 - number) for number in range(100)] + [(950_000, SIZE - 1)]
        writer.write(asking(spans))
        assert parts_of(await one_answer(reader)) == [(start, CONTENT[start : last + 1]) for start, last in spans]
    assert rig.through_aiohttp == 0
    writer.close()
    await writer.wait_closed()


@given(st.lists(st.tuples(st.integers(1, 30_000), st.integers(1, 30_000)), min_size=2, max_size=60), st.randoms())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_ranges_in_any_order_come_as_asked(
    served: tuple[asyncio.Runner, Rig], gaps: list[tuple[int, int]], dice: random.Random
) -> None:
    runner, rig = served
    spans, end = [], 0
    for skip, length in gaps:
        spans.append((end + skip, end + skip + length - 1))
        end = spans[-1][1] + 1
    spans = [span for span in spans if span[1] < SIZE]
    dice.shuffle(spans)
    if len(spans) < 2:
        return

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
        writer.write(asking(spans))
        try:
            return await one_answer(reader)
        finally:
            writer.close()
            await writer.wait_closed()

    assert parts_of(runner.run(ask())) == [(start, CONTENT[start : last + 1]) for start, last in spans]
    assert rig.through_aiohttp == 0


async def test_head_and_first_part_leave_in_one_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    really = os.writev

    def writev(descriptor: int, pieces: Sequence[bytes]) -> int:
        written.append(b"".join(pieces))
        return really(descriptor, pieces)

    monkeypatch.setattr(fast_lane.os, "writev", writev)  # type: ignore[attr-defined]  # os, as the module sees it
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    writer.write(asking([(5, 70_004), (100_000, 100_009)]))
    await one_answer(reader)
    head, _, body = written[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    assert CONTENT[5 : 5 + (64 << 10)] in body
    writer.close()
    await writer.wait_closed()


async def test_who_reads_a_large_answer_slowly_gets_it_and_who_leaves_frees_it(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    for whole in (True, False):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", rig.port))
            spans = [(start, start + 49_999) for start in range(0, 800_000, 60_000)]
            await loop.sock_sendall(slow, asking(spans))
            got = await loop.sock_recv(slow, 1000)
            length = int(got.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while whole and len(got) < got.index(b"\r\n\r\n") + 4 + length:
                got += await loop.sock_recv(slow, 50_000)
            assert not whole or parts_of(got) == [(start, CONTENT[start : last + 1]) for start, last in spans]
    rig.files.close()
    await until(lambda: str(rig.file) not in open_descriptors())
    await until(lambda: not rig.lanes._lanes)
    assert rig.through_aiohttp == 0


@pytest.mark.parametrize(
    "asked",
    [
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.0\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=9-\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=9-5\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes={SIZE}-{SIZE}\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,5-20\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,-5\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\nRange: bytes=5-6\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nRange: bytes=0-9\r\n\r\nabc",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nRange: bytes=0-9\r\n\r\n0\r\n\r\n",
        f'GET {PATH} HTTP/1.1\r\nHost: x\r\nif-match: "other"\r\nRange: bytes=0-9\r\n\r\n',
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nHost: y\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: X\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH}?a=b HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
        f"GET /%72{PATH[2:]} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
        f"GET http://x{PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\n folded\r\nRange: bytes=0-9\r\n\r\n",
        f"GET {PATH} HTTP/1.1\nHost: x\nRange: bytes=0-9\n\n",
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nX-Long: {'a' * 5000}\r\nRange: bytes=0-9\r\n\r\n",
        "GET /elsewhere HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n",
    ],
)
def test_everything_else_is_left_to_aiohttp(tmp_path: Path, asked: str) -> None:
    assert Rig(tmp_path).understands(request(0, 9))
    assert not Rig(tmp_path).understands(asked.encode())


async def test_what_the_lane_leaves_is_answered_all_the_same(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    writer.write(request(0, 9))
    assert await one_answer(reader) == expected(0, 9)
    writer.write(request(0, 9) + request(20, 29))  # pipelined
    assert [await one_answer(reader), await one_answer(reader)] == [expected(0, 9), expected(20, 29)]
    writer.write(request(0, 9)[:30])
    await asyncio.sleep(0)
    writer.write(request(0, 9)[30:])
    assert await one_answer(reader) == expected(0, 9)
    assert rig.through_aiohttp == 3
    writer.write(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
    writer.close()
    await writer.wait_closed()


async def test_a_head_in_two_pieces_is_answered(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    asked = request(3, 300)
    writer.write(asked[:40])
    await until(lambda: not rig.lanes._lanes)
    writer.write(asked[40:])
    assert await one_answer(reader) == expected(3, 300)
    writer.close()
    await writer.wait_closed()


async def test_content_is_looked_up_anew_at_every_request(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    writer.write(request(0, 9))
    await one_answer(reader)
    rig.listed = False
    writer.write(request(0, 9))
    await one_answer(reader)
    assert rig.through_aiohttp == 1, "what is no longer listed is aiohttp's to refuse"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("what", ["incomplete", "trouble"])
async def test_what_is_not_complete_or_cannot_be_opened_goes_to_aiohttp(rig: Rig, what: str) -> None:
    rig.complete, rig.trouble = what != "incomplete", what == "trouble"
    assert await rig.ask((0, 9), (10, 19)) == [expected(0, 9), expected(10, 19)]
    assert rig.through_aiohttp == 2


async def test_cold_pages_are_read_in_a_thread(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.ask((0, 9))

    def cold(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(fast_lane.os, "preadv", cold)  # type: ignore[attr-defined]  # os, as the module sees it
    assert await rig.ask((0, 9), (5, 70_000)) == [expected(0, 9), expected(5, 70_000)]
    assert rig.through_aiohttp == 0


async def test_what_comes_while_content_is_opened_is_answered_after_it(rig: Rig) -> None:
    rig.gate.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    writer.write(request(0, 9))
    await until(lambda: any(lane._sending for lane in rig.lanes._lanes))
    writer.write(request(10, 19))
    rig.gate.set()
    assert [await one_answer(reader), await one_answer(reader)] == [expected(0, 9), expected(10, 19)]
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_reads_slowly_gets_every_byte(rig: Rig) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", rig.port))
        for start in (0, 1000, 2000):
            wanted = expected(start, start + BLOCK_BYTES - 1)
            await loop.sock_sendall(slow, request(start, start + BLOCK_BYTES - 1))
            got = b""
            while len(got) < len(wanted):
                got += await loop.sock_recv(slow, 5000)
            assert got == wanted
    assert rig.through_aiohttp == 0


async def test_clients_that_do_not_read_what_they_pipeline_are_held_back(rig: Rig) -> None:
    """The lane keeps one answer at most; then aiohttp has the connection, and stops reading from it."""
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(greedy, ("127.0.0.1", rig.port))
        for start in range(20):
            await loop.sock_sendall(greedy, request(start, start + BLOCK_BYTES - 1))
            await asyncio.sleep(0.005)
        await until(lambda: rig.through_aiohttp > 0)
        wanted = b"".join(expected(start, start + BLOCK_BYTES - 1) for start in range(20))
        got = bytearray()
        while len(got) < len(wanted):
            got += await loop.sock_recv(greedy, 1 << 20)
        assert got == wanted
    assert rig.through_aiohttp < 20


async def test_who_is_idle_is_cut_and_who_asks_is_not(rig: Rig) -> None:
    rig.lanes.idle_s = 0.3
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1 << 20)
    for _ in range(3):
        writer.write(request(0, 9))
        assert await one_answer(reader) == expected(0, 9)
        await asyncio.sleep(0.15)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await until(lambda: not rig.lanes._lanes)


async def test_who_does_not_read_is_cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_lane, "STALL_S", 0.3)
    rig.lanes.idle_s = 0.2
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, ("127.0.0.1", rig.port))
        await loop.sock_sendall(stalled, request(0, BLOCK_BYTES - 1))
        await until(lambda: bool(rig.lanes._lanes))
        await until(lambda: not rig.lanes._lanes, within_s=20)


async def test_a_client_that_goes_away_leaves_nothing_behind(rig: Rig) -> None:
    rig.gate.clear()
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request(0, BLOCK_BYTES - 1))
        await until(lambda: any(lane._sending for lane in rig.lanes._lanes))
        writer.transport.abort()
        rig.gate.set()
        await until(lambda: not rig.lanes._lanes)
        rig.gate.clear()
        rig.files.close()
    await until(lambda: str(rig.file) not in open_descriptors())


async def test_the_end_of_the_application_ends_the_lanes(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(0, 9))
    await one_answer(reader)
    await rig.lanes.close()
    assert await reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", rig.port)
    writer.close()
    await writer.wait_closed()


@given(
    mutation=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([b"", b"\r\n", b"\n", b" ", b"\0", b":", b"%", b"R", b"\xff"]))
    ),
)
@example(mutation=[])
@settings(max_examples=100)
def test_nothing_makes_the_lane_fail_and_what_it_takes_is_one_whole_request(mutation: list[tuple[int, bytes]]) -> None:
    data = request(10, 99)
    for place, new in mutation:
        data = data[:place] + new + data[place + 1 :]
    if Rig(Path("none")).understands(data):
        assert data.endswith(b"\r\n\r\n")
        assert data.count(b"\r\n\r\n") == 1
        assert data.startswith(f"GET {PATH} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "scenario",
    [
        test_range_after_range_is_answered_as_through_aiohttp,
        test_large_ranges_and_several_are_answered_on_the_same_connection,
        test_who_reads_a_large_answer_slowly_gets_it_and_who_leaves_frees_it,
        test_what_the_lane_leaves_is_answered_all_the_same,
        test_what_comes_while_content_is_opened_is_answered_after_it,
        test_a_client_that_reads_slowly_gets_every_byte,
        test_clients_that_do_not_read_what_they_pipeline_are_held_back,
        test_a_client_that_goes_away_leaves_nothing_behind,
        test_the_end_of_the_application_ends_the_lanes,
    ],
)
def test_the_same_holds_on_uvloop(tmp_path: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    new_event_loop = pytest.importorskip("uvloop").new_event_loop

    async def play() -> None:
        async with serving(tmp_path / "content") as rig:
            await scenario(rig)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(play())
