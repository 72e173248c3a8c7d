"""Byte ranges of one file, from whatever a server makes of a request for several.

Servers were seen to answer a multi-range request with multipart/byteranges (boundary quoted or not), with the first range
only, with one range that covers all, with the whole file (S3), with 416 (Varnish) or with an error (minio), and to leave
out parts silently. So nothing is assumed: what is missing after an answer is asked for again, a server that does not take
several ranges is asked for one at a time, and one that takes none is read from the start. Only bytes that were asked for
are passed on, each once, in ascending order; whether they are right is for the caller to verify, chunk by chunk.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

import aiohttp

from update.chunks.ranges import MAX_PART_HEAD_BYTES, MultipartParser, Range, format_range, parse_boundary, parse_content_range
from update.errors import EndlessDataError, ProtocolError, SlowError, UnreachableError, WireError
from update.wire.http import PLAIN, Manner, exchange, pieces, refusal, strong_etag
from update.wire.rate import RateGuard, Retry

RANGES_PER_REQUEST = 60
_PROGRESS_BYTES = 64 << 10
_TOO_MANY_RANGES = frozenset({200, 400, 413, 414, 416, 431, 500, 501})


class Wanted:
    """What is still missing: pure. Ranges are sorted; those that touch or overlap become one."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._left: deque[Range] = deque()
        self.disordered = False
        for each in sorted(Range(start, length) for start, length in ranges):
            if each.start < 0 or each.length < 1:
                raise ProtocolError(f"not a range of bytes: {each.length} from {each.start}")
            if self._left and each.start <= self._left[-1].end:
                last = self._left.pop()
                each = Range(last.start, max(last.end, each.end) - last.start)  # noqa: PLW2901 - it grows by its neighbour
            self._left.append(each)

    def __bool__(self) -> bool:
        return bool(self._left)

    @property
    def bytes_left(self) -> int:
        """How many bytes are missing."""
        return sum(each.length for each in self._left)

    @property
    def end(self) -> int:
        """The first byte behind everything that is missing."""
        return self._left[-1].end if self._left else 0

    def first(self, count: int) -> tuple[Range, ...]:
        """The first missing ranges."""
        return tuple(self._left)[:count]

    def take(self, offset: int, piece: bytes) -> list[tuple[int, bytes]]:
        """What `piece` brings of what is missing next; `disordered` is set when it comes from further behind."""
        found: list[tuple[int, bytes]] = []
        while self._left and offset + len(piece) > self._left[0].start:
            front = self._left[0]
            if offset > front.start:
                self.disordered = True
                break
            part = piece[front.start - offset : front.end - offset]
            found.append((front.start, part))
            self._left.popleft()
            if len(part) < front.length:
                self._left.appendleft(Range(front.start + len(part), front.length - len(part)))
                break
        return found


async def read_ranges(
    session: aiohttp.ClientSession,
    url: str,
    ranges: Iterable[tuple[int, int]],
    *,
    size: int | None = None,
    manner: Manner = PLAIN,
    retry: Retry | None = None,
    max_ranges: int = RANGES_PER_REQUEST,
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield (offset, bytes) until every (start, length) of `ranges` is covered, ascending, no byte twice.

    `size` is the size of the whole file in bytes, if known. Errors: `EndlessDataError`; `NotFoundError`,
    `UnauthorizedError`, `ProtocolError` at once; `UnreachableError` and `SlowError` after the last retry.
    """
    wanted, again = Wanted(ranges), retry or Retry()
    reader = _Reader(session, url, wanted, size, manner)
    failures = 0
    while wanted:
        asked, before = wanted.first(max_ranges), wanted.bytes_left
        failure: WireError = ProtocolError(f"{url} sends other bytes than the {len(asked)} ranges from {asked[0].start} on")
        wanted.disordered = False
        try:
            async with aclosing(reader.ask(asked)) as events:
                async for event in events:
                    yield event
        except (_OneAtATimeError, ProtocolError):
            if len(asked) == 1:
                raise
            max_ranges = 1
            continue
        except (UnreachableError, SlowError) as error:
            failure = error
        if wanted.disordered:
            max_ranges = 1
        brought = before - wanted.bytes_left
        if brought >= min(asked[0].length, _PROGRESS_BYTES):
            failures = 0
            if not isinstance(failure, ProtocolError):
                await again.pause(1)
            continue
        failures += 1
        if failures >= again.attempts:
            raise failure
        await again.pause(failures)


class _OneAtATimeError(Exception):
    """The server does not take several ranges; never leaves this module."""


class _Reader:
    def __init__(self, session: aiohttp.ClientSession, url: str, wanted: Wanted, size: int | None, manner: Manner) -> None:
        self._session, self._url, self._wanted, self._size, self._manner = session, url, wanted, size, manner
        self._etag: str | None = None

    async def ask(self, asked: tuple[Range, ...]) -> AsyncGenerator[tuple[int, bytes], None]:
        """One request and what it brings."""
        headers = {"Range": format_range(asked)}
        async with exchange(self._session, "GET", self._url, self._manner, headers=headers) as response:
            if response.status in _TOO_MANY_RANGES and len(asked) > 1:
                raise _OneAtATimeError(f"{self._url} does not take several ranges ({response.status})")
            if response.status not in {200, 206}:
                raise refusal(response)
            self._check_same(response)
            async with aclosing(self._events(response, asked)) as events:
                async for event in events:
                    yield event

    def _events(self, response: aiohttp.ClientResponse, asked: tuple[Range, ...]) -> AsyncGenerator[tuple[int, bytes], None]:
        if response.status == 200:
            return self._whole(response)
        boundary = parse_boundary(response.headers.get("Content-Type", ""))
        return self._one(response) if boundary is None else self._parts(response, boundary, asked)

    async def _whole(self, response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[int, bytes], None]:
        self._check_size(response.content_length)
        position = 0
        async for piece in self._body(response):
            for event in self._wanted.take(position, piece):
                yield event
            position += len(piece)
            if not self._wanted:
                return

    async def _one(self, response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[int, bytes], None]:
        part, total = parse_content_range(response.headers.get("Content-Range", ""))
        self._check_size(total)
        position = part.start
        async for piece in self._body(response):
            if position + len(piece) > part.end:
                raise EndlessDataError(f"{self._url} sends more than the {part.length} bytes that it announced")
            for event in self._wanted.take(position, piece):
                yield event
            position += len(piece)

    async def _parts(
        self, response: aiohttp.ClientResponse, boundary: str, asked: tuple[Range, ...]
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        parser = MultipartParser(boundary, size=self._size, max_parts=len(asked))
        most = asked[-1].end - asked[0].start + (len(asked) + 1) * MAX_PART_HEAD_BYTES
        received = 0
        async for piece in self._body(response):
            received += len(piece)
            if received > most:
                raise EndlessDataError(f"{self._url} sends more than {most} bytes for {len(asked)} ranges")
            for offset, data in parser.feed(piece):
                for event in self._wanted.take(offset, data):
                    yield event

    def _body(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        return pieces(response, RateGuard(self._manner.patience, self._url))

    def _check_same(self, response: aiohttp.ClientResponse) -> None:
        etag = strong_etag(response)
        if self._etag and etag and etag != self._etag:
            raise ProtocolError(f"{self._url} changed while it was read (ETag {self._etag}, then {etag}); begin again")
        self._etag = etag or self._etag

    def _check_size(self, total: int | None) -> None:
        if self._size is not None and total is not None and total != self._size:
            raise ProtocolError(f"{self._url} is a file of {total} bytes, {self._size} are expected")
