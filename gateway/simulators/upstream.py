"""An upstream server of repositories that counts what leaves its socket and misbehaves on demand.

It serves one folder over HTTP/1.1 (RFC 9110 and 9112: GET and HEAD, single and multiple ranges, keep-alive) and is
used by the demo, the tests and dry runs. `Faults` makes it slow, cut, lying or limited (`characters.py` has those that are
met in the field); `Traffic` says what was sent: every byte written to a socket, and per path which byte ranges of the body,
so that repeated bytes can be named.
"""

import asyncio
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from update.chunks.ranges import Range, format_content_range, multipart_type, parse_range, part_head, tail
from update.errors import RangeNotSatisfiableError

_MAX_HEAD_BYTES = 64 << 10
_MAX_RANGES = 1024
_BLOCK_BYTES = 64 << 10


_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing discards what is buffered, and tells the other side so


class Several(StrEnum):
    """How a request for several ranges is answered."""

    PARTS = "multipart"
    FIRST = "the first range only"
    COVER = "one range around all"
    WHOLE = "200 and the whole file"
    NONE = "416"
    ERROR = "501"


@dataclass(slots=True)
class Faults:
    """How the server misbehaves; changed while it runs."""

    bytes_per_s: int | None = None  # of all connections together
    cut_after_bytes: int | None = None  # of each response body, then the connection is closed
    ignore_ranges: bool = False  # always 200 and the whole file
    first_range_only: bool = False  # answers only the first of several ranges
    several: Several = Several.PARTS
    most_ranges: int = _MAX_RANGES  # beyond these, 200 and the whole file
    cold_answers: int = 0  # so many GETs of each path are answered with the whole file, then ranges work
    quoted_boundary: bool = False  # as squid writes it
    first_byte_after_s: float = 0.0  # of each answer
    status: HTTPStatus | None = None  # everything is answered with it
    reset: bool = False  # a cut resets the connection; without `cut_after_bytes` it comes before the answer
    flip_byte: bool = False  # one wrong byte in each range of a body
    place_off_by: int = 0  # Content-Range names a place so many bytes further on than what is sent
    size_off_by: int = 0  # Content-Range names a file of so many bytes more
    length_off_by: int = 0  # Content-Length names so many bytes more than are sent
    endless: bool = False  # announces no length, and goes on with zeros behind the body


@dataclass(slots=True)
class Traffic:
    """What was sent since the start: `sent_bytes` at the socket, heads included; `bodies` per path as (start, length)."""

    sent_bytes: int = 0
    requests: int = 0
    per_path_bytes: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, list[Range]] = field(default_factory=dict)

    def repeated_bytes(self, suffix: str = "") -> int:
        """Body bytes of paths that end with `suffix` that were sent more than once."""
        bodies = (parts for path, parts in self.bodies.items() if path.endswith(suffix))
        return sum(sum(part.length for part in parts) - _covered(parts) for parts in bodies)


def _covered(parts: list[Range]) -> int:
    """Size of the union of ranges."""
    covered = end = 0
    for part in sorted(parts, key=lambda part: part.start):
        covered += max(0, part.start + part.length - max(end, part.start))
        end = max(end, part.start + part.length)
    return covered


class UpstreamServer:
    """Serves `root`; an async context manager. `url` ends without a slash."""

    def __init__(self, root: Path, *, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.traffic = Traffic()
        self._root = root.resolve()
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._next_send_s = 0.0
        self._asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """Base address, known once started."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a port of 0 is chosen by the system and kept for later starts."""
        self._server = await asyncio.start_server(self._accept, self._host, self._port, limit=_MAX_HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await _read_head(reader):
                if not await self._answer(head, writer):
                    break
        except (OSError, asyncio.LimitOverrunError, ValueError, asyncio.CancelledError):
            writer.transport.abort()  # what is buffered for a client that does not read would never leave
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, head: "_Head", writer: asyncio.StreamWriter) -> bool:
        """Send one response; False when the connection must end."""
        self.traffic.requests += 1
        faults = self.faults
        if faults.reset and faults.cut_after_bytes is None:
            return _reset(writer)
        await asyncio.sleep(faults.first_byte_after_s)
        reply = self._reply(head)
        await self._send(writer, head.path, reply.head)
        budget = faults.cut_after_bytes
        for frame, part in () if head.method == "HEAD" else reply.parts:
            await self._send(writer, head.path, frame)
            if part is not None and reply.file is not None:
                sent = await self._send_part(writer, head.path, reply.file, part, budget)
                if sent < part.length:
                    return _reset(writer) if faults.reset else False
                budget = None if budget is None else budget - sent
        while self.faults.endless and head.method != "HEAD" and reply.file is not None:
            await self._send(writer, head.path, bytes(_BLOCK_BYTES))
        return head.headers.get("connection", "").lower() != "close" and not faults.length_off_by

    def _reply(self, head: "_Head") -> "_Reply":
        file = self._file(head.path)
        if self.faults.status is not None:
            return _Reply.empty(self.faults.status)
        if head.method not in {"GET", "HEAD"}:
            return _Reply.empty(HTTPStatus.METHOD_NOT_ALLOWED)
        if file is None:
            return _Reply.empty(HTTPStatus.NOT_FOUND)
        size = file.stat().st_size
        self._asked[head.path] += 1
        try:
            ranges = self._ranges(head, size)
        except RangeNotSatisfiableError:
            return _Reply.empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"Content-Range: bytes */{size}\r\n")
        if ranges and len(ranges) > 1 and self.faults.several is Several.ERROR:
            return _Reply.empty(HTTPStatus.NOT_IMPLEMENTED)
        return _Reply.of(file, size, ranges, self.faults)

    def _ranges(self, head: "_Head", size: int) -> tuple[Range, ...] | None:
        """What is answered of the ranges asked for; None for the whole file. Raises `RangeNotSatisfiableError`."""
        faults, wanted = self.faults, head.headers.get("range", "")
        if not wanted or faults.ignore_ranges or self._asked[head.path] <= faults.cold_answers:
            return None
        ranges = parse_range(wanted, size, max_ranges=faults.most_ranges)
        if ranges is None or len(ranges) == 1:
            return ranges
        match Several.FIRST if faults.first_range_only else faults.several:
            case Several.FIRST:
                return ranges[:1]
            case Several.COVER:
                start = min(ranges).start
                return (Range(start, max(each.end for each in ranges) - start),)
            case Several.WHOLE:
                return None
            case Several.NONE:
                raise RangeNotSatisfiableError("several ranges are not served")
            case Several.PARTS | Several.ERROR:
                return ranges

    def _file(self, path: str) -> Path | None:
        """The file that a path names, or None; nothing outside the root."""
        named = unquote(path)
        if "\0" in named:
            return None
        candidate = self._root.joinpath(*[part for part in named.split("/") if part]).resolve()
        return candidate if candidate.is_relative_to(self._root) and candidate.is_file() else None

    async def _send_part(self, writer: asyncio.StreamWriter, path: str, file: Path, part: Range, budget: int | None) -> int:
        """Send a part of the body, at most `budget` bytes of it; returns how many."""
        length = part.length if budget is None else min(part.length, budget)
        sent = 0
        with file.open("rb") as source:
            source.seek(part.start)
            while sent < length and (block := source.read(min(self._block_bytes(), length - sent))):
                if self.faults.flip_byte and not sent:
                    block = bytes([block[0] ^ 1]) + block[1:]
                self._count(path, Range(part.start + sent, len(block)))  # also if the connection breaks under it
                await self._send(writer, path, block)
                sent += len(block)
        return sent

    def _block_bytes(self) -> int:
        """At a low rate bytes come in drips, ten in a second, and not in large blocks with long silence between."""
        rate = self.faults.bytes_per_s
        return _BLOCK_BYTES if rate is None else min(_BLOCK_BYTES, max(1, rate // 10))

    async def _send(self, writer: asyncio.StreamWriter, path: str, data: bytes) -> None:
        """Write, count and keep to the rate."""
        writer.write(data)
        self.traffic.sent_bytes += len(data)
        self.traffic.per_path_bytes[path] = self.traffic.per_path_bytes.get(path, 0) + len(data)
        await writer.drain()
        if self.faults.bytes_per_s:
            now = asyncio.get_running_loop().time()
            self._next_send_s = max(now, self._next_send_s) + len(data) / self.faults.bytes_per_s
            await asyncio.sleep(self._next_send_s - now)

    def _count(self, path: str, part: Range) -> None:
        parts = self.traffic.bodies.setdefault(path, [])
        if parts and parts[-1].start + parts[-1].length == part.start:
            parts[-1] = Range(parts[-1].start, parts[-1].length + part.length)
        else:
            parts.append(part)


@dataclass(frozen=True, slots=True)
class _Head:
    """A parsed request head; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


async def _read_head(reader: asyncio.StreamReader) -> _Head | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return _Head(method, urlsplit(target).path, {name.strip().lower(): value.strip() for name, _, value in pairs})


@dataclass(frozen=True, slots=True)
class _Reply:
    """A response: its head, and the body as (bytes before the part, part of the file or None)."""

    head: bytes
    file: Path | None
    parts: tuple[tuple[bytes, Range | None], ...]

    @classmethod
    def empty(cls, status: HTTPStatus, more: str = "") -> Self:
        return cls(_status_line(status) + f"{more}Content-Length: 0\r\n\r\n".encode(), None, ())

    @classmethod
    def of(cls, file: Path, size: int, ranges: tuple[Range, ...] | None, faults: Faults) -> Self:
        status = HTTPStatus.OK if ranges is None else HTTPStatus.PARTIAL_CONTENT
        first = Range(0, size) if ranges is None else ranges[0]
        kind, place = "application/octet-stream", ""
        parts: tuple[tuple[bytes, Range | None], ...] = ((b"", first),)
        if ranges is None:
            place = "Accept-Ranges: bytes\r\n"
        elif len(ranges) == 1:
            named, total = _said(first, size, faults)
            place = f"Content-Range: {format_content_range(named, total)}\r\n"
        else:
            boundary = secrets.token_hex(10)
            kind, parts = multipart_type(boundary), tuple(_multipart(boundary, ranges, size, faults))
            kind = kind.replace(boundary, f'"{boundary}"') if faults.quoted_boundary else kind
        length = sum(len(frame) + (part.length if part else 0) for frame, part in parts) + faults.length_off_by
        ending = "Connection: close" if faults.endless else f"Content-Length: {length}"
        return cls(_status_line(status) + f"Content-Type: {kind}\r\n{place}{ending}\r\n\r\n".encode(), file, parts)


def _multipart(boundary: str, ranges: tuple[Range, ...], size: int, faults: Faults) -> Iterator[tuple[bytes, Range | None]]:
    for part in ranges:
        yield part_head(boundary, *_said(part, size, faults)), part
    yield tail(boundary), None


def _said(part: Range, size: int, faults: Faults) -> tuple[Range, int]:
    """What a Content-Range says of a part, and of the whole."""
    return Range(part.start + faults.place_off_by, part.length), size + faults.size_off_by


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Break the connection off; there is no next request on it."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
    return False


def _status_line(status: HTTPStatus) -> bytes:
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
