"""A server that says exactly what a test scripts, down to lies that no HTTP library would write."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from update.wire.rate import Patience, Retry


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came; `number` counts from 0, header names are lower case."""

    number: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer: str

    def ranges(self) -> list[tuple[int, int | None]]:
        """(first, last) of the Range header; [] without one."""
        value = self.headers.get("range", "").removeprefix("bytes=")
        pairs = (each.partition("-") for each in value.split(",") if each)
        return [(int(first), int(last) if last else None) for first, _, last in pairs]


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Scripted:
    """A running server: where it is, and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@asynccontextmanager
async def serve(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """Answer each connection's one request by `answer`; the connection is closed after it."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                asked = await _read(reader, len(running.asked), writer.get_extra_info("peername")[0])
                running.asked.append(asked)
                await answer(asked, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # the transport closes in the next turn of the loop

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connected(reader, writer))
        tasks.add(task)
        await asyncio.wait([task])

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    running = Scripted(f"{'https' if tls else 'http'}://127.0.0.1:{port}")
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
    for failure in failures:
        if isinstance(failure, Exception):
            raise failure


async def _read(reader: asyncio.StreamReader, number: int, peer: str) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(number, method, target, headers, body, peer)


def reply(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    announce: int | None = -1,
) -> None:
    """Write an answer; `announce` is another Content-Length than the truth, None for none at all."""
    length = len(body) if announce == -1 else announce
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    lines += [f"Content-Length: {length}"] if length is not None else []
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)


def content_range(first: int, body: bytes, size: int | str) -> dict[str, str]:
    """The header of a 206 with one range."""
    return {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{size}"}


def multipart(
    parts: list[tuple[int, bytes]], size: int, boundary: str = "xyz", *, quoted: bool = False
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a 206 with several ranges."""
    body = b""
    for first, data in parts:
        (value,) = content_range(first, data, size).values()
        body += f"\r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: {value}\r\n\r\n".encode() + data
    shown = f'"{boundary}"' if quoted else boundary
    return {"Content-Type": f"multipart/byteranges; boundary={shown}"}, body + f"\r\n--{boundary}--\r\n".encode()


@dataclass(slots=True)
class Sleeps:
    """Stands in for asyncio.sleep: notes the delays and lets other tasks run."""

    delays: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.delays.append(seconds)
        await asyncio.sleep(0)


def quick(sleeps: Sleeps | None = None, attempts: int = 4) -> Retry:
    """Retries without waiting, at the longest delay that chance allows."""
    return Retry(attempts=attempts, sleep=sleeps or Sleeps(), chance=lambda: 1.0)


IMPATIENT = Patience(connect_s=5, answer_s=0.3, deadline_s=0.3, window_s=0.15, minimum_bytes_per_s=1000)
"""For servers that stall on purpose; what is waited for never comes, so no slow machine can make it pass."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client session."""
    async with aiohttp.ClientSession(auto_decompress=False) as opened:
        yield opened
