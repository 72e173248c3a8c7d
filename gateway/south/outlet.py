"""The way past the transport: parts of a file straight from the page cache into a plain TCP socket, by sendfile(2).

For who knows that the transport has nothing left to send. The socket is a duplicate: asyncio refuses to watch the
transport's own descriptor, and the transport closes that one as soon as the client half-closes. What precedes a part is
sent with MSG_MORE, so that the kernel puts it into one segment with the part's first bytes.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Self

from gateway.south.files import Part
from update.wire.limits import Share

STEP_BYTES = 1 << 20
"""After so much another connection has its turn."""


class Outlet:
    """One connection's socket while something is sent past its transport; who takes nothing for `stall_s` is cut off."""

    def __init__(self, transport: asyncio.Transport, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self._transport = transport
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._number = self._socket.fileno()
        self._probe = [bytearray(1)]
        self._since_turn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, descriptor: int, parts: Sequence[Part], tail: bytes, *, share: Share | None) -> None:
        """All parts of the file and what ends them. `ConnectionResetError` when the client has gone or stopped reading."""
        for frame, (start, length) in parts:
            done = self._at_once(descriptor, frame, start, length) if share is None else 0
            if done < len(frame):
                await self._send_bytes(frame[done:], socket.MSG_MORE)
                done = len(frame)
            sent = done - len(frame)
            if sent < length:
                await self._send_span(descriptor, start + sent, length - sent, share)
            else:
                await self._give_way(sent)
        if tail:
            await self._send_bytes(tail, 0)

    def _at_once(self, descriptor: int, frame: bytes, start: int, length: int) -> int:
        """Send as much of a small part as the socket takes now; how many bytes, frame included."""
        if length > STEP_BYTES or not self._is_warm(descriptor, start + length - 1):
            return 0
        done = 0
        try:
            self._check()
            if frame:
                done = self._socket.send(frame, socket.MSG_MORE)
            if done == len(frame):
                done += os.sendfile(self._number, descriptor, start, length)
        except BlockingIOError:
            pass
        return done

    async def _send_bytes(self, data: bytes, flags: int) -> None:
        while data:
            self._check()
            try:
                data = data[self._socket.send(data, flags) :]
            except BlockingIOError:
                await self._writable()

    async def _send_span(self, descriptor: int, offset: int, left: int, share: Share | None) -> None:
        allowed = left if share is None else 0
        while left:
            if share is not None and not allowed:
                allowed = min(left, share.step_bytes)
                await share.take(allowed)
            step = min(allowed, STEP_BYTES)
            if not self._is_warm(descriptor, offset + step - 1):
                await asyncio.to_thread(os.pread, descriptor, step, offset)
            self._check()
            try:
                sent = os.sendfile(self._number, descriptor, offset, step)
            except BlockingIOError:
                await self._writable()
                continue
            if sent == 0:
                self._transport.abort()
                raise ConnectionResetError("content is shorter than its size")
            offset, left, allowed = offset + sent, left - sent, allowed - sent
            await self._give_way(sent)

    async def _give_way(self, sent: int) -> None:
        self._since_turn += sent
        if self._since_turn >= STEP_BYTES:
            self._since_turn = 0
            await asyncio.sleep(0)

    def _is_warm(self, descriptor: int, last: int) -> bool:
        """Whether the page cache has what ends here: sendfile would read a cold disk on the event loop."""
        try:
            os.preadv(descriptor, self._probe, last, os.RWF_NOWAIT)
        except OSError:
            return False
        return True

    def _check(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")

    async def _writable(self) -> None:
        """Wait until the socket takes bytes again."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._socket, _settle, ready)
        try:
            async with asyncio.timeout(self._stall_s):
                await ready
        except TimeoutError as error:
            self._transport.abort()
            raise ConnectionResetError("the client has stopped reading") from error
        finally:
            loop.remove_writer(self._socket)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
