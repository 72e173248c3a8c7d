"""Downloads over lines that break and from servers that lie: the right bytes or a named error, never one byte too many."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.update.wire.scripted import IMPATIENT, Answer, Asked, Scripted, Sleeps, content_range, quick, reply, serve, session
from update.digest import digest_of
from update.durable import Disk
from update.errors import (
    EndlessDataError,
    FieldrelayError,
    NoSpaceError,
    NotFoundError,
    ProtocolError,
    SlowError,
    UnreachableError,
    WireError,
)
from update.store.staging import Staged
from update.wire.download import Transfer, download
from update.wire.http import Manner
from update.wire.rate import Retry

CONTENT = bytes(range(256)) * 1024


@dataclass(slots=True)
class Memory:
    """A sink in memory that notes what was made durable."""

    data: bytearray
    synced: int = 0

    def size(self) -> int:
        return len(self.data)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        self.data[offset : offset + len(data)] = data

    def truncate(self, size: int) -> None:
        del self.data[size:]

    def sync(self) -> None:
        self.synced = len(self.data)


async def run(
    answer: Answer, have: bytes = b"", length: int = len(CONTENT), retry: Retry | None = None, manner: Manner | None = None
) -> tuple[Memory, Transfer | FieldrelayError, Scripted]:
    sink = Memory(bytearray(have))
    outcome: Transfer | FieldrelayError
    async with serve(answer) as server, session() as client:
        try:
            url = f"{server.url}/x"
            outcome = await download(client, url, sink, length=length, manner=manner or Manner(), retry=retry or quick())
        except FieldrelayError as error:
            outcome = error
    return sink, outcome, server


async def honest(asked: Asked, writer: asyncio.StreamWriter) -> None:
    ranges = asked.ranges()
    if not ranges:
        reply(writer, 200, CONTENT, {"ETag": '"v1"'})
    else:
        body = CONTENT[ranges[0][0] :]
        reply(writer, 206, body, {"ETag": '"v1"', **content_range(ranges[0][0], body, len(CONTENT))})
    await writer.drain()


async def whole(_asked: Asked, writer: asyncio.StreamWriter) -> None:
    reply(writer, 200, CONTENT)
    await writer.drain()


async def test_a_file_is_downloaded_and_made_durable() -> None:
    sink, outcome, server = await run(honest)
    assert sink.data == CONTENT
    assert sink.synced == len(CONTENT)
    assert outcome == Transfer(len(CONTENT), 1, 0)
    assert "range" not in server.asked[0].headers


async def test_what_is_there_is_asked_for_no_more() -> None:
    sink, outcome, server = await run(honest, CONTENT[:1000])
    assert sink.data == CONTENT
    assert outcome == Transfer(len(CONTENT) - 1000, 1, 1000)
    assert server.asked[0].headers["range"] == "bytes=1000-"
    assert "if-range" not in server.asked[0].headers


async def test_a_complete_file_costs_no_request() -> None:
    sink, outcome, server = await run(honest, CONTENT)
    assert outcome == Transfer(0, 0, len(CONTENT))
    assert server.asked == []
    assert sink.synced == len(CONTENT)


async def test_an_empty_file_is_complete_at_once() -> None:
    _, outcome, server = await run(honest, length=0)
    assert outcome == Transfer(0, 0, 0)
    assert server.asked == []


async def test_more_than_the_signed_length_is_thrown_away_first() -> None:
    sink, _, server = await run(honest, CONTENT + b"x")
    assert sink.data == CONTENT
    assert "range" not in server.asked[0].headers


async def test_a_line_that_breaks_again_and_again_is_resumed_with_if_range() -> None:
    async def breaking(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first = asked.ranges()[0][0] if asked.ranges() else 0
        body = CONTENT[first : first + 70_000]
        headers = content_range(first, CONTENT[first:], len(CONTENT)) if first else {}
        reply(writer, 206 if first else 200, body, {"ETag": '"v1"', **headers}, announce=len(CONTENT) - first)
        await writer.drain()

    sink, outcome, server = await run(breaking, retry=quick(attempts=1))  # every try brings enough not to be a failure
    assert sink.data == CONTENT
    assert outcome == Transfer(len(CONTENT), 4, 0)
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-"]
    assert {asked.headers.get("if-range") for asked in server.asked[1:]} == {'"v1"'}


async def test_a_weak_etag_is_not_used_for_resuming() -> None:
    async def weak(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first = asked.ranges()[0][0] if asked.ranges() else 0
        body = CONTENT[first:] if first else CONTENT[:500]
        headers = content_range(first, body, len(CONTENT)) if first else {}
        reply(writer, 206 if first else 200, body, {"ETag": 'W/"v1"', **headers}, announce=len(CONTENT) - first)

    _, _, server = await run(weak)
    assert len(server.asked) == 2
    assert "if-range" not in server.asked[1].headers


async def test_a_200_to_a_resumed_request_begins_again() -> None:
    sink, outcome, _ = await run(whole, b"of another version")
    assert sink.data == CONTENT
    assert outcome == Transfer(len(CONTENT), 1, 18)


async def test_beginning_again_leaves_nothing_of_the_old_content_behind_even_when_it_breaks() -> None:
    async def cut_once(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number:
            await honest(asked, writer)
        else:
            reply(writer, 200, CONTENT[:100], announce=len(CONTENT))

    sink, _, server = await run(cut_once, b"of another version" * 100)
    assert sink.data == CONTENT
    assert server.asked[1].headers["range"] == "bytes=100-"


@pytest.mark.parametrize(
    "lie",
    [
        {"Content-Range": f"bytes 0-99/{len(CONTENT)}"},
        {"Content-Range": f"bytes 1001-{len(CONTENT) - 1}/{len(CONTENT)}"},
        {"Content-Range": f"bytes 1000-{len(CONTENT)}/{len(CONTENT) + 1}"},
        {"Content-Range": f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT) + 1}"},
        {"Content-Range": "bytes */5"},
        {"Content-Range": "nonsense"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
        {},
    ],
)
async def test_a_range_that_is_not_the_one_asked_for_is_not_written_and_the_file_is_begun_again(lie: dict[str, str]) -> None:
    async def lying(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.ranges():
            reply(writer, 206, b"wrong" * 20, lie)
        else:
            reply(writer, 200, CONTENT)
        await writer.drain()

    sink, outcome, server = await run(lying, CONTENT[:1000])
    assert isinstance(outcome, Transfer)
    assert sink.data == CONTENT
    assert len(server.asked) == 2


async def test_a_416_begins_again_and_a_second_one_ends_it() -> None:
    async def shorter(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.ranges():
            reply(writer, 416, headers={"Content-Range": "bytes */3"})
        else:
            await honest(asked, writer)

    sink, _, server = await run(shorter, CONTENT[:1000])
    assert sink.data == CONTENT
    assert len(server.asked) == 2

    async def never(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 416)

    _, outcome, server = await run(never, CONTENT[:1000])
    assert isinstance(outcome, ProtocolError)
    assert len(server.asked) == 2


async def test_a_206_that_nobody_asked_for_is_refused() -> None:
    async def unasked(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 206, CONTENT, content_range(0, CONTENT, len(CONTENT)))

    sink, outcome, _ = await run(unasked)
    assert isinstance(outcome, ProtocolError)
    assert sink.data == b""


@pytest.mark.parametrize("announce", [-1, None])
async def test_more_than_the_signed_length_is_refused_and_not_written(announce: int | None) -> None:
    async def longer(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT + b"x", announce=announce)
        with suppress(ConnectionError):
            await writer.drain()

    sink, outcome, server = await run(longer)
    assert isinstance(outcome, EndlessDataError)
    assert len(sink.data) <= len(CONTENT)
    assert len(server.asked) == 1


async def test_a_server_that_ends_early_every_time_is_given_up_after_bounded_tries_with_growing_delays() -> None:
    async def short(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first = asked.ranges()[0][0] if asked.ranges() else 0
        body = CONTENT[first : first + 10]
        reply(writer, 206 if first else 200, body, content_range(first, body, len(CONTENT)) if first else {})

    sleeps = Sleeps()
    sink, outcome, server = await run(short, retry=quick(sleeps))
    assert isinstance(outcome, UnreachableError)
    assert len(server.asked) == 4
    assert sleeps.delays == [0.5, 1, 2]
    assert sink.data == CONTENT[:40]
    assert sink.synced == 40


async def test_a_server_without_ranges_that_breaks_every_time_is_given_up_too() -> None:
    async def cut(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT[:200_000], announce=len(CONTENT))
        await writer.drain()

    _, outcome, server = await run(cut)
    assert isinstance(outcome, UnreachableError)
    assert len(server.asked) == 5  # the first brought something new, the four after it did not


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number < 2:
            reply(writer, 503)
        else:
            await honest(asked, writer)

    sink, outcome, _ = await run(late)
    assert isinstance(outcome, Transfer)
    assert outcome.requests == 3
    assert sink.data == CONTENT


async def test_a_file_that_is_not_there_is_not_asked_for_again() -> None:
    async def missing(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 404)

    _, outcome, server = await run(missing)
    assert isinstance(outcome, NotFoundError)
    assert len(server.asked) == 1


async def test_a_trickling_server_is_slow_and_what_it_sent_is_kept() -> None:
    async def trickle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first = asked.ranges()[0][0] if asked.ranges() else 0
        headers = content_range(first, CONTENT[first:], len(CONTENT)) if first else {}
        reply(writer, 206 if first else 200, CONTENT[first : first + 5], headers, announce=len(CONTENT) - first)
        await asyncio.Event().wait()

    sink, outcome, _ = await run(trickle, retry=quick(attempts=2), manner=Manner(IMPATIENT))
    assert isinstance(outcome, SlowError)
    assert sink.data == CONTENT[:10]


async def test_a_full_disk_is_told_as_such_and_not_retried() -> None:
    class Full(Memory):
        def write_at(self, offset: int, data: bytes | memoryview) -> None:
            raise NoSpaceError("full")

    async with serve(honest) as server, session() as client:
        with pytest.raises(NoSpaceError):
            await download(client, server.url, Full(bytearray()), length=len(CONTENT), retry=quick())
    assert len(server.asked) == 1


async def test_progress_is_the_position_and_ends_at_the_length() -> None:
    positions: list[int] = []
    async with serve(honest) as server, session() as client:
        sink = Memory(bytearray(CONTENT[:7]))
        await download(client, server.url, sink, length=len(CONTENT), progress=positions.append, retry=quick())
    assert positions == sorted(positions)
    assert positions[-1] == len(CONTENT)


async def test_a_cancelled_download_keeps_what_arrived_and_the_next_process_continues_it(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def stall(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number:
            await honest(asked, writer)
        else:
            reply(writer, 200, CONTENT[:5000], announce=len(CONTENT))
            await writer.drain()
            reached.set()
            await asyncio.Event().wait()

    def staged() -> Staged:
        return Staged(Disk(), tmp_path / "x.part", tmp_path / "x.json", length=len(CONTENT))

    async with serve(stall) as server, session() as client:
        with staged() as sink:
            task = asyncio.ensure_future(download(client, server.url, sink, length=len(CONTENT), retry=quick()))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            kept = sink.size()
        with staged() as sink:
            assert sink.size() == kept
            transfer = await download(client, server.url, sink, length=len(CONTENT), retry=quick())
        assert transfer.resumed_at == kept
    assert digest_of((tmp_path / "x.part").read_bytes()) == digest_of(CONTENT)


async def test_progress_is_made_durable_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("update.wire.download._BLOCK_BYTES", 1000)
    monkeypatch.setattr("update.wire.download._STEP_BYTES", 50_000)
    synced: list[int] = []

    class Stepping(Memory):
        def sync(self) -> None:
            synced.append(self.size())

    written = asyncio.Event()

    async def in_two(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        reply(writer, 200, CONTENT[:60_000], announce=len(CONTENT))
        await written.wait()
        writer.write(CONTENT[60_000:])
        await writer.drain()

    def progress(position: int) -> None:
        if position >= 50_000:
            written.set()

    sink = Stepping(bytearray())
    async with serve(in_two) as server, session() as client:
        await download(client, server.url, sink, length=len(CONTENT), retry=quick(), progress=progress)
    assert sink.data == CONTENT
    assert 50_000 <= synced[0] <= 60_000
    assert synced == sorted(synced)


async def test_a_cancelled_download_ends_only_when_nobody_writes_any_more() -> None:
    begun, go = threading.Event(), threading.Event()

    class Blocking(Memory):
        def write_at(self, offset: int, data: bytes | memoryview) -> None:
            begun.set()
            go.wait(30)
            self.data[offset : offset + len(data)] = data

    sink = Blocking(bytearray())
    async with serve(honest) as server, session() as client:
        task = asyncio.ensure_future(download(client, server.url, sink, length=len(CONTENT), retry=quick()))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sink.synced == len(sink.data) > 0


MOODS = st.sampled_from(["honest", "whole", "cut", "short", "wrong start", "wrong total", "416", "503", "no length", "longer"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MOODS, min_size=1, max_size=6), st.integers(0, 900), st.integers(1, 900))
def test_whatever_mix_of_servers_answers_the_content_is_right_or_the_error_named(moods: list[str], have: int, cut: int) -> None:
    content = bytes(index * 7 % 251 for index in range(1000))

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        mood = moods[min(asked.number, len(moods) - 1)]
        first = asked.ranges()[0][0] if asked.ranges() else 0
        rest = content[first:]
        headers = content_range(first, rest, 1000) if first else {}
        status = 206 if first else 200
        match mood:
            case "whole":
                reply(writer, 200, content)
            case "cut":
                reply(writer, status, rest[:cut], headers, announce=len(rest))
            case "short":
                reply(writer, status, rest[:cut], headers)
            case "wrong start":
                reply(writer, 206, rest, content_range(first + 1, rest, 5000))
            case "wrong total":
                reply(writer, 206, rest, content_range(first, rest, 1001))
            case "416" | "503":
                reply(writer, int(mood))
            case "no length":
                reply(writer, status, rest, headers, announce=None)
            case "longer":
                reply(writer, status, rest + b"!", headers)
            case _:
                reply(writer, status, rest, headers)
        await writer.drain()

    sink, outcome, server = asyncio.run(run(answer, content[:have], 1000))
    assert len(server.asked) <= 20
    assert bytes(sink.data) == content[: len(sink.data)]
    if isinstance(outcome, Transfer):
        assert sink.data == content
    else:
        assert isinstance(outcome, (WireError, EndlessDataError))
        assert outcome.code != "wire"
