"""Answers from content that is still on its way in (`growing`): one range or all of it, in the order of the file."""

import asyncio
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.south.files import not_satisfiable
from gateway.south.mirrored.growing import Growing
from gateway.south.open_files import Lease
from gateway.south.pace import PACE
from gateway.south.range_response import RangeResponse
from update.chunks.ranges import Range, parse_range
from update.errors import FieldrelayError, RangeNotSatisfiableError

_BLOCK_BYTES: Final = 256 << 10
_STALL_S: Final = 120.0
_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Range")


def can_stream(headers: Mapping[str, str]) -> bool:
    """Whether a request can be answered before the digest of everything, which is the ETag, is known."""
    return not any(name in headers for name in _CONDITIONS) and "," not in headers.get("Range", "")


async def stream(request: web.Request, growing: Growing, headers: Mapping[str, str]) -> web.StreamResponse:
    """Answer once the first bytes are there, so that what fails before them is refused by name; errors: what ended it early."""
    try:
        ranges = parse_range(request.headers["Range"], growing.size_bytes, max_ranges=1) if _asks_for_range(request) else None
    except RangeNotSatisfiableError:
        return RangeResponse(not_satisfiable(growing.size_bytes))
    span = ranges[0] if ranges else Range(0, growing.size_bytes)
    lease = growing.lend()  # before anything is waited for
    try:
        if request.method != "HEAD":
            await growing.until(span.start, last=False)
    except BaseException:  # also when the client goes away
        lease.release()
        raise
    more = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    if ranges:
        more["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{growing.size_bytes}"
    return _GrowingResponse(growing, lease, span, HTTPStatus.PARTIAL_CONTENT if ranges else HTTPStatus.OK, more)


def _asks_for_range(request: web.Request) -> bool:
    return request.method == "GET" and "Range" in request.headers


class _GrowingResponse(web.StreamResponse):
    """Sends `span` as it comes in; cuts the connection if it does not, or if the client stops reading for `_STALL_S`."""

    def __init__(self, growing: Growing, lease: Lease, span: Range, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self.content_length = span.length
        self._growing = growing
        self._span = span
        self._lease = lease

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send head and body; `ConnectionResetError` when the client has gone, or the content was wrong."""
        try:
            writer = await super().prepare(request)
            if request.method != "HEAD":
                await self._send(request)
        except FieldrelayError as error:  # too late for a refusal
            _cut(request)
            raise ConnectionResetError(f"content ended early: {error}") from error
        except TimeoutError as error:
            _cut(request)
            raise ConnectionResetError("the client has stopped reading") from error
        finally:
            self._lease.release()
        return writer

    async def _send(self, request: web.BaseRequest) -> None:
        share, offset, end = request.get(PACE), self._span.start, self._span.end
        most = _BLOCK_BYTES if share is None else min(_BLOCK_BYTES, share.step_bytes)
        while offset < end:
            at_hand = min(end, await self._growing.until(offset, last=False))
            block = await asyncio.to_thread(os.pread, self._lease.descriptor, min(most, at_hand - offset), offset)
            if offset + len(block) == end:
                await self._growing.until(offset, last=True)
            if share is not None:
                await share.take(len(block))
            async with asyncio.timeout(_STALL_S):
                await self.write(block)
            offset += len(block)


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
