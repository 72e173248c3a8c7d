"""Our own limits on a line: counted and in order, and never taken for the slowness of a peer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.update.wire.scripted import Asked, Scripted, content_range, quick, reply, serve, session
from tests.update.wire.simulated_time import SimulatedTime
from update.chunks.ranges import Range
from update.wire.download import download
from update.wire.http import HttpFetcher, Manner
from update.wire.limits import Shares, fixed
from update.wire.line import BoundedLine
from update.wire.ranged import read_ranges

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass(slots=True)
class Later:
    """A clock that can be put forward: the loop's timers see it too."""

    ahead_s: float = 0.0


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    moved, real = Later(), time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + moved.ahead_s)
    return moved


@dataclass(slots=True)
class SlowLine:
    """A line of which every wait lasts longer than any patience; notes what was paid for."""

    later: Later
    places: list[bool] = field(default_factory=list)
    paid: dict[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def connection(self, *, small: bool) -> AsyncIterator[None]:
        await self._wait()
        self.places.append(small)
        yield

    async def received(self, source: str, count: int) -> None:
        await self._wait()
        self.paid[source] = self.paid.get(source, 0) + count

    async def _wait(self) -> None:
        self.later.ahead_s += 1000.0
        for _ in range(3):
            await asyncio.sleep(0)


async def _answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
    spans = asked.ranges()
    if not spans:
        reply(writer, 200, CONTENT)
    else:
        first, last = spans[0]
        body = CONTENT[first : (last if last is not None else len(CONTENT) - 1) + 1]
        reply(writer, 206, body, content_range(first, body, len(CONTENT)))
    await writer.drain()


Read = Callable[[aiohttp.ClientSession, Scripted, Manner], Awaitable[bytes]]


async def _fetched(client: aiohttp.ClientSession, server: Scripted, manner: Manner) -> bytes:
    return await HttpFetcher(client, server.url, manner).fetch("content", max_bytes=len(CONTENT))


async def _downloaded(client: aiohttp.ClientSession, server: Scripted, manner: Manner) -> bytes:
    sink = _Sink()
    await download(client, f"{server.url}/content", sink, length=len(CONTENT), manner=manner, retry=quick(attempts=1))
    return bytes(sink.data)


async def _ranges(client: aiohttp.ClientSession, server: Scripted, manner: Manner) -> bytes:
    found = bytearray(len(CONTENT))
    wanted = [Range(0, len(CONTENT))]
    async for offset, data in read_ranges(client, f"{server.url}/content", wanted, manner=manner, retry=quick(attempts=1)):
        found[offset : offset + len(data)] = data
    return bytes(found)


@dataclass(slots=True)
class _Sink:
    data: bytearray = field(default_factory=bytearray)

    def size(self) -> int:
        return len(self.data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.data[size:]

    def sync(self) -> None:
        pass


@pytest.mark.parametrize(("read", "small"), [(_fetched, True), (_downloaded, False), (_ranges, False)])
async def test_our_own_waits_are_not_taken_for_a_slow_peer(read: Read, small: bool, later: Later) -> None:
    line = SlowLine(later)
    async with serve(_answer) as server, session() as client:
        assert await read(client, server, Manner(line=line)) == CONTENT
        assert len(server.asked) == 1
    assert line.places == [small]
    assert line.paid == {"127.0.0.1/content": len(CONTENT)}


async def test_what_is_received_is_paid_for_before_more_is_read() -> None:
    clock = SimulatedTime()
    line = BoundedLine(connections=4, shares=Shares(fixed(64 << 10), clock=clock))
    got = bytearray()
    async with serve(_answer) as server, session() as client:
        wanted = [Range(0, len(CONTENT))]

        async def read() -> None:
            async for _, data in read_ranges(client, f"{server.url}/content", wanted, manner=Manner(line=line)):
                got.extend(data)

        reading = asyncio.ensure_future(read())
        while not reading.done():
            paid = (64 << 10) // 4 + (64 << 10) * (clock.time() - 1000.0)
            assert len(got) <= paid
            await clock.advance(0.25)
            await asyncio.wait([reading], timeout=0.001)  # bytes come from a real socket
        await reading
    assert got == CONTENT
    assert clock.time() - 1000.0 >= (len(CONTENT) - (16 << 10)) / (64 << 10)


class Places:
    """Requests that hold their connection until told."""

    def __init__(self, line: BoundedLine) -> None:
        self.line = line
        self.inside: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, name: str, *, small: bool = False) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks.append(asyncio.ensure_future(self._hold(name, small)))
        await self._settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._settle()

    async def cancel(self, place: int) -> None:
        self._tasks[place].cancel()
        await self._settle()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, name: str, small: bool) -> None:
        async with self.line.connection(small=small):
            self.inside.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)

    @staticmethod
    async def _settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def places() -> AsyncIterator[Places]:
    made = Places(BoundedLine(connections=3))
    yield made
    await made.close()


async def test_content_leaves_one_connection_to_small_answers(places: Places) -> None:
    for name in ("a", "b", "c"):
        await places.ask(name)
    assert places.inside == ["a", "b"]
    await places.ask("news", small=True)
    assert places.inside == ["a", "b", "news"]
    await places.ask("more news", small=True)
    assert places.inside == ["a", "b", "news"]
    await places.end("a")
    assert len(places.inside) == 3


async def test_connections_are_given_in_the_order_of_asking(places: Places) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await places.ask(name)
    await places.end("b")
    assert places.inside == ["a", "c"]
    await places.cancel(3)
    await places.end("a")
    assert places.inside == ["c", "e"]


async def test_as_many_as_there_are_connections_are_served_together() -> None:
    places = Places(BoundedLine(connections=1000))
    for number in range(100):
        await places.ask(str(number))
    assert len(places.inside) == 100
    await places.close()
    assert places.inside == []
