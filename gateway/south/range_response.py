"""Sends an `Answer` from an open file with as little work per request as aiohttp allows.

aiohttp keeps parser, router, middlewares and access log; only the way response bytes are written is ours: its
`finish_response` awaits `prepare(request)` and `write_eof()`, which are overridden here. Signals and cookies of aiohttp
do not apply to these responses. The private names used (`_drain_helper`, `_eof_sent`, `_keep_alive`, `_body_length`,
`_req`) are pinned by `tests/contract/test_range_response.py`.

- Over plain TCP large answers go by sendfile(2): one large part at once, of several what comes after the first block. Only
  while the transport's own buffer is empty: our bytes must not overtake its. What precedes a part waits in the kernel for
  the part's first bytes (MSG_MORE). Everything else is read by blocks.
- Head and first part leave in one write (swupdate looks for the boundary in the first buffer only).
- Warm pages are read on the loop (preadv2 with RWF_NOWAIT), cold ones in a thread, which also warms them for sendfile.
- The kernel is given a duplicate of the transport's descriptor: the transport closes its own as soon as the client
  half-closes, and the next connection gets that number.
- A client that stops reading is given `STALL_S` and then cut. The wait for its own share (`pace.py`) is not counted.
"""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, takewhile

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.south.files import Answer, Part
from gateway.south.open_files import Lease
from gateway.south.outlet import Outlet
from gateway.south.pace import PACE
from update.chunks.ranges import Range

BLOCK_BYTES = 256 << 10
FIRST_BLOCK_BYTES = 64 << 10
SENDFILE_FROM_BYTES = 128 << 10
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
        blocks = _Blocks(request, transport, lease.descriptor)
        parts = (Part(head + answer.parts[0].frame, answer.parts[0].span), *answer.parts[1:])
        if request.secure or answer.body_bytes <= SENDFILE_FROM_BYTES:
            await blocks.send(parts, answer.tail)
            return
        if len(parts) > 1:
            first, parts = _first_block(parts)
            await blocks.send(first, b"")
            await asyncio.sleep(0)  # uvloop writes at the end of the iteration
        if transport.get_write_buffer_size():
            await blocks.send(parts, answer.tail)
            return
        with Outlet(transport, stall_s=STALL_S) as outlet:
            await outlet.send(lease.descriptor, parts, answer.tail, share=request.get(PACE))


def _first_block(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """The parts that make one block, or a block of the first part; and the rest."""
    ends = accumulate(part.span.length for part in parts)
    count = sum(1 for _ in takewhile(lambda end: end <= FIRST_BLOCK_BYTES, ends))
    if count:
        return parts[:count], parts[count:]
    start, length = parts[0].span
    begin = Part(parts[0].frame, Range(start, FIRST_BLOCK_BYTES))
    return (begin,), (Part(b"", Range(start + FIRST_BLOCK_BYTES, length - FIRST_BLOCK_BYTES)), *parts[1:])


class _Blocks:
    """Reads blocks and writes them with what goes before them to the transport; at most two blocks are in memory."""

    def __init__(self, request: web.BaseRequest, transport: asyncio.Transport, descriptor: int) -> None:
        self._request = request
        self._transport = transport
        self._descriptor = descriptor
        self._share = request.get(PACE)
        self._most = BLOCK_BYTES if self._share is None else min(BLOCK_BYTES, self._share.step_bytes)

    async def send(self, parts: Sequence[Part], tail: bytes) -> None:
        """Everything, in this order."""
        waiting: list[bytes | bytearray] = []
        size = 0
        for part in parts:
            waiting.append(part.frame)
            offset, left = part.span.start, part.span.length
            while left:
                block = await read_block(self._descriptor, offset, min(left, self._most))
                if not block:  # shorter than promised: the only honest end is a cut
                    self._transport.abort()
                    raise ConnectionResetError("content is shorter than its size")
                waiting.append(block)
                offset, left, size = offset + len(block), left - len(block), size + len(block)
                if size >= self._most:
                    await self._flush(waiting)
                    waiting, size = [], 0
        if tail or waiting:
            await self._flush([*waiting, tail])

    async def _flush(self, waiting: "list[bytes | bytearray]") -> None:
        if self._share is not None:
            await self._share.take(sum(map(len, waiting)))
        self._transport.write(b"".join(waiting))  # each piece alone would be a TLS record of its own
        try:
            async with asyncio.timeout(STALL_S):
                await self._request.protocol._drain_helper()  # noqa: SLF001 - aiohttp has no public drain; a contract test pins it
        except TimeoutError as error:
            self._transport.abort()
            raise ConnectionResetError("the client has stopped reading") from error


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


def _connection_header(request: web.BaseRequest) -> bytes:
    if not request.keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if request.version < (1, 1) else b""
