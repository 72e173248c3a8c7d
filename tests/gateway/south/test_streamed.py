"""Long answers are sent while they come, are refused only before their first byte, and cut only when nothing else helps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.south.open_files import Lease, once
from gateway.south.streamed import Streaming, Windows
from tests.builders.relayed import body_of, everything_else_ended, make_zck, open_descriptors, until
from tests.builders.stock_listener import FOREIGN, Listener, Reply
from update.chunks.ranges import Range
from update.errors import ChunkError, UnreachableError

WINDOW = 120_000
QUICK = Streaming(window_bytes=WINDOW, from_bytes=300_000, hold_s=20.0, pause_s=0.01)
BRIEF = Streaming(window_bytes=WINDOW, from_bytes=300_000, hold_s=0.3, pause_s=0.01)
WAYS = [[], ["Range: bytes=100-"]]


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[Listener]:
    runner = await listener.start()
    try:
        yield listener
    finally:
        listener.upstream.gate.set()
        await runner.cleanup()
        await listener.site.relays.close()
        listener.files.close()


@pytest.fixture
async def listener(tmp_path: Path, zck: Path) -> AsyncIterator[Listener]:
    async with running(Listener(tmp_path, zck, streaming=QUICK)) as made:
        yield made


class Client:
    """Reads as much as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer, self.raw = reader, writer, b""

    async def head(self) -> Reply:
        self.raw = await self.reader.readuntil(b"\r\n\r\n")
        return Reply(self.raw)

    async def body(self, count: int) -> bytes:
        return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Until the end, or until it is cut."""
        rest = b""
        with suppress(ConnectionResetError):
            while piece := await self.reader.read(1 << 16):
                rest += piece
        return rest

    async def leave(self) -> None:
        self._writer.transport.abort()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


@asynccontextmanager
async def asking(listener: Listener, *fields: str) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    client = Client(reader, writer)
    writer.write("\r\n".join([f"GET {FOREIGN} HTTP/1.1", "Host: x", *fields, "Connection: close", "", ""]).encode())
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        await client.leave()


@pytest.mark.parametrize("fields", WAYS, ids=["whole", "range"])
async def test_a_long_answer_begins_with_what_is_here_and_goes_on_as_it_comes(listener: Listener, fields: list[str]) -> None:
    listener.upstream.gate_from = len(listener.image) // 2
    listener.upstream.gate.clear()
    start = 100 if fields else 0
    async with asking(listener, *fields) as client:
        reply = await client.head()
        assert reply.status == (206 if fields else 200)
        assert f"\r\ncontent-length: {len(listener.image) - start}" in reply.head
        assert f'\r\netag: "{listener.info.sha256}"' in reply.head
        assert "transfer-encoding" not in reply.head
        first = await client.body(WINDOW)
        listener.upstream.gate.set()
        assert first + await client.rest() == listener.image[start:]
    assert listener.upstream.bytes_asked() == len(listener.image)


async def test_no_more_than_two_windows_are_asked_for_ahead_and_nothing_for_who_has_gone(listener: Listener) -> None:
    before = open_descriptors()
    listener.upstream.gate_from = len(listener.image) // 2
    listener.upstream.gate.clear()
    async with asking(listener) as client:
        await client.head()
        await client.body(len(listener.image) // 4)
    listener.upstream.gate.set()
    await until(lambda: not listener.site.relays._users)
    most_chunk = 131_072
    assert listener.upstream.bytes_asked() <= len(listener.image) // 2 + 2 * WINDOW + 2 * most_chunk
    await until(lambda: len([name for name in open_descriptors() if name.endswith(".zck")]) == 1)
    await listener.site.relays.close()
    assert [name for name in open_descriptors() if name.endswith(".zck")] == [name for name in before if name.endswith(".zck")]


@pytest.mark.parametrize("fields", WAYS, ids=["whole", "range"])
async def test_an_upstream_that_comes_back_in_time_costs_the_client_nothing(listener: Listener, fields: list[str]) -> None:
    upstream = listener.upstream
    upstream.gate_from = len(listener.image) // 2
    upstream.gate.clear()
    async with asking(listener, *fields) as client:
        await client.head()
        first = await client.body(WINDOW)
        upstream.fail_after = 0
        upstream.gate.set()
        await until(lambda: upstream.failures >= 4)
        upstream.fail_after = None
        assert first + await client.rest() == listener.image[100 if fields else 0 :]


async def test_an_upstream_that_stays_away_cuts_the_body_and_the_client_goes_on_where_it_was(tmp_path: Path, zck: Path) -> None:
    async with running(Listener(tmp_path, zck, streaming=BRIEF)) as listener:
        upstream = listener.upstream
        upstream.gate_from = len(listener.image) // 2
        upstream.gate.clear()
        async with asking(listener) as client:
            await client.head()
            first = await client.body(WINDOW)
            upstream.fail_after = 0
            upstream.gate.set()
            got = first + await client.rest()
        assert len(got) < len(listener.image), "the Content-Length tells the client"
        assert got == listener.image[: len(got)]
        upstream.fail_after = None
        resumed = await listener.ask(FOREIGN, f"Range: bytes={len(got)}-", f'If-Range: "{listener.info.sha256}"')
        assert (resumed.status, got + resumed.body) == (206, listener.image)


@pytest.mark.parametrize("fields", WAYS, ids=["whole", "range"])
async def test_what_fails_before_the_first_byte_is_refused_by_name(listener: Listener, fields: list[str]) -> None:
    listener.upstream.fail_after = 0
    reply = await listener.ask(FOREIGN, *fields)
    assert (reply.status, b"wire.unreachable" in reply.body) == (502, True)


async def test_several_ranges_are_never_begun_before_all_of_them_are_here(listener: Listener) -> None:
    size = len(listener.image)
    listener.upstream.gate_from = size // 2
    listener.upstream.gate.clear()
    async with asking(listener, f"Range: bytes=100-400000,{size - 400_000}-") as client:
        head = asyncio.create_task(client.head())
        await until(lambda: listener.upstream.bytes_asked() > 700_000)
        async with asking(listener, "Range: bytes=100-200") as other:  # answered: by then the first would have begun
            assert (await other.head()).status == 206
        assert not head.done()
        listener.upstream.gate.set()
        assert (await head).status == 206


async def test_without_room_a_file_larger_than_the_memory_is_passed_on_by_windows(tmp_path: Path, zck: Path) -> None:
    async with running(Listener(tmp_path, zck, streaming=QUICK, memory_bytes=400_000)) as listener:
        assert len(listener.image) > 2 * 400_000
        listener.site.full = True
        replies = await asyncio.gather(*(listener.ask(FOREIGN) for _ in range(4)))
        assert [reply.body == listener.image for reply in replies] == [True] * 4


async def test_what_is_complete_meanwhile_is_read_from_the_store(listener: Listener, zck: Path) -> None:
    listener.upstream.gate_from = len(listener.image) // 2
    listener.upstream.gate.clear()
    async with asking(listener) as client:
        await client.head()
        first = await client.body(WINDOW)
        listener.upstream.gate.set()
        await listener.site.read(listener.info, body_of(zck))
        await listener.site.relays.settle()
        assert listener.site.published
        assert first + await client.rest() == listener.image


class Counted:
    """Lends windows and counts what was not given back."""

    def __init__(self, lend: Callable[[Range], Awaitable[None]]) -> None:
        self._lend = lend
        self.lent = 0

    async def __call__(self, window: Range) -> Lease:
        await self._lend(window)
        self.lent += 1
        return Lease(-1, once(self._back))

    def _back(self) -> None:
        self.lent -= 1


async def read_all(windows: Windows) -> list[Range]:
    """As a response does it."""
    read: list[Range] = []
    try:
        await windows.begin()
        while current := await windows.current():
            read.append(current[0])
            await asyncio.sleep(0)
            windows.next()
    finally:
        await windows.close()
    return read


async def slow(_window: Range) -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_windows_follow_each_other_and_cover_the_span() -> None:
    counted = Counted(slow)
    read = await read_all(Windows(Range(50, 1000), counted, Streaming(window_bytes=300)))
    assert read == [Range(50, 300), Range(350, 300), Range(650, 300), Range(950, 100)]
    assert counted.lent == 0


async def test_the_next_window_is_asked_for_before_the_one_at_hand_was_sent() -> None:
    asked: list[int] = []

    async def note(window: Range) -> None:
        asked.append(window.start)

    windows = Windows(Range(0, 1000), Counted(note), Streaming(window_bytes=300))
    await windows.begin()
    await asyncio.sleep(0)
    assert asked == [0, 300]
    windows.next()
    await asyncio.sleep(0)
    assert asked == [0, 300, 600]
    await windows.close()


async def test_whenever_the_client_goes_away_everything_is_given_back() -> None:
    for steps in range(100):
        counted = Counted(slow)
        reader = asyncio.create_task(read_all(Windows(Range(0, 1000), counted, Streaming(window_bytes=300))))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = reader.done()
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        await everything_else_ended()
        assert counted.lent == 0
        if finished:
            break
    assert 5 < steps < 99


@pytest.mark.parametrize("error", [UnreachableError("gone"), ChunkError("wrong")], ids=lambda error: error.code)
async def test_a_first_window_that_fails_is_asked_for_once_and_everything_is_given_back(error: Exception) -> None:
    asked: list[Range] = []

    async def fail(window: Range) -> None:
        asked.append(window)
        if not window.start:
            raise error

    counted = Counted(fail)
    with pytest.raises(type(error)):
        await read_all(Windows(Range(0, 1000), counted, Streaming(window_bytes=300)))
    assert (asked.count(Range(0, 300)), counted.lent) == (1, 0)
