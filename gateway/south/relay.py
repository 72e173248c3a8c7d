"""The chunk relay: a hundred nodes with different old versions cost upstream the union of the chunks they need, once.

Rules:

1. Requests are answered from the sparse file; what is missing is fetched first, and a request is held until all its
   ranges are there: stock clients do not survive an answer that is cut or refused in the middle.
2. Every chunk has at most one fetch under way. Who needs it meanwhile waits for the same one; a client that goes away
   disturbs nobody, because fetches belong to the relay and not to the request.
3. Neighbouring missing chunks travel as one range, many ranges as one request.
4. A chunk that fails (upstream gone, wrong bytes) fails for those who wait for it now, and is missing again for the next.
5. What was fetched is made durable in batches; a power cut costs at most the last batch.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from gateway.south.sparse import SparseFile
from update.chunks.plan import merge
from update.chunks.ranges import Range
from update.errors import ChunkError, FieldrelayError, ProtocolError, SlowError

_log = logging.getLogger(__name__)

RANGES_PER_REQUEST = 60
CONCURRENT_REQUESTS = 4
COMMIT_EVERY_CHUNKS = 256


class RangeSource(Protocol):
    """Where missing bytes come from: the upstreams of one file, in their order."""

    def read_ranges(self, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset, bytes) covering `ranges`, in any order of ranges, each range from its start. Errors: `WireError`."""
        ...


class RelayedFile:
    """One `.zck` that fills as it is asked for."""

    def __init__(self, sparse: SparseFile, source: RangeSource, *, hold_s: float = 280.0) -> None:
        self.sparse = sparse
        self._source = source
        self._hold_s = hold_s
        self._coming: dict[int, asyncio.Future[None]] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._committing = asyncio.Lock()
        self._uncommitted = 0

    async def ensure(self, ranges: Iterable[Range]) -> None:
        """Return once every chunk that `ranges` touch is in the file.

        Errors: what the fetch of a needed chunk ended with (`WireError`, `ChunkError`, `StoreError`), or `SlowError` after
        `hold_s` seconds.
        """
        numbers = sorted({number for span in ranges for number in self.sparse.index.covering(span.start, span.length)})
        missing = [number for number in numbers if not self._at_hand(number)]
        self._claim([number for number in missing if number not in self._coming])
        waiting = [self._coming[number] for number in missing]
        if not waiting:
            return
        try:
            async with asyncio.timeout(self._hold_s):
                await _all_of(waiting)
        except TimeoutError as error:
            raise SlowError(
                f"upstream did not send {len(waiting)} chunks of {self.sparse.path.name} in {self._hold_s:g} s"
            ) from error

    async def close(self) -> None:
        """End the fetches and keep what has arrived."""
        for task in tuple(self._fetches):
            task.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)
        await self._commit()
        self.sparse.close()

    async def settle(self) -> None:
        """Wait for the fetches under way, and make what has arrived durable."""
        await asyncio.gather(*self._fetches, return_exceptions=True)
        await self._commit()

    def _at_hand(self, number: int) -> bool:
        return number not in self._coming and self.sparse.holds(number)

    def _claim(self, numbers: list[int]) -> None:
        """Start fetching chunks that nobody is fetching."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            future = self._coming[number] = loop.create_future()
            future.add_done_callback(_seen)
        for group in _requests(self.sparse, numbers):
            task = loop.create_task(self._fetch(group))
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)

    async def _fetch(self, numbers: list[int]) -> None:
        """Get the chunks of one request; every one of their futures is settled in the end."""
        error: Exception | None = None
        try:
            async with self._slots:
                await self._receive(numbers)
        except FieldrelayError as failure:
            error = failure
            _log.warning("relay: %s (%s)", failure, failure.code)
        except asyncio.CancelledError:
            error = ProtocolError("the relay is closing")
            raise
        finally:
            for number in numbers:
                if future := self._coming.pop(number, None):
                    future.set_exception(
                        error or ProtocolError(f"upstream ended before chunk {number} of {self.sparse.path.name}")
                    )
        with suppress(FieldrelayError):  # the data is there; the bitmap follows with the next batch
            await self._commit()

    async def _receive(self, numbers: list[int]) -> None:
        """Assemble chunks from pieces: pieces of one range come in order, so one open chunk per range is enough."""
        index = self.sparse.index
        wanted = set(numbers)
        parts: dict[int, bytearray] = {}
        spans = merge(Range(index[number].start, index[number].length) for number in numbers)
        failed: ChunkError | None = None
        async for offset, piece in self._source.read_ranges(spans):
            for number in index.covering(offset, len(piece)):
                if number not in wanted:
                    continue
                chunk = index[number]
                part = parts.setdefault(number, bytearray())
                start = chunk.start + len(part) - offset
                if start < 0:
                    raise ProtocolError(f"upstream skipped {-start} bytes before byte {offset} of {self.sparse.path.name}")
                part += piece[start : chunk.start + chunk.length - offset]
                if len(part) == chunk.length:
                    del parts[number]
                    wanted.discard(number)
                    try:
                        self._arrived(number, bytes(part))
                    except ChunkError as error:
                        failed = error
            if self._uncommitted >= COMMIT_EVERY_CHUNKS:
                await self._commit()
        if failed is not None:
            raise failed

    def _arrived(self, number: int, stored: bytes) -> None:
        self.sparse.put(number, stored)
        self._uncommitted += 1
        if future := self._coming.pop(number, None):
            future.set_result(None)

    async def _commit(self) -> None:
        async with self._committing:
            self._uncommitted = 0
            await asyncio.to_thread(self.sparse.commit)


def _requests(sparse: SparseFile, numbers: list[int]) -> Iterable[list[int]]:
    """Groups of ascending chunk numbers, each of at most `RANGES_PER_REQUEST` merged ranges."""
    group: list[int] = []
    spans = 0
    end = -1
    for number in numbers:
        chunk = sparse.index[number]
        spans += chunk.start != end
        if spans > RANGES_PER_REQUEST:
            yield group
            group, spans = [], 1
        group.append(number)
        end = chunk.start + chunk.length
    if group:
        yield group


async def _all_of(futures: Sequence["asyncio.Future[None]"]) -> None:
    """Wait for every future without ever cancelling one: others may be waiting for it."""
    await asyncio.wait(futures)
    for future in futures:
        future.result()


def _seen(future: "asyncio.Future[None]") -> None:
    """Mark a failure as noticed: a client that has gone is not there to do it."""
    if not future.cancelled():
        future.exception()
