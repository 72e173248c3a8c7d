"""The chunk relay: a hundred nodes with different old versions cost upstream the union of the chunks they need, once.

Rules:

1. Requests are answered from the sparse file; what is missing is fetched first, and a request is held until all its
   ranges are there: stock clients do not survive an answer that is cut or refused in the middle.
2. Every chunk has at most one fetch under way. Who needs it meanwhile waits for the same one; a client that goes away
   disturbs nobody, because fetches belong to the relay and not to the request.
3. Neighbouring missing chunks travel as one range, many ranges as one request: what several clients ask for within
   `GATHER_S` of each other, or while as many requests are under way as may be, travels together. A gap that is smaller than
   the head of one part more is asked for too.
4. What one upstream does not send, or sends wrong, the next one is asked for. A chunk that none has fails for those who
   wait for it now, and is missing again for the next.
5. What was fetched is made durable in batches, beside the line (`commits.py`). A disk that refuses a batch does not stop the
   relay: what is in the file is served all the same, and after a power cut fetched again.
6. Hashing, writing and syncing are done in threads: the event loop serves others meanwhile.
7. An upstream that is not known to answer a range with that range is asked one thing at a time: what it sends may be
   everything. What it sends besides is kept if there is room (`besides.py`).
8. What older files on this disk hold (`seeds`) is taken from there before anything is fetched, like a fetch that costs nothing.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gateway.south.assembly import Assembly, Waiting, batches, between
from gateway.south.besides import Besides, SpareRoom
from gateway.south.commits import Commits
from gateway.south.open_files import Lease, duplicate
from gateway.south.origins import UPSTREAM_FAULTS, RangeSource, Seeds, unavailable
from gateway.south.sparse import SparseFile
from update.chunks.ranges import Range
from update.errors import ChunkError, FieldrelayError, NotFoundError, StoreError, UnreachableError, WireError
from update.wire.habits import MOST_RANGES

_log = logging.getLogger(__name__)

RANGES_PER_REQUEST = MOST_RANGES
CONCURRENT_REQUESTS = 4
GATHER_S = 0.005
"""A tenth of the way to an upstream and back; a rollout makes many nodes ask at once."""
GATHER_BUSY = 10
"""So many times as long while something is under way: the line is not idle meanwhile."""
GATHER_MOST = 20
"""So many times as long at most, when others keep asking."""
WRITE_BYTES = 256 << 10
"""A thread is worth its while from about here; a fetch holds this much and one chunk in memory."""
WRITE_AFTER_S = 0.05
"""On a slow line no chunk lies in memory for longer: who waits for it may go on, and who kills the gateway loses little."""
PROVE_AT_ONCE = 64
COPY_BYTES = 1 << 20
"""So much is copied from older files at a time: others get their turn in between."""
USE_NOTED_EVERY_S = 60.0

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Queue:
    waiting: Waiting
    sources: Sequence[RangeSource] = ()  # as who asked last has them: the best first


class RelayedFile:
    """One `.zck` that fills as it is asked for.

    `seeds` None: everything is fetched; `spare_room` None: nothing is kept that nobody asked for.
    """

    def __init__(
        self,
        sparse: SparseFile,
        *,
        seeds: Seeds | None = None,
        spare_room: SpareRoom | None = None,
        gather_s: float = GATHER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sparse = sparse
        self.seeds = seeds
        self._spare_room = spare_room
        self._gather_s = gather_s
        self._clock = clock
        self._noted_s = -USE_NOTED_EVERY_S
        self._coming: dict[int, asyncio.Future[None]] = {}
        self._queues: dict[frozenset[str], _Queue] = {}  # by the upstreams that may be asked
        self._gathering: asyncio.TimerHandle | None = None
        self._gather_until_s = 0.0
        self._asking = 0
        self._copies: set[asyncio.Task[None]] = set()
        self._fetches: set[asyncio.Task[None]] = set()
        self._work: set[asyncio.Task[object]] = set()
        self._alone = asyncio.Lock()
        self._commits = Commits(sparse, self._begin)
        self._proving = asyncio.Lock()
        self._copying = asyncio.Lock()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether something is being fetched, proved or written."""
        return bool(self._coming or self._copies or self._fetches or self._work)

    def note_use(self) -> None:
        """Tell the disk about once a minute that the file is used."""
        now = self._clock()
        if now - self._noted_s > USE_NOTED_EVERY_S:
            self._noted_s = now
            self.sparse.note_use()

    def missing_bytes(self, ranges: Iterable[Range]) -> int:
        """Bytes of the chunks that `ranges` touch and that are neither in the file nor on their way."""
        return sum(self.sparse.index[number].length for number in self._covering(ranges) if self._is_missing(number))

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
        while self._copies or self._fetches or self._queues:
            self._send_out()
            await asyncio.gather(*self._copies, *self._fetches, return_exceptions=True)
        await self._prove(range(len(self.sparse.index)))
        await self._commits.now()

    async def close(self) -> None:
        """End the fetches and keep what has arrived."""
        self._closed = True
        if self._gathering is not None:
            self._gathering.cancel()
        tasks = (*self._copies, *self._fetches)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queues.clear()
        self._fail(tuple(self._coming), _going_down())
        await asyncio.gather(*self._work, return_exceptions=True)
        try:
            await self._commits.now()
        except StoreError as error:
            _log.error("relay: what came last of %s is not durable: %s (%s)", self.sparse.path.name, error, error.code)
        finally:
            self.sparse.close()

    def _covering(self, ranges: Iterable[Range]) -> list[int]:
        return sorted({number for span in ranges for number in self.sparse.index.covering(span.start, span.length)})

    def _is_missing(self, number: int) -> bool:
        return not self.sparse.claims(number) and number not in self._coming

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
        self._coming.update((number, self._promise()) for number in numbers)
        if self.seeds is None:
            self._request(numbers, sources)
            return
        task = loop.create_task(self._copy(self.seeds, numbers))
        self._copies.add(task)
        task.add_done_callback(partial(self._copied, numbers, sources))

    def _request(self, numbers: Iterable[int], sources: Sequence[RangeSource]) -> None:
        """Have chunks fetched soon."""
        queue = self._queues.setdefault(frozenset(source.name for source in sources), _Queue(Waiting(self.sparse.index)))
        queue.waiting.add(numbers)
        queue.sources = sources
        loop = asyncio.get_running_loop()
        if self._gathering is None:
            self._gather_until_s = loop.time() + GATHER_MOST * self._gather_s
        else:
            self._gathering.cancel()
        quiet_s = GATHER_BUSY * self._gather_s if self._asking else self._gather_s
        self._gathering = loop.call_at(min(loop.time() + quiet_s, self._gather_until_s), self._send_out)

    def _send_out(self) -> None:
        """Ask for what waits, as far as requests may be under way."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        for upstreams, queue in tuple(self._queues.items()):
            while queue.waiting and len(self._fetches) < CONCURRENT_REQUESTS:
                self._send(queue.waiting.take(max_ranges=RANGES_PER_REQUEST), queue.sources)
            if not queue.waiting:
                del self._queues[upstreams]

    def _send(self, numbers: list[int], sources: Sequence[RangeSource]) -> None:
        """Begin one request, for these chunks and what lies in the small gaps between them."""
        near = [number for number in between(self.sparse.index, numbers) if self._is_missing(number)]
        self._coming.update((number, self._promise()) for number in near)
        group = sorted((*numbers, *near))
        task = asyncio.get_running_loop().create_task(self._fetch(group, sources))
        self._fetches.add(task)
        task.add_done_callback(partial(self._ended, group))

    def _promise(self) -> "asyncio.Future[None]":
        coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        coming.add_done_callback(_look_at)
        return coming

    async def _copy(self, seeds: Seeds, numbers: list[int]) -> None:
        """Take what older files hold; who asks for little has a turn beside who asks for all."""
        at_hand = await self._own(asyncio.to_thread(seeds.find, numbers))
        for batch in batches(self.sparse.index, at_hand, max_bytes=COPY_BYTES):
            async with self._copying:
                await self._keep(await self._own(asyncio.to_thread(seeds.read, batch)))
            await self._commits.keep_up()
        if self._coming.keys().isdisjoint(numbers):  # otherwise the fetch of the rest ends with it
            await self._commits.or_go_on()

    def _copied(self, numbers: list[int], sources: Sequence[RangeSource], task: "asyncio.Task[None]") -> None:
        """Fetch what was not to be copied, whatever the reason."""
        if task.cancelled() or self._closed:
            self._ended(numbers, task)
            return
        self._copies.discard(task)
        if error := task.exception():
            unexpected = None if isinstance(error, FieldrelayError) else error
            _log.error("relay: nothing more is copied into %s now: %s", self.sparse.path.name, error, exc_info=unexpected)
        self._request([number for number in numbers if number in self._coming], sources)

    def _ended(self, numbers: list[int], task: "asyncio.Task[None]") -> None:
        """However a fetch ended, be it before it began: nobody waits for its chunks any longer, and the next one may go."""
        self._copies.discard(task)
        self._fetches.discard(task)
        error = _going_down() if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, FieldrelayError):
            _log.error("relay: a fetch of %s failed", self.sparse.path.name, exc_info=error)
            error = StoreError(f"the relay of {self.sparse.path.name} failed; the gateway's log tells why")
        self._fail(numbers, error or UnreachableError(f"{self.sparse.path.name} did not come completely"))
        if self._gathering is None:
            self._send_out()

    def _fail(self, numbers: Iterable[int], error: FieldrelayError) -> None:
        """Tell those who wait for chunks that have not come."""
        for number in numbers:
            if coming := self._coming.pop(number, None):
                coming.set_exception(error)

    async def _fetch(self, numbers: list[int], sources: Sequence[RangeSource]) -> None:
        """Get the chunks of one request, from one source after the other."""
        self._asking += 1
        try:
            missing, trouble = await self._ask_all(numbers, sources)
        finally:
            self._asking -= 1
        await self._commits.or_go_on()
        if missing:
            raise unavailable(f"{len(missing)} chunks of {self.sparse.path.name}", trouble) from trouble

    async def _ask_all(self, numbers: list[int], sources: Sequence[RangeSource]) -> tuple[list[int], FieldrelayError]:
        """What nobody sent, and the last thing that went wrong."""
        missing: list[int] = numbers
        trouble: FieldrelayError = WireError("none is configured")
        for source in sources:
            async with self._turn(source):
                missing = [number for number in missing if number in self._coming]
                if not missing:  # another one brought them besides
                    break
                try:
                    await self._receive(source, missing)
                except UPSTREAM_FAULTS as error:
                    level = logging.INFO if isinstance(error, NotFoundError) else logging.WARNING
                    _log.log(level, "relay: upstream %s: %s (%s)", source.name, error, error.code)
                    source.failed()
                    trouble = error
        return [number for number in missing if number in self._coming], trouble

    def _turn(self, source: RangeSource) -> AbstractAsyncContextManager[object]:
        return nullcontext() if source.ranged else self._alone  # rule 7

    async def _receive(self, source: RangeSource, numbers: list[int]) -> None:
        """Take what one source sends; `ChunkError` or `ProtocolError` if that is not all of it."""
        assembly, besides = Assembly(self.sparse.index, numbers), self._besides(numbers)
        loop, written_s = asyncio.get_running_loop(), -math.inf
        try:
            async with aclosing(source.read_ranges(assembly.spans, besides)) as pieces:
                async for offset, piece in pieces:
                    assembly.feed(offset, piece)
                    late = assembly.ready_bytes and loop.time() - written_s >= WRITE_AFTER_S
                    if late or assembly.ready_bytes >= WRITE_BYTES:
                        await self._keep_some(assembly.take())
                        written_s = loop.time()
        finally:
            await self._own(self._keep(assembly.take()))
            if besides is not None:
                await besides.flush()
        if left := [number for number in numbers if number in self._coming]:
            raise ChunkError(
                f"{len(left)} of {len(numbers)} chunks of {self.sparse.path.name} did not come, or not as the signed header "
                f"has them, the first of them chunk {left[0]}; another upstream may have them"
            )

    def _besides(self, asked: Iterable[int]) -> Besides | None:
        if self._spare_room is None:
            return None
        return Besides(self.sparse, frozenset(asked), room=self._spare_room, keep=self._keep_some, write_bytes=WRITE_BYTES)

    async def _keep_some(self, chunks: list[tuple[int, bytes]]) -> None:
        """Keep chunks, with more to come."""
        await self._own(self._keep(chunks))
        await self._commits.keep_up()

    async def _keep(self, chunks: list[tuple[int, bytes]]) -> None:
        """Write what has come; who waits for it may go on."""
        if not chunks:
            return
        written = await asyncio.to_thread(self.sparse.write, chunks)
        self.sparse.accept(written)
        for number in written:
            self._commits.written(self.sparse.index[number].length)
            if coming := self._coming.pop(number, None):
                coming.set_result(None)

    async def _own(self, work: Coroutine[object, object, _Result]) -> _Result:
        """Do work that goes on when its caller is cancelled: a thread cannot be stopped, and `close` must wait for it."""
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[object, object, _Result]) -> "asyncio.Task[_Result]":
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task


def _going_down() -> UnreachableError:
    return UnreachableError("the gateway is going down; ask again")


def _look_at(future: "asyncio.Future[None]") -> None:
    """Mark a failure as noticed: a client that has gone is not there to do it."""
    if not future.cancelled():
        future.exception()
