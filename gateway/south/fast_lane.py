"""The fast lane: one range of complete content, answered where its request comes in.

What streams from us (RAUC, block devices over HTTP) asks for thousands of small ranges on one connection, each time with the
same head but for the Range field. Parsing, routing and bookkeeping cost several times what moving the bytes costs; so what
leaves nothing to decide is answered before aiohttp sees the connection. Rules:

1. The lane answers GET over HTTP/1.1 for one range `a-b` of at most `MOST_BYTES` within content that is complete, from a
   head that comes in one piece and has no field that changes what is meant. It refuses nothing: with the first request
   that is anything else, the connection goes to aiohttp with all that has come, for good.
2. What the head means apart from its range is read once, and again when it changes. The content behind it is looked up at
   every request, and asked of the store as often as everywhere else (`open_files.py`).
3. The answer is the one of `files.py`, byte for byte, and head and body leave in one call.
4. Pages that are not in memory are read in a thread; nothing more is read from that connection meanwhile.
5. Who is idle for `idle_s`, or does not read for `STALL_S`, is cut off like everywhere else.
"""

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

from gateway.south.files import etag_of, single_head
from gateway.south.open_files import Lease
from gateway.south.range_response import STALL_S, read_block
from update.chunks.ranges import Range
from update.errors import FieldrelayError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

MOST_BYTES: Final = 128 << 10
MAX_HEAD_BYTES: Final = 4096
_HEAD = re.compile(rb"GET (/[A-Za-z0-9._~/+-]*) HTTP/1\.1\r\n((?:[A-Za-z0-9-]{1,64}:[\t -~]*\r\n)+)\r\n")
_HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_RANGE = re.compile(rb"\r\n[Rr]ange: ?bytes=([0-9]{1,15})-([0-9]{1,15})(?=\r\n)")
_DECISIVE: Final = frozenset(
    {"content-length", "transfer-encoding", "expect", "upgrade", "range", "if-match", "if-none-match", "if-range", "trailer"}
)
"""Fields that make another request of it; every other one is ignored here as it is behind the router."""

Lookup = Callable[[], TargetInfo | None]
"""What stands behind a name now; None if nothing, or nothing that the lane may answer."""
NewProtocol = Callable[[], asyncio.Protocol]


class Shelf(Protocol):
    """Content by name, and its open files."""

    def lookup(self, host: str, path: str) -> Lookup | None:
        """What a request for `path` at `host` (as in the Host field) means; None: not for the lane."""
        ...

    def opened(self, info: TargetInfo) -> int | None:
        """A descriptor that is open, to be used before anything is awaited."""
        ...

    async def stored(self, info: TargetInfo) -> Lease | None:
        """A descriptor from the store; None if it does not have all of the content. Errors: `FieldrelayError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Wish:
    """A range of content, and the head of its answer."""

    info: TargetInfo
    span: Range
    head: bytes


class Lanes:
    """The lanes of one application. `admits` says whether who connects may ask at all; others are left to aiohttp."""

    def __init__(self, shelf: Shelf, *, admits: Callable[[asyncio.Transport], bool], idle_s: float) -> None:
        self.shelf = shelf
        self.admits = admits
        self.idle_s = idle_s
        self.block = memoryview(bytearray(MOST_BYTES))  # read into and written from without a pause between
        self._servers: list[asyncio.Server] = []
        self._lanes: set[FastLane] = set()

    async def listen(self, behind: NewProtocol, address: str, port: int, tls: ssl.SSLContext | None, *, backlog: int) -> int:
        """Take connections, with `behind` for what is not for the lane; the port. `OSError` as from the loop."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: FastLane(self, behind), address, port, ssl=tls, backlog=backlog)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self, _application: object = None) -> None:
        """Take no more connections and end those that are here; what was answered is still sent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for lane in tuple(self._lanes):
            lane.close()

    def enter(self, lane: "FastLane") -> None:
        """Know a connection."""
        self._lanes.add(lane)

    def leave(self, lane: "FastLane") -> None:
        """Forget a connection: it has ended, or aiohttp has it."""
        self._lanes.discard(lane)


class FastLane(asyncio.Protocol):
    """One connection, until it ends or aiohttp gets it."""

    _transport: asyncio.Transport

    def __init__(self, lanes: Lanes, behind: NewProtocol) -> None:
        self._lanes = lanes
        self._behind = behind
        self._loop = asyncio.get_running_loop()
        self._descriptor = -1  # of the socket, where bytes may go to it past the transport
        self._writing_paused = False
        self._rest = b""
        self._lookup: Lookup | None = None
        self._reading: asyncio.Task[None] | None = None
        self._held = b""
        self._asked_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or leave it to aiohttp at once."""
        self._transport = transport = cast("asyncio.Transport", transport)
        if not self._lanes.admits(transport):
            self._hand_over(b"")
            return
        self._lanes.enter(self)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if transport.get_extra_info("ssl_object") is None:
            self._descriptor = connected.fileno()
        self._asked_s = self._loop.time()
        self._timer = self._loop.call_later(self._lanes.idle_s, self._look_whether_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Forget the connection."""
        self._leave()
        if self._reading is not None:
            self._reading.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._writing_paused = False

    def data_received(self, data: bytes) -> None:
        """Answer, or leave the connection to aiohttp."""
        if self._reading is not None:
            self._held += data  # little: the transport was told to read no more
        elif not self._answer(data):
            self._hand_over(data)

    def close(self) -> None:
        """End it after what was written."""
        if self._reading is not None:
            self._reading.cancel()
        self._transport.close()

    def _answer(self, data: bytes) -> bool:
        """Whether the lane takes it upon itself to answer."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        wish = self._understand(data)
        if wish is None:
            return False
        self._asked_s = self._loop.time()
        descriptor = self._lanes.shelf.opened(wish.info)
        if descriptor is None or not self._send_at_once(wish, descriptor):
            self._transport.pause_reading()
            self._reading = self._loop.create_task(self._send_later(wish, data))
        return True

    def _understand(self, data: bytes) -> _Wish | None:
        found = _RANGE.search(data) if len(data) <= MAX_HEAD_BYTES else None
        if found is None:
            return None
        rest = data[: found.start()] + data[found.end() :]
        if rest != self._rest:
            self._rest, self._lookup = rest, self._meant(rest)
        info = self._lookup() if self._lookup else None
        if info is None:
            return None
        start, length = int(found[1]), int(found[2]) - int(found[1]) + 1
        if not 0 < length <= MOST_BYTES or start + length > info.length:
            return None
        span = Range(start, length)
        return _Wish(info, span, single_head(span, info.length, etag_of(info.sha256)))

    def _meant(self, head: bytes) -> Lookup | None:
        """What a head without its range asks for."""
        match = _HEAD.fullmatch(head)
        if match is None:
            return None
        lines = match[2].decode("ascii").splitlines()
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if any(name in _DECISIVE for name, _ in fields):
            return None
        if any(value.lower() != "keep-alive" for name, value in fields if name == "connection"):
            return None
        hosts = [value for name, value in fields if name == "host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            return None
        return self._lanes.shelf.lookup(hosts[0], match[1].decode("ascii"))

    def _send_at_once(self, wish: _Wish, descriptor: int) -> bool:
        """Send what the page cache has; False if it has not all of it."""
        body = self._lanes.block[: wish.span.length]
        try:
            count = os.preadv(descriptor, [body], wish.span.start, os.RWF_NOWAIT)
        except OSError:  # cold, or the file system cannot say
            return False
        if count != wish.span.length:
            return False
        self._write(wish.head, body)
        return True

    async def _send_later(self, wish: _Wish, data: bytes) -> None:
        """Send what has to be looked for first, or leave it to aiohttp."""
        try:
            body = await self._read(wish)
        except (FieldrelayError, OSError) as error:  # asked the other way it is the same, and refused by name
            _log.debug("fast lane: %s: %s", wish.info.path, error)
            body = None
        except BaseException:
            self._transport.abort()
            raise
        self._reading = None
        if self._transport.is_closing():
            return
        self._transport.resume_reading()
        held, self._held = self._held, b""
        if body is None:
            self._hand_over(data + held)
            return
        self._write(wish.head, body)
        if held:
            self._hand_over(held)

    async def _read(self, wish: _Wish) -> bytes | None:
        lease = await self._lanes.shelf.stored(wish.info)
        if lease is None:
            return None
        try:
            body = bytearray()
            while len(body) < wish.span.length:
                block = await read_block(lease.descriptor, wish.span.start + len(body), wish.span.length - len(body))
                if not block:
                    return None
                body += block
            return bytes(body)
        finally:
            lease.release()

    def _write(self, head: bytes, body: "memoryview | bytes") -> None:
        """Head and body in one call, straight to the socket where that is possible; the transport keeps what it does not take."""
        if self._descriptor < 0:
            self._transport.write(b"".join((head, body)))
            return
        sent = 0
        with suppress(BlockingIOError):
            try:
                sent = os.writev(self._descriptor, (head, body))
            except (ConnectionError, TimeoutError):
                self._transport.abort()
                return
        if sent < len(head) + len(body):
            self._transport.write(b"".join((head, body))[sent:])

    def _hand_over(self, data: bytes) -> None:
        """From now on it is aiohttp's."""
        self._leave()
        handler = self._behind()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        if self._writing_paused:
            handler.pause_writing()
        if data:
            handler.data_received(data)

    def _leave(self) -> None:
        self._lanes.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_whether_idle(self) -> None:
        silent_s = self._loop.time() - self._asked_s
        stalled = self._transport.get_write_buffer_size() > 0
        most_s = STALL_S if stalled or self._reading is not None else self._lanes.idle_s
        if silent_s < most_s:
            self._timer = self._loop.call_later(most_s - silent_s, self._look_whether_idle)
        elif stalled:
            self._transport.abort()
        else:
            self._transport.close()
