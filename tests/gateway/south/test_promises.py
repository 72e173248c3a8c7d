"""What stock clients are promised, on the wire: each line of this is a measured way in which swupdate 2022.12 fails else."""

import asyncio
import random
import re
from asyncio import selector_events
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders.relayed import index_of, make_zck, until
from tests.builders.stock_listener import FOREIGN, Listener, Reply
from update.chunks.ranges import MultipartParser, Range, format_range
from update.chunks.zchunk import HeaderIndex
from update.errors import UnreachableError

MULTIPART = re.compile(r"\r\nContent-Type: multipart/byteranges; boundary=([a-z0-9]{1,70})\r\n")


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def index(zck: Path) -> HeaderIndex:
    return index_of(zck).header


@pytest.fixture
async def listener(tmp_path: Path, zck: Path) -> AsyncIterator[Listener]:
    made = Listener(tmp_path, zck)
    runner = await made.start()
    yield made
    made.upstream.gate.set()
    await runner.cleanup()
    await made.site.relays.close()
    made.files.close()


def asking(spans: Sequence[Range]) -> str:
    return f"Range: {format_range(spans)}"


def scattered(size: int, count: int, seed: int) -> list[Range]:
    """Ranges that neither touch nor overlap, ascending."""
    dice = random.Random(seed)
    ends = sorted(dice.sample(range(100, size - 100), 2 * count))
    return [Range(start, end - start - 1) for start, end in zip(ends[::2], ends[1::2], strict=True) if end - start > 1]


def parts_of(reply: Reply) -> list[tuple[int, bytes]]:
    """The parts of a multipart answer as they came."""
    found = MULTIPART.search(reply.head_as_sent)
    assert found is not None, reply.head_as_sent
    parser = MultipartParser(found[1])
    parts: list[tuple[int, bytes]] = []
    for offset, piece in parser.feed(reply.body):
        if parts and parts[-1][0] + len(parts[-1][1]) == offset:
            parts[-1] = parts[-1][0], parts[-1][1] + piece
        else:
            parts.append((offset, piece))
    assert parser.complete
    return parts


@pytest.mark.parametrize("state", ["cold", "partly", "stored"])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
async def test_ranges_are_answered_206_in_the_order_asked(listener: Listener, state: str, order: str) -> None:
    spans = scattered(len(listener.image), 40, seed=3)
    if state == "partly":
        await listener.ask(FOREIGN, asking(spans[::3]))
    if state == "stored":
        await listener.ask(FOREIGN)
        await listener.site.relays.settle()
        assert listener.site.published
    if order != "ascending":
        spans.reverse() if order == "descending" else random.Random(1).shuffle(spans)
    reply = await listener.ask(FOREIGN, asking(spans), "Accept-Encoding: gzip, deflate, br, zstd", "TE: trailers, chunked")
    assert reply.status == 206
    assert parts_of(reply) == [(span.start, listener.image[span.start : span.end]) for span in spans]
    assert reply.body.count(b"Content-Range: bytes ") == len(spans)
    for name in ("transfer-encoding", "content-encoding", "trailer"):
        assert f"\r\n{name}:" not in reply.head
    assert f"\r\ncontent-length: {len(reply.body)}" in reply.head


@pytest.mark.parametrize(
    "wanted", ["0-0", "0-", "-1", "5-4000000000", "100000-200000"], ids=["first", "all", "last", "beyond", "middle"]
)
async def test_one_range_is_206_too_even_if_it_is_everything(listener: Listener, wanted: str) -> None:
    reply = await listener.ask(FOREIGN, f"Range: bytes={wanted}")
    size = len(listener.image)
    first, _, last = wanted.partition("-")
    start, end = (int(first), min(int(last or size), size - 1) + 1) if first else (size - int(last), size)
    assert (reply.status, reply.body) == (206, listener.image[start:end])
    assert f"\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n" in reply.head_as_sent
    assert f"\r\ncontent-length: {end - start}" in reply.head


async def test_the_boundary_is_not_in_the_data_and_never_the_same(listener: Listener, index: HeaderIndex) -> None:
    spans = [Range(index[number].start, 50) for number in (1, 5)]
    boundaries = set()
    for _ in range(5):
        found = MULTIPART.search((await listener.ask(FOREIGN, asking(spans))).head_as_sent)
        assert found is not None
        assert found[1].encode() not in listener.image
        boundaries.add(found[1])
    assert len(boundaries) == 5


@pytest.mark.parametrize("count", [2, 150])
async def test_head_and_first_part_leave_in_one_write(listener: Listener, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Swupdate looks for the boundary in the first buffer only."""
    spans = scattered(len(listener.image), count, seed=8)
    await listener.ask(FOREIGN, asking(spans))
    written: list[bytes] = []
    transport = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]  # where asyncio hands bytes to the kernel
    really = transport.write

    def write(self: Any, data: bytes) -> None:  # Any: the class has no public name
        if bytes(data[:5]) == b"HTTP/" or written:
            written.append(bytes(data))
        really(self, data)

    monkeypatch.setattr(transport, "write", write)
    reply = await listener.ask(FOREIGN, asking(spans))
    head, _, body = written[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 ")
    first = listener.image[spans[0].start : spans[0].end]
    assert first[: 64 << 10] in body
    boundary = MULTIPART.search(reply.head_as_sent)
    assert boundary is not None
    assert body.lstrip(b"\r\n").startswith(b"--" + boundary[1].encode())


async def test_a_request_is_held_in_silence_until_all_of_it_is_there(listener: Listener, index: HeaderIndex) -> None:
    """A refusal would end the client's update, a beginning could not be taken back."""
    held, missing = index[3], index[20]
    await listener.ask(FOREIGN, asking([Range(held.start, held.length)]))
    listener.upstream.gate.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    spans = [Range(held.start, 100), Range(missing.start, 100)]
    writer.write(f"GET {FOREIGN} HTTP/1.1\r\nHost: x\r\n{asking(spans)}\r\nConnection: close\r\n\r\n".encode())
    asked = len(listener.upstream.requests)
    await until(lambda: len(listener.upstream.requests) > asked, within_s=20)
    answer = asyncio.create_task(reader.read())
    # Another client is answered meanwhile: by then a first byte for this one would have left, too.
    assert (await listener.ask(FOREIGN, asking([Range(held.start, 10)]))).status == 206
    assert not answer.done()
    assert not reader._buffer  # type: ignore[attr-defined]  # what has come and nobody has read
    listener.upstream.gate.set()
    reply = Reply(await answer)
    assert (reply.status, len(parts_of(reply))) == (206, 2)
    writer.close()
    await writer.wait_closed()


async def test_a_hold_ends_with_a_refusal_before_the_first_byte_or_with_what_there_is(tmp_path: Path, zck: Path) -> None:
    listener = Listener(tmp_path, zck, hold_s=0.5)
    runner = await listener.start()
    index = index_of(zck).header
    try:
        held, missing = Range(index[3].start, 100), Range(index[20].start, 100)
        assert (await listener.ask(FOREIGN, asking([held]))).status == 206
        listener.upstream.gate.clear()
        refused = await listener.ask(FOREIGN, asking([missing, held]))
        assert (refused.status, b"wire.slow" in refused.body) == (504, True)
        some = await listener.ask(FOREIGN, asking([held, missing]))
        assert (some.status, some.body) == (206, listener.image[held.start : held.end])
        assert f"\r\nContent-Range: bytes {held.start}-{held.end - 1}/{len(listener.image)}\r\n" in some.head_as_sent
    finally:
        listener.upstream.gate.set()
        await runner.cleanup()
        await listener.site.relays.close()
        listener.files.close()


@pytest.mark.parametrize("sent", [0, 3000, 90_000])
async def test_no_body_is_ever_cut_when_upstream_is(listener: Listener, sent: int) -> None:
    spans = scattered(len(listener.image), 12, seed=5)
    listener.upstream.fail_after = sent
    listener.upstream.error = lambda: UnreachableError("cut")
    reply = await listener.ask(FOREIGN, asking(spans))
    assert f"\r\ncontent-length: {len(reply.body)}" in reply.head
    assert reply.status in {206, 502}
    if reply.status == 502:
        assert b"wire.unreachable" in reply.body
    listener.upstream.fail_after = None
    whole = await listener.ask(FOREIGN, asking(spans))
    assert [offset for offset, _ in parts_of(whole)] == [span.start for span in spans]


async def test_a_client_that_asks_again_for_the_rest_gets_all_of_it(listener: Listener, index: HeaderIndex) -> None:
    """As swupdate does where only the first ranges come: with one range fewer each time."""
    spans = [Range(index[number].start, index[number].length) for number in (2, 9, 16, 23)]
    await listener.ask(FOREIGN, asking(spans[:1]))
    received, rest = {}, list(spans)
    listener.upstream.fail_after = 0
    first = await listener.ask(FOREIGN, asking(rest))
    assert (first.status, first.body) == (206, listener.image[spans[0].start : spans[0].end])
    received[spans[0].start] = first.body
    listener.upstream.fail_after = None
    received |= dict(parts_of(await listener.ask(FOREIGN, asking(rest[1:]))))
    assert received == {span.start: listener.image[span.start : span.end] for span in spans}


async def test_no_answer_is_longer_than_the_file_and_its_frames(listener: Listener) -> None:
    size = len(listener.image)
    for header in ("0-,0-", f"0-{size - 1},0-0", "5-10,10-15", ",".join(["0-"] * 500), "-5,-6", "0-9,3-4"):
        reply = await listener.ask(FOREIGN, f"Range: bytes={header}")
        assert (reply.status, reply.body) == (416, b""), header
    halves = await listener.ask(FOREIGN, f"Range: bytes={size // 2}-,0-{size // 2 - 1}")
    assert halves.status == 206
    assert len(halves.body) < size + 500


async def test_tiny_ranges_cost_upstream_their_chunks_once_and_the_client_bounded_frames(
    listener: Listener, index: HeaderIndex
) -> None:
    spans = [Range(100 + 600 * number, 1) for number in range(1000)]
    reply = await listener.ask(FOREIGN, asking(spans))
    assert len(parts_of(reply)) == 1000
    assert len(reply.body) < 1000 * 200
    touched = {number for span in spans for number in index.covering(span.start, span.length)}
    fetched = sum(index[number].length for number in touched) + index.header_size
    assert listener.upstream.bytes_asked() <= fetched
    await listener.ask(FOREIGN, asking(spans))
    assert listener.upstream.bytes_asked() <= fetched


async def test_thirty_kilobytes_of_ranges_and_a_signed_url_are_read(listener: Listener) -> None:
    """Swupdate's buffer holds 32 KiB of URL and ranges together."""
    spans = [Range(100 + 600 * number, 1) for number in range(1000)]
    padded = ",".join(f"{span.start:015}-{span.end - 1:014}" for span in spans)
    assert 30_000 < len(padded) < 32_000
    assert len(parts_of(await listener.ask(FOREIGN, f"Range: bytes={padded}"))) == 1000
