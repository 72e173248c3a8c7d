"""Byte ranges of one file, from whatever a server makes of a request for several.

Servers were seen to answer a multi-range request with multipart/byteranges (boundary quoted or not), with the first range
only, with one range that covers all, with the whole file (S3), with 416 (Varnish) or with an error (minio), and to leave
out parts silently. So nothing is assumed: what is missing after an answer is asked for again, a server that does not take
several ranges is asked for fewer and then for one at a time, where its `Peer` has connections for that side by side, and
one that takes none is read from the start. A body in which what is needed is far away is cut off, once; a server that
begins with the whole file again is read through. Only bytes that were asked for are passed on, each once, each range from
its start; whether they are right is for the caller to verify, chunk by chunk. What comes besides is offered to a `Spare`:
who has use for it need not ask for it later, and as long as it has, a server that only ever sends the whole file is read on
behind what was asked for.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from typing import Protocol

import aiohttp

from update.chunks.ranges import MAX_PART_HEAD_BYTES, MultipartParser, Range, format_range, parse_boundary, parse_content_range
from update.errors import EndlessDataError, ProtocolError, SlowError, UnreachableError, WireError
from update.wire.habits import MOST_RANGES, Asked, Form, Peer
from update.wire.http import PLAIN, Manner, exchange, pieces, refusal, strong_etag
from update.wire.lanes import merged
from update.wire.rate import RateGuard, Retry

_Event = tuple[int, bytes]
_PROGRESS_BYTES = 64 << 10
_FAR_BYTES = 1 << 20
"""What is cheaper to ask for anew than to read up to: 0.4 s on a line of 20 Mbit/s."""
_TOO_MANY_RANGES = frozenset({200, 400, 413, 414, 416, 431, 500, 501})


class Spare(Protocol):
    """Takes what a server sends besides what it was asked for; as little to be trusted as the rest."""

    def reaches(self, position: int) -> bool:
        """Whether anything behind byte `position` is still of use."""
        ...

    async def take(self, offset: int, piece: bytes) -> None:
        """Bytes from `offset` on, not all of which were asked for; pieces of one answer follow each other."""
        ...


class Wanted:
    """What is still missing: pure. Ranges are sorted; those that touch or overlap become one."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._left: deque[Range] = deque()
        self.disordered = False
        self.become(ranges)

    def become(self, ranges: Iterable[tuple[int, int]]) -> None:
        """From now on, `ranges` are missing. `ProtocolError` for what is no range."""
        self._left.clear()
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

    def all(self) -> tuple[Range, ...]:
        """Everything that is missing."""
        return tuple(self._left)

    def groups(self, gap_bytes: int) -> Iterator[list[Range]]:
        """The missing ranges, together with neighbours that are `gap_bytes` away at most."""
        group: list[Range] = []
        for each in self._left:
            if group and each.start - group[-1].end > gap_bytes:
                yield group
                group = []
            group.append(each)
        if group:
            yield group

    def distance(self, position: int) -> int:
        """How many bytes from `position` on nobody asked for."""
        return self._left[0].start - position if self._left else 0

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
    max_ranges: int = MOST_RANGES,
    peer: Peer | None = None,
    spare: Spare | None = None,
) -> AsyncGenerator[_Event, None]:
    """Yield (offset, bytes) until every (start, length) of `ranges` is covered, no byte twice, each range from its start.

    `size` is the size of the whole file in bytes, if known; `peer` what is known of the server, and how many connections it
    is worth. With one, as without `peer`, ranges come in ascending order. `spare` gets what comes unasked.

    Errors: `EndlessDataError`; `NotFoundError`, `UnauthorizedError`, `ProtocolError` at once; `UnreachableError` and
    `SlowError` after the last retry.
    """
    source = _Source(session, url, size, manner)
    reading = _Reading(source, peer or Peer(), retry or Retry(), spare)
    async with aclosing(reading.read(Wanted(ranges), max_ranges)) as events:
        async for event in events:
            yield event


class _AskForLessError(Exception):
    """The server did not make of it what was hoped for; never leaves this module."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class _WholeFileError(Exception):
    """The server ignores ranges: no use in several connections; never leaves this module."""


class _Source:
    """One file on one server; all its answers are of the same file."""

    def __init__(self, session: aiohttp.ClientSession, url: str, size: int | None, manner: Manner) -> None:
        self.session, self.url, self.size, self.manner = session, url, size, manner
        self._etag: str | None = None

    def check_same(self, response: aiohttp.ClientResponse) -> None:
        """`ProtocolError` if it is another file than before."""
        etag = strong_etag(response)
        if self._etag and etag and etag != self._etag:
            raise ProtocolError(f"{self.url} changed while it was read (ETag {self._etag}, then {etag}); begin again")
        self._etag = etag or self._etag

    def check_size(self, total: int | None) -> None:
        """`ProtocolError` if the file has another size than expected."""
        if self.size is not None and total is not None and total != self.size:
            raise ProtocolError(f"{self.url} is a file of {total} bytes, {self.size} are expected")

    def body(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """What an answer brings, under the guard."""
        return pieces(response, RateGuard(self.manner.patience, self.url), self.manner.line)


class _Reading:
    """Asks until nothing is missing. `alone`: not one of several lanes."""

    def __init__(self, source: _Source, peer: Peer, retry: Retry, spare: Spare | None, *, alone: bool = True) -> None:
        self._source, self._peer, self._retry, self._spare = source, peer, retry, spare
        self._alone = alone
        self._lanes = alone and peer.connections > 1
        self._may_cut = alone

    async def read(self, wanted: Wanted, limit: int) -> AsyncGenerator[_Event, None]:
        """What is wanted, in requests for `limit` ranges at most."""
        failures, most = 0, limit
        while wanted:
            limit = min(most, self._peer.limit())
            if limit == 1 and (groups := self._side_by_side(wanted)):
                async with aclosing(self._read_lanes(wanted, groups)) as events:
                    async for event in events:
                        yield event
                continue
            asked, before = self._next(wanted, limit), wanted.bytes_left
            step = min(wanted.first(1)[0].length, _PROGRESS_BYTES)
            failure: WireError = ProtocolError(
                f"{self._source.url} sends other bytes than the {len(asked)} ranges from {asked[0].start} on"
            )
            wanted.disordered = False
            try:
                async with aclosing(self._ask(wanted, asked)) as events:
                    async for event in events:
                        yield event
            except _AskForLessError as less:
                most = less.limit
                continue
            except ProtocolError:
                if len(asked) == 1:
                    raise
                most = 1
                continue
            except (UnreachableError, SlowError) as error:
                failure = error
            if not wanted:
                return  # what failed was only what nobody asked for
            progress = before - wanted.bytes_left >= step
            misread = isinstance(failure, ProtocolError) and not progress
            most = 1 if wanted.disordered or misread else most
            failures = await self._after(failure, 0 if progress else failures + 1)

    async def _after(self, failure: WireError, failures: int) -> int:
        """Wait before the next request, or give up; returns `failures`."""
        if failures >= self._retry.attempts:
            raise failure
        if failures or not isinstance(failure, ProtocolError):
            await self._retry.pause(max(1, failures))
        return failures

    def _next(self, wanted: Wanted, limit: int) -> tuple[Range, ...]:
        if limit > 1:
            return wanted.first(limit)
        return (_around(next(wanted.groups(self._peer.gap_bytes))),)

    def _side_by_side(self, wanted: Wanted) -> list[list[Range]]:
        """What is read by several connections: only from a server that is known to answer one range with that range."""
        if not self._lanes or not self._peer.manners.partial:
            return []
        groups = list(wanted.groups(self._peer.gap_bytes))
        return groups if len(groups) > 1 else []

    async def _read_lanes(self, wanted: Wanted, groups: list[list[Range]]) -> AsyncGenerator[_Event, None]:
        """One request per group, several at once; what does not come stays wanted."""
        starts, passed_on = [group[0].start for group in groups], [Wanted(group) for group in groups]
        try:
            async with aclosing(merged([self._lane(group) for group in groups], at_once=self._peer.connections)) as events:
                async for offset, piece in events:
                    passed_on[bisect_right(starts, offset) - 1].take(offset, piece)
                    yield offset, piece
        except _WholeFileError:
            self._lanes = False
        finally:
            wanted.become(left for lane in passed_on for left in lane.all())

    async def _lane(self, group: list[Range]) -> AsyncGenerator[_Event, None]:
        async with self._peer.lanes:
            lane = _Reading(self._source, self._peer, self._retry, self._spare, alone=False)
            async with aclosing(lane.read(Wanted(group), 1)) as events:
                async for event in events:
                    yield event

    async def _ask(self, wanted: Wanted, ranges: tuple[Range, ...]) -> AsyncGenerator[_Event, None]:
        """One request and what it brings."""
        source, asked = self._source, self._peer.ask(len(ranges))
        headers = {"Range": format_range(ranges)}
        async with exchange(source.session, "GET", source.url, source.manner, headers=headers) as response:
            if response.status in _TOO_MANY_RANGES and len(ranges) > 1:
                less = self._peer.manners.fewer(len(ranges))
                self._peer.learn(asked, Form.WHOLE if response.status == 200 else Form.REFUSED)
                if response.status != 200 or not self._peer.manners.whole:  # else there is nothing better to be had
                    raise _AskForLessError(less)
            if response.status not in {200, 206}:
                raise refusal(response)
            source.check_same(response)
            async with aclosing(self._events(response, wanted, ranges, asked)) as events:
                async for event in events:
                    yield event

    def _events(
        self, response: aiohttp.ClientResponse, wanted: Wanted, ranges: tuple[Range, ...], asked: Asked
    ) -> AsyncGenerator[_Event, None]:
        if response.status == 200:
            return self._whole(response, wanted, asked)
        boundary = parse_boundary(response.headers.get("Content-Type", ""))
        if boundary is None:
            return self._one(response, wanted, ranges, asked)
        return self._parts(response, wanted, ranges, asked, boundary)

    async def _whole(self, response: aiohttp.ClientResponse, wanted: Wanted, asked: Asked) -> AsyncGenerator[_Event, None]:
        self._source.check_size(response.content_length)
        known = self._peer.manners.whole
        self._peer.learn(asked, Form.WHOLE)
        if not self._alone:
            raise _WholeFileError
        may_cut, self._may_cut = self._may_cut and not known, False
        position = 0
        async for piece in self._source.body(response):
            if may_cut and wanted.distance(position) > _FAR_BYTES:
                raise _AskForLessError(1)
            async for event in self._taken(wanted, position, piece):
                yield event
            position += len(piece)
            if not wanted and not self._reads_on(position):
                return

    def _reads_on(self, position: int) -> bool:
        """Whether the rest is read too: of a server that would send all of it again for each of its parts."""
        return self._spare is not None and self._peer.manners.whole and self._spare.reaches(position)

    async def _taken(self, wanted: Wanted, offset: int, piece: bytes) -> AsyncGenerator[_Event, None]:
        """What was asked for of a piece; the spare gets it when there is more in it."""
        events = wanted.take(offset, piece)
        for event in events:
            yield event
        if self._spare is not None and sum(len(part) for _, part in events) < len(piece):
            await self._spare.take(offset, piece)

    async def _one(
        self, response: aiohttp.ClientResponse, wanted: Wanted, ranges: tuple[Range, ...], asked: Asked
    ) -> AsyncGenerator[_Event, None]:
        part, total = parse_content_range(response.headers.get("Content-Range", ""))
        self._source.check_size(total)
        if form := _form(part, ranges):
            self._peer.learn(asked, form)
        position = part.start
        async for piece in self._source.body(response):
            if position + len(piece) > part.end:
                raise EndlessDataError(f"{self._source.url} sends more than the {part.length} bytes that it announced")
            if len(ranges) > 1 and wanted.distance(position) > _FAR_BYTES:
                raise _AskForLessError(1)
            async for event in self._taken(wanted, position, piece):
                yield event
            position += len(piece)

    async def _parts(
        self, response: aiohttp.ClientResponse, wanted: Wanted, ranges: tuple[Range, ...], asked: Asked, boundary: str
    ) -> AsyncGenerator[_Event, None]:
        parser = MultipartParser(boundary, size=self._source.size, max_parts=len(ranges))
        most = ranges[-1].end - ranges[0].start + (len(ranges) + 1) * MAX_PART_HEAD_BYTES
        received = 0
        async for piece in self._source.body(response):
            received += len(piece)
            if received > most:
                raise EndlessDataError(f"{self._source.url} sends more than {most} bytes for {len(ranges)} ranges")
            for offset, data in parser.feed(piece):
                async for event in self._taken(wanted, offset, data):
                    yield event
        if wanted.disordered:
            self._peer.learn(asked, Form.DISORDER)
        elif parser.complete:
            self._peer.learn(asked, Form.PARTS if len(ranges) > 1 else Form.ONE)


def _around(group: list[Range]) -> Range:
    return Range(group[0].start, group[-1].end - group[0].start)


def _form(part: Range, asked: tuple[Range, ...]) -> Form | None:
    """What a single range is as an answer; None for one that begins or ends elsewhere."""
    first, last = asked[0], asked[-1]
    if not part.start <= first.start < part.end:
        return None
    if len(asked) == 1:
        return Form.ONE
    if part.end <= first.end:
        return Form.FIRST
    if part.end < last.end:
        return None
    needed = sum(each.length for each in asked)
    return Form.COVER if part.length > 2 * needed + _PROGRESS_BYTES else Form.PARTS
