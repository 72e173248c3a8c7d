"""Relaying without storing: where neither quota nor disk have room, chunks pass through memory on their way to a node.

What is asked for is fetched like otherwise, compared with the signed header, and kept in a file in memory until it is
answered; clients that ask at the same time share it. A chunk that is on disk is taken from there. Memory is bounded: one
answer takes at most `memory_bytes` of chunks, and few are under way at once; the others wait. A request for more is refused
before its first byte, and whoever asked for many ranges is answered the first of them.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.south.open_files import Lease, once
from gateway.south.origins import RangeSource, Seeds
from gateway.south.relay import RelayedFile
from gateway.south.sparse import SparseFile
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest
from update.errors import NoSpaceError
from update.trust.verified import VerifiedChunkIndex

MEMORY_BYTES = 32 << 20
AT_ONCE = 3


@dataclass(slots=True)
class _Buffer:
    digest: Digest
    file: RelayedFile
    promised_bytes: int = 0
    users: int = 0


class Unstored:
    """At most `at_once` answers and one buffer more are in memory, each of at most `memory_bytes`. Used on one event loop."""

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES, at_once: int = AT_ONCE) -> None:
        self._memory_bytes = memory_bytes
        self._slots = asyncio.Semaphore(at_once)
        self._current: _Buffer | None = None  # the only one that is kept while nobody uses it
        self._closing: set[asyncio.Task[None]] = set()

    def leading(self, index: HeaderIndex, ranges: Sequence[Range]) -> int:
        """How many of `ranges`, from the first on, one answer may have."""
        for count in range(1, len(ranges) + 1):
            if _chunk_bytes(index, ranges[:count]) > self._memory_bytes:
                return count - 1
        return len(ranges)

    async def lend(
        self,
        index: VerifiedChunkIndex,
        stored: RelayedFile | None,
        ranges: Sequence[Range],
        sources: Sequence[RangeSource],
        seeds: Seeds | None = None,
    ) -> Lease:
        """A descriptor of a file in memory that holds `ranges` at their place.

        Errors: `NoSpaceError` for more than fits the memory, and those of `RelayedFile.ensure`.
        """
        needed_bytes = _chunk_bytes(index.header, ranges)
        if needed_bytes > self._memory_bytes:
            raise NoSpaceError(
                f"{index.source}: there is no room to store it, and {needed_bytes} bytes do not fit the {self._memory_bytes} "
                "bytes of memory for passing them on; ask for smaller ranges, raise store.quota_bytes or enlarge the disk"
            )
        await self._slots.acquire()
        try:
            buffer = self._buffer(index, needed_bytes, seeds)
        except BaseException:  # also when cancelled: the slot is free again
            self._slots.release()
            raise
        try:
            if stored is not None:
                await _copy(stored, buffer.file, ranges)
            await buffer.file.ensure(ranges, sources)
            lease = buffer.file.lend()
        except BaseException:  # also when the reader goes away: the buffer is left to the others
            self._leave(buffer)
            raise
        return Lease(lease.descriptor, once(lambda: self._give_back(lease, buffer)))

    async def close(self) -> None:
        """End every fetch; what is lent stays readable."""
        if current := self._current:
            self._current = None
            await current.file.close()
        await asyncio.gather(*self._closing)

    def _buffer(self, index: VerifiedChunkIndex, needed_bytes: int, seeds: Seeds | None) -> _Buffer:
        current = self._current
        if current is None or current.digest != index.sha256 or current.promised_bytes + needed_bytes > self._memory_bytes:
            self._current = _Buffer(index.sha256, RelayedFile(SparseFile.in_memory(index), seeds=seeds))
            if current is not None and not current.users:
                self._drop(current)
            current = self._current
        current.promised_bytes += needed_bytes
        current.users += 1
        return current

    def _give_back(self, lease: Lease, buffer: _Buffer) -> None:
        lease.release()
        self._leave(buffer)

    def _leave(self, buffer: _Buffer) -> None:
        self._slots.release()
        buffer.users -= 1
        if not buffer.users and buffer is not self._current:
            self._drop(buffer)

    def _drop(self, buffer: _Buffer) -> None:
        task = asyncio.get_running_loop().create_task(buffer.file.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _chunk_bytes(index: HeaderIndex, ranges: Sequence[Range]) -> int:
    numbers = {number for span in ranges for number in index.covering(span.start, span.length)}
    return sum(index[number].length for number in numbers)


async def _copy(stored: RelayedFile, memory: RelayedFile, ranges: Sequence[Range]) -> None:
    """Take over what is on disk already; it is compared with the header on its way."""
    index = memory.sparse.index
    numbers = sorted({number for span in ranges for number in index.covering(span.start, span.length)})
    held = [number for number in numbers if stored.sparse.claims(number) and not memory.sparse.holds(number)]
    lease = stored.lend()
    try:
        for number in held:
            chunk = index[number]
            piece = await asyncio.to_thread(os.pread, lease.descriptor, chunk.length, chunk.start)
            memory.sparse.accept(await asyncio.to_thread(memory.sparse.write, [(number, piece)]))
    except OSError:  # a bad sector: it is fetched
        return
    finally:
        lease.release()
