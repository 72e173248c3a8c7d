"""Whole files over lines that break: resumed where they stopped, never trusted for what the server says of them.

Rules:

1. What is there already is asked for no more (`Range: bytes=N-`, with `If-Range` once a strong ETag is known), as often as
   the line breaks, until several tries in a row bring nothing.
2. A 206 must say in its Content-Range that it continues exactly here, in a file of exactly the signed length. If it does
   not, or the server says 416, the download begins again once without ranges; a 200 begins again by itself.
3. Not one byte beyond the signed length is written. Whether the bytes are right is for the caller to verify.
4. Progress is made durable in steps, so that a power cut costs one step.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from update.chunks.ranges import parse_content_range
from update.errors import EndlessDataError, ProtocolError, SlowError, StoreError, UnreachableError, WireError
from update.wire.http import PLAIN, Manner, exchange, pieces, refusal, strong_etag
from update.wire.rate import RateGuard, Retry

_BLOCK_BYTES = 1 << 20
_STEP_BYTES = 16 << 20
_PROGRESS_BYTES = 64 << 10
"""What a try must bring not to count as a failure: a server that sends one byte each time does not get for ever."""


class Sink(Protocol):
    """Where the bytes go: `update.store.staging.Staged` or `update.durable.DurableFile`."""

    def size(self) -> int:
        """Bytes that are there: the download continues behind them."""
        ...

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write at `offset`."""
        ...

    def truncate(self, size: int) -> None:
        """Cut back to `size`."""
        ...

    def sync(self) -> None:
        """Make durable what was written."""
        ...


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a download cost: bytes received in `requests` requests, behind `resumed_at` bytes that were there."""

    received_bytes: int
    requests: int
    resumed_at: int


def _silent(_position: int) -> None:
    """Nobody watches."""


async def download(
    session: aiohttp.ClientSession,
    url: str,
    sink: Sink,
    *,
    length: int,
    manner: Manner = PLAIN,
    retry: Retry | None = None,
    progress: Callable[[int], None] = _silent,
) -> Transfer:
    """Fill `sink` to exactly `length` bytes and sync it; `progress` is told the position in bytes.

    Errors: `EndlessDataError`; `NotFoundError`, `UnauthorizedError`, `ProtocolError` at once; `UnreachableError` and
    `SlowError` after the last retry; `StoreError`. What arrived stays in the sink.
    """
    running = _Download(session, url, sink, length=length, manner=manner, progress=progress)
    try:
        await running.run(retry or Retry())
    except BaseException:  # also when cancelled: what arrived is kept for the next try
        with suppress(StoreError):  # the first error is the one to tell
            await _in_thread(sink.sync)
        raise
    await _in_thread(sink.sync)
    return running.transfer


class _OtherRangeError(Exception):
    """The server's range is not the one that was asked for; never leaves this module."""


class _Download:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        sink: Sink,
        *,
        length: int,
        manner: Manner,
        progress: Callable[[int], None],
    ) -> None:
        self._session, self._url, self._sink, self._length = session, url, sink, length
        self._manner, self._progress = manner, progress
        self._etag: str | None = None
        self._ranges = True
        self._received = self._requests = 0
        if sink.size() > length:
            sink.truncate(0)
        self._resumed_at = sink.size()

    @property
    def transfer(self) -> Transfer:
        return Transfer(self._received, self._requests, self._resumed_at)

    async def run(self, retry: Retry) -> None:
        failures, best = 0, self._sink.size()
        while self._sink.size() < self._length:
            failure = await self._try()
            position = self._sink.size()
            if position >= self._length:
                return
            failures = 0 if position >= best + _PROGRESS_BYTES else failures + 1
            best = max(best, position)
            if failures >= retry.attempts:
                raise failure
            await retry.pause(max(failures, 1))

    async def _try(self) -> WireError:
        """One request; the error that tells why it was not enough, if it was not."""
        self._requests += 1
        try:
            await self._request(self._sink.size() if self._ranges else 0)
        except (UnreachableError, SlowError) as error:
            return error
        except _OtherRangeError as error:
            if not self._ranges:
                raise ProtocolError(str(error)) from error
            self._ranges = False
            return ProtocolError(str(error))
        return UnreachableError(f"{self._url} ends at byte {self._sink.size()} of {self._length}; try another source")

    async def _request(self, have: int) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._etag:
            headers["If-Range"] = self._etag
        async with exchange(self._session, "GET", self._url, self._manner, headers=headers) as response:
            start, end = self._span(response, have)
            if start < self._sink.size():
                self._sink.truncate(start)
            self._etag = strong_etag(response)
            await self._receive(response, start, end)

    def _span(self, response: aiohttp.ClientResponse, have: int) -> tuple[int, int]:
        """Where the body begins and must end."""
        if response.status == 200:
            if (announced := response.content_length) is not None and announced > self._length:
                raise EndlessDataError(f"{self._url} announces {announced} bytes, {self._length} are signed")
            return 0, self._length
        if response.status == 416 and have:
            raise _OtherRangeError(f"{self._url} has nothing behind byte {have}, {self._length} bytes are signed")
        if response.status != 206:
            raise refusal(response)
        try:
            part, total = parse_content_range(response.headers.get("Content-Range", ""))
        except ProtocolError as error:
            raise _OtherRangeError(f"{self._url}: {error}") from error
        if not have or part.start != have or part.end > self._length or total not in {None, self._length}:
            raise _OtherRangeError(
                f"{self._url} sends bytes {part.start}-{part.end - 1} of {total}, asked for {have}- of {self._length}"
            )
        return part.start, part.end

    async def _receive(self, response: aiohttp.ClientResponse, position: int, end: int) -> None:
        block, unsynced = bytearray(), 0
        try:
            async for piece in pieces(response, RateGuard(self._manner.patience, self._url), self._manner.line):
                self._received += len(piece)
                if position + len(block) + len(piece) > end:
                    raise EndlessDataError(f"{self._url} sends more than the {end - position} bytes that fit here")
                block += piece
                if len(block) >= _BLOCK_BYTES:
                    unsynced += len(block)
                    position = await self._flush(position, block)
                if unsynced >= _STEP_BYTES:
                    await _in_thread(self._sink.sync)
                    unsynced = 0
        finally:
            await self._flush(position, block)

    async def _flush(self, position: int, block: bytearray) -> int:
        if block:
            data = bytes(block)
            block.clear()
            await _in_thread(lambda: self._sink.write_at(position, data))
            position += len(data)
            self._progress(position)
        return position


async def _in_thread(work: Callable[[], None]) -> None:
    """Run disk work off the event loop; a cancelled task waits for it, so that nobody writes to a closed file."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()  # looked at: the cancellation is what is told
        raise
