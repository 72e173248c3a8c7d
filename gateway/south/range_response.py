"""Sends an `Answer` from an open file with as little work per request as aiohttp allows.

aiohttp keeps parser, router, middlewares and access log; only the way response bytes are written is ours: its
`finish_response` awaits `prepare(request)` and `write_eof()`, which are overridden here. Signals and cookies of aiohttp
do not apply to these responses. The private names used (`_drain_helper`, `_eof_sent`, `_keep_alive`, `_body_length`,
`_req`) are pinned by `tests/contract/test_range_response.py`.

- A single large part over plain TCP goes by sendfile(2), but only while the transport's own buffer is empty: our bytes
  must not overtake its. Everything else is read by blocks and written with the head in one call, so that head and first
  part leave together (swupdate looks for the boundary in the first buffer only).
- Warm pages are read on the loop (preadv2 with RWF_NOWAIT), cold ones in a thread, which also warms them for sendfile.
- sendfile goes to a duplicate of the transport's descriptor: the transport closes its own as soon as the client half-closes,
  and the next connection gets that number.
- A client that stops reading is given `STALL_S` and then cut. The wait for its own share (`pace.py`) is not counted.
"""

import asyncio
import os
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.south.files import Answer
from gateway.south.open_files import Lease
from gateway.south.pace import PACE
from update.wire.limits import Share

BLOCK_BYTES = 256 << 10
SENDFILE_FROM_BYTES = 128 << 10
SENDFILE_STEP_BYTES = 1 << 20
STALL_S = 120.0


class RangeResponse(web.StreamResponse):
    """One response over an open file, which is released at its end; `lease` is needed where the answer has a body."""

    def __init__(self, answer: Answer, lease: Lease | None = None) -> None:
        super().__init__(status=answer.status)
        self._answer = answer
        self._lease = lease

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send head and body; `ConnectionResetError` when the client has gone or has stopped reading."""
        self._req = request
        self._keep_alive = request.keep_alive
        try:
            if request.transport is None:
                raise ConnectionResetError("the client has gone")
            head = self._answer.head + _connection_header(request) + b"\r\n"
            await self._send(request, request.transport, head)
        finally:
            if self._lease is not None:
                self._lease.release()
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - the signature is aiohttp's
        """Everything was sent by `prepare`; keep aiohttp's books."""
        self._eof_sent = True
        self._body_length = self._answer.body_bytes

    async def _send(self, request: web.BaseRequest, transport: asyncio.Transport, head: bytes) -> None:
        answer, lease = self._answer, self._lease
        if request.method == "HEAD" or not answer.parts or lease is None:
            transport.write(head)
            return
        socket = None if request.secure else transport.get_extra_info("socket")
        if len(answer.parts) == 1 and answer.body_bytes > SENDFILE_FROM_BYTES and socket is not None:
            transport.write(head)
            head = b""
            await asyncio.sleep(0)  # uvloop writes at the end of the iteration
            if not transport.get_write_buffer_size():
                span = answer.parts[0].span
                share = request.get(PACE)
                await _send_by_kernel(transport, socket.fileno(), lease.descriptor, span.start, span.length, share=share)
                return
        await self._send_by_blocks(request, transport, head, lease.descriptor)

    async def _send_by_blocks(self, request: web.BaseRequest, transport: asyncio.Transport, head: bytes, descriptor: int) -> None:
        """Read blocks and write them with what goes before them; at most two blocks are in memory."""
        share = request.get(PACE)
        most = BLOCK_BYTES if share is None else min(BLOCK_BYTES, share.step_bytes)
        waiting: list[bytes | bytearray] = [head] if head else []
        size = 0
        for part in self._answer.parts:
            waiting.append(part.frame)
            offset, left = part.span.start, part.span.length
            while left:
                block = await read_block(descriptor, offset, min(left, most))
                if not block:  # shorter than promised: the only honest end is a cut
                    transport.abort()
                    raise ConnectionResetError("content is shorter than its size")
                waiting.append(block)
                offset, left, size = offset + len(block), left - len(block), size + len(block)
                if size >= most:
                    await _flush(request, transport, waiting, share)
                    waiting, size = [], 0
        waiting.append(self._answer.tail)
        await _flush(request, transport, waiting, share)


async def read_block(descriptor: int, offset: int, size: int) -> bytes | bytearray:
    """Up to `size` bytes at `offset`: at once when the page cache has them, else from a thread."""
    buffer = bytearray(size)
    with suppress(BlockingIOError, OSError):  # EOPNOTSUPP: the file system cannot say
        count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
        if count == size:
            return buffer
        if count:
            return buffer[:count]
    return await asyncio.to_thread(os.pread, descriptor, size, offset)


async def _flush(
    request: web.BaseRequest, transport: asyncio.Transport, waiting: list[bytes | bytearray], share: Share | None
) -> None:
    if share is not None:
        await share.take(sum(map(len, waiting)))
    transport.writelines(waiting)
    try:
        async with asyncio.timeout(STALL_S):
            await request.protocol._drain_helper()  # noqa: SLF001 - aiohttp has no public drain; pinned by a contract test
    except TimeoutError as error:
        transport.abort()
        raise ConnectionResetError("the client has stopped reading") from error


async def _send_by_kernel(
    transport: asyncio.Transport, out: int, descriptor: int, offset: int, left: int, *, share: Share | None
) -> None:
    """sendfile(2) on the transport's socket, yielding between steps so that no connection starves the others."""
    out, allowed = os.dup(out), left if share is None else 0
    try:
        while left:
            if share is not None and not allowed:
                allowed = min(left, share.step_bytes)
                await share.take(allowed)
            step = min(allowed, SENDFILE_STEP_BYTES)
            await _warm(descriptor, offset, step)
            if transport.is_closing():
                raise ConnectionResetError("the client has gone")
            try:
                sent = os.sendfile(out, descriptor, offset, step)
            except BlockingIOError:
                await _writable(transport, out)
                continue
            if sent == 0:
                transport.abort()
                raise ConnectionResetError("content is shorter than its size")
            offset, left, allowed = offset + sent, left - sent, allowed - sent
            if left:
                await asyncio.sleep(0)
    finally:
        os.close(out)


async def _warm(descriptor: int, offset: int, size: int) -> None:
    """Have the bytes in the page cache: sendfile would read a cold disk on the event loop. Judged by the last of them."""
    with suppress(OSError):
        os.preadv(descriptor, [bytearray(1)], offset + size - 1, os.RWF_NOWAIT)
        return
    await asyncio.to_thread(os.pread, descriptor, size, offset)


async def _writable(transport: asyncio.Transport, out: int) -> None:
    """Wait until the socket takes bytes again."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(out, _settle, ready)
    try:
        async with asyncio.timeout(STALL_S):
            await ready
    except TimeoutError as error:
        transport.abort()
        raise ConnectionResetError("the client has stopped reading") from error
    finally:
        loop.remove_writer(out)


def _settle(ready: "asyncio.Future[Any]") -> None:  # Any: a future of nothing
    if not ready.done():
        ready.set_result(None)


def _connection_header(request: web.BaseRequest) -> bytes:
    if not request.keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if request.version < (1, 1) else b""
