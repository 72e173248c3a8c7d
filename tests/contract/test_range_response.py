"""The contract with aiohttp that RangeResponse rests on: bytes on the wire, keep-alive, pipelining, aborts, TLS."""

import asyncio
import errno
import os
import random
import re
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from gateway.south.files import answer, etag_of
from gateway.south.open_files import RECHECK_S, OpenFiles
from gateway.south.range_response import SENDFILE_FROM_BYTES, RangeResponse
from update.chunks.ranges import MultipartParser
from update.digest import digest_of

SIZE = 3 * 1024 * 1024 + 17
CONTENT = random.Random(7).randbytes(SIZE)


@pytest.fixture
def files() -> OpenFiles:
    return OpenFiles(limit=4)


@pytest.fixture
async def port(tmp_path: Path, files: OpenFiles) -> AsyncIterator[int]:
    path, digest = tmp_path / "content", digest_of(CONTENT)
    path.write_bytes(CONTENT)

    async def handle(request: web.Request) -> web.StreamResponse:
        lease = files.borrow(digest) or files.open(digest, path)
        return RangeResponse(answer(request.method, request.headers, SIZE, etag_of(digest)), lease)

    app = web.Application()
    app.router.add_get("/content", handle)
    runner = web.AppRunner(app, max_line_size=65536, max_field_size=65536, shutdown_timeout=1)
    await runner.setup()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)  # a client that does not read is felt soon
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        yield listening.getsockname()[1]
        await runner.cleanup()
    files.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)


def request(*headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} /content HTTP/{version}", "Host: x", *headers, "", ""]).encode()


async def read_response(reader: asyncio.StreamReader, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0")) if body else 0
    return int(first.split()[1]), headers, await reader.readexactly(length)


async def ask(port: int, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    reader, writer = await connect(port)
    writer.write(request(*headers, method=method))
    try:
        return await read_response(reader, body=method != "HEAD")
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-99", 5, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes=10-{SENDFILE_FROM_BYTES + 10}", 10, SENDFILE_FROM_BYTES + 11),
        (f"bytes=3-{SIZE * 2}", 3, SIZE),
    ],
)
async def test_a_single_range_is_answered_byte_for_byte(port: int, header: str, start: int, stop: int) -> None:
    status, headers, body = await ask(port, f"Range: {header}")
    assert (status, headers["content-range"]) == (206, f"bytes {start}-{stop - 1}/{SIZE}")
    assert body == CONTENT[start:stop]


async def test_the_whole_content_is_answered_with_its_digest(port: int) -> None:
    status, headers, body = await ask(port)
    assert (status, body) == (200, CONTENT)
    assert headers["etag"] == f'"{digest_of(CONTENT)}"'
    assert headers["accept-ranges"] == "bytes"


async def test_a_hundred_ranges_come_as_parts_in_the_order_of_the_request(port: int) -> None:
    dice = random.Random(1)
    starts = list(range(0, SIZE - 4096, 8192))[:100]
    dice.shuffle(starts)
    status, headers, body = await ask(port, "Range: bytes=" + ",".join(f"{start}-{start + 4095}" for start in starts))
    assert status == 206
    boundary = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{20})", headers["content-type"])
    assert boundary is not None
    parts: dict[int, bytes] = {}
    order: list[int] = []
    position = -1
    for offset, piece in MultipartParser(boundary[1], size=SIZE).feed(body):
        if offset != position:
            order.append(offset)
            parts[offset] = b""
        parts[order[-1]] += piece
        position = offset + len(piece)
    assert order == starts
    assert all(parts[start] == CONTENT[start : start + 4096] for start in starts)


async def test_head_of_a_range_is_answered_200_without_a_body(port: int) -> None:
    status, headers, body = await ask(port, "Range: bytes=0-9", method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(SIZE), b"")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Range: bytes={SIZE}-", 416),
        ('If-Match: "other"', 412),
        (f'If-None-Match: "{digest_of(CONTENT)}"', 304),
        ("Range: bytes=9-3", 200),
        ("Range: bytes=+1-5", 200),
    ],
)
async def test_preconditions_and_impossible_ranges_have_their_status(port: int, header: str, status: int) -> None:
    assert (await ask(port, header))[0] == status


async def test_if_range_with_another_tag_gives_the_whole_content(port: int) -> None:
    assert (await ask(port, "Range: bytes=0-9", 'If-Range: "other"'))[0] == 200
    assert (await ask(port, "Range: bytes=0-9", f'If-Range: "{digest_of(CONTENT)}"'))[0] == 206


async def test_one_connection_carries_a_hundred_requests(port: int) -> None:
    reader, writer = await connect(port)
    dice = random.Random(3)
    for _ in range(100):
        start = dice.randrange(SIZE - 1)
        stop = min(SIZE, start + dice.choice([1, 1000, 300_000]))
        writer.write(request(f"Range: bytes={start}-{stop - 1}"))
        assert (await read_response(reader))[2] == CONTENT[start:stop]
    writer.close()
    await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    reader, writer = await connect(port)
    spans = [(0, 200_000), (7, 60_000), (100_000, 1_000_000), (1, 1)]
    writer.write(b"".join(request(f"Range: bytes={start}-{start + count - 1}") for start, count in spans))
    for start, count in spans:
        assert (await read_response(reader))[2] == CONTENT[start : start + count]
    writer.close()
    await writer.wait_closed()


async def test_connection_close_is_honoured(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(request("Connection: close"))
    _, headers, body = await read_response(reader)
    assert (headers["connection"], body) == ("close", CONTENT)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_goes_away_leaves_no_descriptor_open(port: int, files: OpenFiles) -> None:
    for _ in range(20):
        reader, writer = await connect(port)
        writer.write(request())
        await reader.readexactly(1000)
        writer.transport.abort()
    assert (await ask(port, "Range: bytes=0-9"))[2] == CONTENT[:10]
    before = open_descriptors()
    files.close()
    for _ in range(200):
        if open_descriptors() < before:
            break
        await asyncio.sleep(0.01)
    assert open_descriptors() < before


async def test_stalled_pipelining_readers_cost_no_cpu(port: int) -> None:
    connections = [await connect(port) for _ in range(20)]
    for _, writer in connections:
        writer.write(request("Range: bytes=0-61439") + request(f"Range: bytes=0-{SENDFILE_FROM_BYTES + 4096}") * 40)
    await asyncio.sleep(0.3)  # let them fill up; what follows measures work, not time
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    wakeups = 0
    deadline = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
        wakeups += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.5 < wakeups
    for _, writer in connections:
        writer.transport.abort()


async def until_closed_by_server(client_port: int) -> None:
    """Return when the server has no descriptor of a connection any more but that of the response under way."""
    for _ in range(500):
        lines = Path("/proc/net/tcp").read_text().splitlines()
        states = [line.split()[3] for line in lines if line.split()[2].endswith(f":{client_port:04X}")]
        if states and states[0] == "08":  # CLOSE_WAIT: it has seen the end of the client's side
            break
        await asyncio.sleep(0.01)
    for _ in range(20):  # asyncio closes its descriptor a step or two after it has seen that
        await asyncio.sleep(0)


async def test_a_client_that_half_closes_does_not_get_its_bytes_into_another_connection(port: int) -> None:
    """The transport closes its descriptor at once; the next socket of the process gets that number."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        await loop.sock_sendall(client, request())
        received = await loop.sock_recv(client, 1000)
        client.shutdown(socket.SHUT_WR)
        await until_closed_by_server(client.getsockname()[1])
        others = [stack.enter_context(end) for _ in range(4) for end in socket.socketpair()]
        while block := await loop.sock_recv(client, 64 << 10):
            received += block
        body = received[received.index(b"\r\n\r\n") + 4 :]
        assert CONTENT.startswith(body)
        for other in others:
            with pytest.raises(BlockingIOError):
                other.recv(100, socket.MSG_DONTWAIT)


async def test_a_cold_disk_is_read_in_threads(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = [0]

    def not_in_memory(*_arguments: object) -> int:
        cold[0] += 1
        raise BlockingIOError(errno.EAGAIN, "not in the page cache")

    monkeypatch.setattr(os, "preadv", not_in_memory)
    assert (await ask(port))[2] == CONTENT
    assert (await ask(port, "Range: bytes=5-70000"))[2] == CONTENT[5:70001]
    assert (await ask(port, "Range: bytes=5-6,9-300000"))[2].count(CONTENT[9:300001]) == 1
    assert cold[0] > 4


async def test_a_file_that_became_shorter_ends_in_a_cut_and_never_in_other_bytes(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await ask(port, "Range: bytes=0-9"))[2] == CONTENT[:10]
    os.truncate(tmp_path / "content", 200_000)
    for header in ("Range: bytes=0-1999999", "Range: bytes=100000-250000", "Range: bytes=1-2,190000-210000"):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(port, header)
    assert "Traceback" not in caplog.text


async def test_content_that_was_replaced_is_read_anew_after_a_while(tmp_path: Path) -> None:
    now, path = [0.0], tmp_path / "x"
    digest, files = digest_of(b"x"), OpenFiles(clock=lambda: now[0])
    path.write_bytes(b"old")
    assert files.borrow(digest) is None
    reading = files.open(digest, path)
    path.unlink()
    path.write_bytes(b"new")
    borrowed = files.borrow(digest)
    assert borrowed is not None
    assert os.pread(borrowed.descriptor, 9, 0) == b"old"
    now[0] = RECHECK_S + 1
    assert files.borrow(digest) is None
    anew = files.open(digest, path)
    assert os.pread(anew.descriptor, 9, 0) == b"new"
    assert os.pread(reading.descriptor, 9, 0) == b"old", "who reads reads on"
    before = open_descriptors()
    reading.release()
    reading.release()
    assert open_descriptors() == before
    borrowed.release()
    assert open_descriptors() == before - 1
    anew.release()
    files.close()
    assert open_descriptors() == before - 2
