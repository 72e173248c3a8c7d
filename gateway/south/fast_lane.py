"""The fast lane: ranges of complete content, answered where their request comes in.

What streams from us (RAUC, block devices over HTTP) asks for thousands of ranges on one connection, each time with the same
head but for the Range field. Parsing, routing and bookkeeping cost several times what moving the bytes costs; so what leaves
nothing to decide is answered before aiohttp sees the connection. Rules:

1. The lane answers what `simple_request.py` understands, of content that is complete. It refuses nothing: with the first
   request that is anything else, the connection goes to aiohttp with all that has come, for good.
2. What the head means apart from its ranges is read once, and again when it changes. The content behind it is looked up at
   every request, and asked of the store as often as everywhere else (`open_files.py`).
3. The answer is the one of `files.py`, byte for byte, and head and first part leave in one call.
4. One range of at most `BLOCK_BYTES` is sent at once. More goes by the kernel (`outlet.py`); pages that are not in memory are
   read in a thread. Nothing more is read from that connection meanwhile. TLS has no such way: there more is aiohttp's.
5. Who is idle for `idle_s`, or does not read for `STALL_S`, is cut off like everywhere else.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

from gateway.south.files import Answer, Part, etag_of, partial
from gateway.south.open_files import Lease
from gateway.south.outlet import Outlet
from gateway.south.range_response import STALL_S, read_block
from gateway.south.simple_request import named_by, ranges_in, split_range
from update.chunks.ranges import Range
from update.errors import FieldrelayError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 128 << 10
FIRST_BYTES: Final = 64 << 10
"""Of a larger answer so much of the first part leaves with the head."""
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
    """What was asked for, and the answer."""

    info: TargetInfo
    answer: Answer

    @property
    def small(self) -> bool:
        """Whether one block holds all of it."""
        return len(self.answer.parts) == 1 and self.answer.body_bytes <= BLOCK_BYTES


class Lanes:
    """The lanes of one application. `admits` says whether who connects may ask at all; others are left to aiohttp."""

    def __init__(self, shelf: Shelf, *, admits: Callable[[asyncio.Transport], bool], idle_s: float) -> None:
        self.shelf = shelf
        self.admits = admits
        self.idle_s = idle_s
        self.block = memoryview(bytearray(BLOCK_BYTES))  # read into and written from without a pause between
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
        self._free = asyncio.Event()  # set while the transport keeps nothing
        self._free.set()
        self._rest = b""
        self._lookup: Lookup | None = None
        self._sending: asyncio.Task[None] | None = None
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
            transport.set_write_buffer_limits(0)  # what it keeps is to be waited for
        self._asked_s = self._loop.time()
        self._timer = self._loop.call_later(self._lanes.idle_s, self._look_whether_idle)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Forget the connection."""
        self._leave()
        if self._sending is not None:
            self._sending.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._free.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._free.set()

    def data_received(self, data: bytes) -> None:
        """Answer, or leave the connection to aiohttp."""
        if self._sending is not None:
            self._held += data  # little: the transport was told to read no more
        elif not self._answer(data):
            self._hand_over(data)

    def close(self) -> None:
        """End it after what was written."""
        if self._sending is not None:
            self._sending.cancel()
        self._transport.close()

    def _answer(self, data: bytes) -> bool:
        """Whether the lane takes it upon itself to answer."""
        if self._transport.is_closing() or self._transport.get_write_buffer_size():
            return False
        wish = self._understand(data)
        if wish is None or (self._descriptor < 0 and not wish.small):
            return False
        self._asked_s = self._loop.time()
        descriptor = self._lanes.shelf.opened(wish.info)
        if not wish.small or descriptor is None or not self._send_at_once(wish.answer, descriptor):
            self._transport.pause_reading()
            self._sending = self._loop.create_task(self._send_later(wish, data))
        return True

    def _understand(self, data: bytes) -> _Wish | None:
        split = split_range(data)
        if split is None:
            return None
        rest, wanted = split
        if rest != self._rest:
            named = named_by(rest)
            self._rest, self._lookup = rest, self._lanes.shelf.lookup(*named) if named else None
        info = self._lookup() if self._lookup else None
        ranges = ranges_in(wanted, info.length) if info else None
        return _Wish(info, partial(ranges, info.length, etag_of(info.sha256))) if info and ranges else None

    def _send_at_once(self, answer: Answer, descriptor: int) -> bool:
        """Send one range that the page cache has; False if it has not all of it."""
        start, length = answer.parts[0].span
        body = self._lanes.block[:length]
        try:
            count = os.preadv(descriptor, [body], start, os.RWF_NOWAIT)
        except OSError:  # cold, or the file system cannot say
            return False
        if count != length:
            return False
        self._write(answer.head + b"\r\n", body)
        return True

    async def _send_later(self, wish: _Wish, data: bytes) -> None:
        """Send what takes more than a moment, or leave it to aiohttp."""
        try:
            sent = await self._send_stored(wish)
        except FieldrelayError as error:  # asked the other way it is the same, and refused by name
            _log.debug("fast lane: %s: %s", wish.info.path, error)
            sent = False
        except ConnectionError:
            self._transport.abort()
            return
        except BaseException:  # whatever it is, half an answer must not be taken for a whole one
            self._transport.abort()
            raise
        self._sending = None
        if self._transport.is_closing():
            return
        self._asked_s = self._loop.time()
        self._transport.resume_reading()
        held, self._held = self._held, b""
        if not sent:
            self._hand_over(data + held)
        elif held:
            self._hand_over(held)

    async def _send_stored(self, wish: _Wish) -> bool:
        """Send it from the store; False, and nothing sent, if the store does not have all of it."""
        lease = await self._lanes.shelf.stored(wish.info)
        if lease is None:
            return False
        try:
            answer, (start, length) = wish.answer, wish.answer.parts[0].span
            begin = await _read(lease.descriptor, Range(start, length if wish.small else min(length, FIRST_BYTES)))
            if begin is None or self._transport.is_closing():
                return False
            self._write(answer.head + b"\r\n" + answer.parts[0].frame, begin)
            if not wish.small:
                await self._drained()
                rest = Part(b"", Range(start + len(begin), length - len(begin)))
                with Outlet(self._transport, stall_s=STALL_S) as outlet:
                    await outlet.send(lease.descriptor, (rest, *answer.parts[1:]), answer.tail, share=None)
        finally:
            lease.release()
        return True

    async def _drained(self) -> None:
        """Wait until the transport has sent what it kept: nothing must overtake it."""
        try:
            async with asyncio.timeout(STALL_S):
                while self._transport.get_write_buffer_size():
                    await asyncio.sleep(0)  # uvloop writes, and pauses us, at the end of the iteration
                    await self._free.wait()
        except TimeoutError as error:
            raise ConnectionResetError("the client has stopped reading") from error

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
        if self._descriptor >= 0:
            self._transport.set_write_buffer_limits()
        handler = self._behind()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        if not self._free.is_set():
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
        most_s = STALL_S if stalled else self._lanes.idle_s
        if silent_s < most_s or self._sending is not None:  # what is being sent is watched where it is sent
            self._timer = self._loop.call_later(max(most_s - silent_s, most_s / 2), self._look_whether_idle)
        elif stalled:
            self._transport.abort()
        else:
            self._transport.close()


async def _read(descriptor: int, span: Range) -> bytes | None:
    """All of `span`; None if the file is shorter than promised."""
    body = bytearray()
    while len(body) < span.length:
        block = await read_block(descriptor, span.start + len(body), span.length - len(body))
        if not block:
            return None
        body += block
    return bytes(body)
