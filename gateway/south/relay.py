"""The chunk relay: a hundred nodes with different old versions cost upstream the union of the chunks they need, once.

Rules:

1. Requests are answered from the sparse file; what is missing is fetched first, and a request is held until all its
   ranges are there: stock clients do not survive an answer that is cut or refused in the middle.
2. Every chunk has at most one fetch under way. Who needs it meanwhile waits for the same one; a client that goes away
   disturbs nobody, because fetches belong to the relay and not to the request.
3. Neighbouring missing chunks travel as one range, many ranges as one request.
4. What one upstream does not send, or sends wrong, the next one is asked for. A chunk that none has fails for those who
   wait for it now, and is missing again for the next.
5. What was fetched is made durable in batches; a power cut costs at most the last batch. A disk that refuses a batch does
   not stop the relay: what is in the file is served all the same, and fetched again after a restart.
6. Hashing, writing and syncing are done in threads: the event loop serves others meanwhile.
7. What older files on this disk hold (`seeds`) is taken from there before anything is fetched, like a fetch that costs nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeVar

from gateway.south.assembly import Assembly, batches, requests
from gateway.south.open_files import Lease, duplicate
from gateway.south.sparse import SparseFile
from update.chunks.ranges import Range
from update.errors import (
    BundleError,
    ChunkError,
    FieldrelayError,
    SlowError,
    StoreError,
    TrustError,
    UnreachableError,
    WireError,
)

_log = logging.getLogger(__name__)

RANGES_PER_REQUEST = 60
CONCURRENT_REQUESTS = 4
COMMIT_EVERY_BYTES = 1 << 20
WRITE_BYTES = 256 << 10
"""A thread is worth its while from about here; a fetch holds this much and one chunk in memory."""
PROVE_AT_ONCE = 64
COPY_BYTES = 1 << 20
"""So much is copied from older files at a time: others get their turn in between."""
USE_NOTED_EVERY_S = 60.0

_Result = TypeVar("_Result")
UPSTREAM_FAULTS = (WireError, TrustError, BundleError)
"""Gone, slow, or not what was signed: the next upstream may do better."""


class RangeSource(Protocol):
    """One upstream of one file."""

    @property
    def name(self) -> str:
        """For logs."""
        ...

    def read_ranges(self, ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, in any order of ranges, each range from its start. Errors: `WireError`."""
        ...

    def failed(self) -> None:
        """It did not do what it should: others are to be asked before it for a while."""
        ...


class Seeds(Protocol):
    """Older files that may hold some chunks of one file; used in threads."""

    def find(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that may be at hand."""
        ...

    def read(self, numbers: Iterable[int]) -> list[tuple[int, bytes]]:
        """(number, stored bytes) of what could be read, not compared with anything yet."""
        ...


class RelayedFile:
    """One `.zck` that fills as it is asked for; `seeds` None: everything is fetched."""

    def __init__(self, sparse: SparseFile, *, seeds: Seeds | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.sparse = sparse
        self.seeds = seeds
        self._clock = clock
        self._noted_s = -USE_NOTED_EVERY_S
        self._coming: dict[int, asyncio.Future[None]] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        self._work: set[asyncio.Task[object]] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_REQUESTS)
        self._committing = asyncio.Lock()
        self._proving = asyncio.Lock()
        self._copying = asyncio.Lock()
        self._uncommitted_bytes = 0
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is being fetched, proved or written."""
        return bool(self._fetches or self._work)

    def note_use(self) -> None:
        """Tell the disk about once a minute that the file is used."""
        now = self._clock()
        if now - self._noted_s > USE_NOTED_EVERY_S:
            self._noted_s = now
            self.sparse.note_use()

    def missing_bytes(self, ranges: Iterable[Range]) -> int:
        """Bytes of the chunks that `ranges` touch and that are neither in the file nor on their way."""
        missing = (number for number in self._covering(ranges) if not self.sparse.claims(number) and number not in self._coming)
        return sum(self.sparse.index[number].length for number in missing)

    def lend(self) -> Lease:
        """A descriptor of the file, right also after it was published or closed here."""
        return duplicate(self.sparse.fileno())

    async def ensure(self, ranges: Iterable[Range], sources: Sequence[RangeSource]) -> None:
        """Return once every chunk that `ranges` touch is in the file; what is missing comes from `sources`, in their order.

        Errors: `UnreachableError` or `SlowError` when no source could send a chunk, `StoreError`.
        """
        numbers = self._covering(ranges)
        if all(map(self.sparse.holds, numbers)):
            return
        await self._prove(numbers)
        missing = [number for number in numbers if not self.sparse.holds(number)]
        self._claim([number for number in missing if number not in self._coming], sources)
        for coming in [self._coming[number] for number in missing]:
            if not coming.done():
                await asyncio.wait([coming])  # unlike `await coming`, a reader that goes away leaves it to the others
            coming.result()

    def leading(self, ranges: Sequence[Range]) -> int:
        """How many of `ranges`, from the first on, are completely at hand."""
        for count, span in enumerate(ranges):
            if not all(map(self.sparse.holds, self.sparse.index.covering(span.start, span.length))):
                return count
        return len(ranges)

    async def recheck(self, pace: Callable[[int], Awaitable[None]]) -> int:
        """Read everything again that is at hand; how many chunks are no longer good, and so missing again."""
        bad = 0
        for number in range(len(self.sparse.index)):
            if self._closed or not self.sparse.holds(number):
                continue
            good = await self._own(asyncio.to_thread(self.sparse.read_back, [number]))
            self.sparse.believe([number], good)
            bad += not good
            await pace(self.sparse.index[number].length)
        return bad

    async def settle(self) -> None:
        """Wait for the fetches under way, prove everything that is at hand, and make it durable. Errors: `StoreError`."""
        for _ in ("what is being copied", "the rest of it, fetched"):
            await asyncio.gather(*self._fetches, return_exceptions=True)
        await self._prove(range(len(self.sparse.index)))
        await self._commit()

    async def close(self) -> None:
        """End the fetches and keep what has arrived."""
        self._closed = True
        for task in tuple(self._fetches):
            task.cancel()
        await asyncio.gather(*self._fetches, return_exceptions=True)
        await asyncio.gather(*self._work, return_exceptions=True)
        try:
            await self._commit()
        except StoreError as error:
            _log.error("relay: what came last of %s is not durable: %s (%s)", self.sparse.path.name, error, error.code)
        finally:
            self.sparse.close()

    def _covering(self, ranges: Iterable[Range]) -> list[int]:
        return sorted({number for span in ranges for number in self.sparse.index.covering(span.start, span.length)})

    async def _prove(self, numbers: Iterable[int]) -> None:
        """Read again what an earlier process wrote, each chunk at its first use; that may be a whole file."""
        unproved = self.sparse.unproved(numbers)
        for first in range(0, len(unproved), PROVE_AT_ONCE):
            async with self._proving:
                some = self.sparse.unproved(unproved[first : first + PROVE_AT_ONCE])
                self.sparse.believe(some, await self._own(asyncio.to_thread(self.sparse.read_back, some)))

    def _claim(self, numbers: list[int], sources: Sequence[RangeSource]) -> None:
        """Start getting chunks that nobody is getting."""
        if not numbers:
            return
        if self._closed:
            raise UnreachableError(f"{self.sparse.path.name} is no longer relayed: the gateway is going down; ask again")
        loop = asyncio.get_running_loop()
        for number in numbers:
            coming = self._coming[number] = loop.create_future()
            coming.add_done_callback(_look_at)
        if self.seeds is None:
            self._request(numbers, sources)
            return
        task = loop.create_task(self._copy(self.seeds, numbers))
        self._fetches.add(task)
        task.add_done_callback(partial(self._copied, numbers, sources))

    def _request(self, numbers: Iterable[int], sources: Sequence[RangeSource]) -> None:
        """Start fetching chunks, in as few requests as can be."""
        for group in requests(self.sparse.index, numbers, max_ranges=RANGES_PER_REQUEST):
            task = asyncio.get_running_loop().create_task(self._fetch(group, sources))
            self._fetches.add(task)
            task.add_done_callback(partial(self._ended, group))

    async def _copy(self, seeds: Seeds, numbers: list[int]) -> None:
        """Take what older files hold; who asks for little has a turn beside who asks for all."""
        at_hand = await self._own(asyncio.to_thread(seeds.find, numbers))
        for batch in batches(self.sparse.index, at_hand, max_bytes=COPY_BYTES):
            async with self._copying:
                await self._keep(await self._own(asyncio.to_thread(seeds.read, batch)))
            if self._uncommitted_bytes >= COMMIT_EVERY_BYTES:
                await self._commit_or_go_on()
        if self._coming.keys().isdisjoint(numbers):  # otherwise the fetch of the rest ends with it
            await self._commit_or_go_on()

    def _copied(self, numbers: list[int], sources: Sequence[RangeSource], task: "asyncio.Task[None]") -> None:
        """Fetch what was not to be copied, whatever the reason."""
        if task.cancelled() or self._closed:
            self._ended(numbers, task)
            return
        self._fetches.discard(task)
        if error := task.exception():
            unexpected = None if isinstance(error, FieldrelayError) else error
            _log.error("relay: nothing more is copied into %s now: %s", self.sparse.path.name, error, exc_info=unexpected)
        self._request([number for number in numbers if number in self._coming], sources)

    def _ended(self, numbers: list[int], task: "asyncio.Task[None]") -> None:
        """However a fetch ended, be it before it began: nobody waits for its chunks any longer."""
        self._fetches.discard(task)
        error = UnreachableError("the gateway is going down; ask again") if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, FieldrelayError):
            _log.error("relay: a fetch of %s failed", self.sparse.path.name, exc_info=error)
            error = StoreError(f"the relay of {self.sparse.path.name} failed; the gateway's log tells why")
        for number in numbers:
            if coming := self._coming.pop(number, None):
                coming.set_exception(error or UnreachableError(f"chunk {number} of {self.sparse.path.name} did not come"))

    async def _fetch(self, numbers: list[int], sources: Sequence[RangeSource]) -> None:
        """Get the chunks of one request, from one source after the other."""
        missing: list[int] = numbers
        trouble: FieldrelayError = WireError("none is configured")
        async with self._slots:
            for source in sources:
                try:
                    await self._receive(source, missing)
                except UPSTREAM_FAULTS as error:
                    _log.warning("relay: upstream %s: %s (%s)", source.name, error, error.code)
                    source.failed()
                    trouble = error
                missing = [number for number in missing if number in self._coming]
                if not missing:
                    break
        await self._commit_or_go_on()
        if missing:
            raise unavailable(f"{len(missing)} chunks of {self.sparse.path.name}", trouble) from trouble

    async def _receive(self, source: RangeSource, numbers: list[int]) -> None:
        """Take what one source sends; `ChunkError` or `ProtocolError` if that is not all of it."""
        assembly = Assembly(self.sparse.index, numbers)
        try:
            async with aclosing(source.read_ranges(assembly.spans)) as pieces:
                async for offset, piece in pieces:
                    assembly.feed(offset, piece)
                    if assembly.ready_bytes >= WRITE_BYTES:
                        await self._own(self._keep(assembly.take()))
                    if self._uncommitted_bytes >= COMMIT_EVERY_BYTES:
                        await self._commit_or_go_on()
        finally:
            await self._own(self._keep(assembly.take()))
        if left := [number for number in numbers if number in self._coming]:
            raise ChunkError(
                f"{len(left)} of {len(numbers)} chunks of {self.sparse.path.name} did not come, or not as the signed header "
                f"has them, the first of them chunk {left[0]}; another upstream may have them"
            )

    async def _keep(self, chunks: list[tuple[int, bytes]]) -> None:
        """Write what has come; who waits for it may go on."""
        if not chunks:
            return
        written = await asyncio.to_thread(self.sparse.write, chunks)
        self.sparse.accept(written)
        for number in written:
            self._uncommitted_bytes += self.sparse.index[number].length
            if coming := self._coming.pop(number, None):
                coming.set_result(None)

    async def _commit_or_go_on(self) -> None:
        try:
            await self._commit()
        except StoreError as error:  # rule 5
            _log.error("relay: what has come of %s is not durable: %s (%s)", self.sparse.path.name, error, error.code)

    async def _commit(self) -> None:
        await self._own(self._commit_alone())

    async def _commit_alone(self) -> None:
        async with self._committing:
            self._uncommitted_bytes = 0
            await asyncio.to_thread(self.sparse.commit)

    async def _own(self, work: Coroutine[object, object, _Result]) -> _Result:
        """Do work that goes on when its caller is cancelled: a thread cannot be stopped, and `close` must wait for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)


def unavailable(what: str, trouble: FieldrelayError) -> WireError:
    """What a node is told: our upstream's failures are neither its own, nor a refusal of it."""
    kind = SlowError if isinstance(trouble, SlowError) else UnreachableError
    return kind(f"no upstream could send {what}: {trouble} ({trouble.code})")


def _look_at(future: "asyncio.Future[None]") -> None:
    """Mark a failure as noticed: a client that has gone is not there to do it."""
    if not future.cancelled():
        future.exception()
