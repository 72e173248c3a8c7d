"""An image that travels as the chunks that are not at hand: zchunk over ranges (SWUpdate's delta handler, in our words).

The order of work, each step on what the one before left over:

1. What an interrupted write, or an older release at the same place, already put there is verified and kept.
2. Chunks of the running slot are read, verified and copied; chunks of zeros are written where there are none yet.
3. If a patch from the image in the running slot is offered, and is smaller than the chunks that are missing, they are made
   by it (`patched`). It was never needed: whatever goes wrong with it, the next step makes good.
4. What is still missing is fetched, once each, decoded, verified, and written to every place it belongs.
5. Everything is made durable, then every chunk is read back and compared.

Indexes of old images are only hints: each chunk taken from a slot is hashed as it is read, and one that differs counts as
missing. So a slot that somebody wrote to costs bytes, never correctness.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from node_agent.handlers.assembler import Assembler
from node_agent.handlers.part import BLOCK_BYTES, Part, Piece, check, in_batches, runs
from node_agent.handlers.patched import Base, Missing, Pulled, apply
from update.chunks.pair import PatchOffer
from update.chunks.plan import Reuse, Source, Zero, merge, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import Chunk, ChunkDecoder, HeaderIndex
from update.digest import Digest
from update.errors import FieldrelayError
from update.trust.verified import VerifiedChunkIndex

_LOG = logging.getLogger(__name__)

_FETCH_BATCH_BYTES: Final = 1 << 20
_WORTH_PATCH_BYTES: Final = 64 << 10
_ZEROS: Final = bytes(BLOCK_BYTES)


class RangeSource(Protocol):
    """Where the bytes of the remote `.zck` come from; `node_agent.drivers.driver.ChunkSource` says the rules."""

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, bytes) of every range."""
        ...

    async def find_patch(self, url: str, base: Digest) -> PatchOffer | None:
        """The patch to that file from the image whose zchunk header has SHA-256 `base`, if one is offered."""
        ...

    def read_patch(self, url: str, base: Digest, offer: PatchOffer) -> AsyncGenerator[bytes, None]:
        """Its bytes, in order."""
        ...

    @property
    def patch_memory_bytes(self) -> int:
        """What applying a patch may take."""
        ...


@dataclass(frozen=True, slots=True)
class OldImage:
    """What the running slot holds: how to read it (offset, size), and what is believed to be where.

    `header` is the SHA-256 of the zchunk header that it was written by, and `size` its size in bytes, where that is known.
    """

    read: Callable[[int, int], bytes]
    source: Source
    header: Digest | None = None
    size: int = 0


@dataclass(slots=True)
class Tally:
    """Bytes of the image by origin, and bytes off the wire."""

    kept: int = 0
    reused: int = 0
    zero: int = 0
    fetched: int = 0
    downloaded: int = 0


class DeltaWriter:
    """Writes one image from its verified index."""

    def __init__(self, index: VerifiedChunkIndex, part: Part, *, old: OldImage, placed: HeaderIndex | None, resume: bool) -> None:
        """`placed`: what an older release put into this part; `resume`: a write of this image was interrupted here."""
        self.tally = Tally()
        self._index = index.header
        self._part = part
        self._old = old
        self._placed = placed
        self._resume = resume
        self._done = bytearray(len(self._index))
        self._old_is_whole = True

    async def write(self, url: str, chunks: RangeSource, advance: Callable[[int], None]) -> None:
        """Write everything and make it durable. Errors: `WireError` of the source, `ChunkError`, `StoreError`."""
        await in_batches(self._keep(), advance)
        await in_batches(self._copy(), advance)
        await self._patch(url, chunks, advance)
        await self._fetch(url, chunks, advance)
        await in_batches(self._settle(), advance)

    def read_back(self) -> Iterator[int]:
        """Compare every chunk with its digest; yields bytes compared. Errors: `ReadBackError`."""
        return self._part.read_back(_in_place(self._index, range(len(self._index))))

    def _keep(self) -> Iterator[int]:
        """Step 1: what is in place already."""
        candidates = range(len(self._index)) if self._resume else _common(self._index, self._placed)
        for run in runs(_in_place(self._index, candidates)):
            _, good = check(self._part.read, run)
            kept = self._mark([piece for piece, is_good in zip(run, good, strict=True) if is_good])
            self.tally.kept += kept
            yield kept

    def _copy(self) -> Iterator[int]:
        """Step 2: what the running slot holds, and zeros."""
        plan = plan_delta(self._index, self._old.source)
        yield from self._zero(step.chunk for step in plan.steps if isinstance(step, Zero))
        steps = (step for step in plan.steps if isinstance(step, Reuse) and not self._done[step.chunk.index])
        for run in runs(_piece(step.chunk, step.source_offset) for step in steps):
            data, good = check(self._old.read, run)
            pieces = [piece for piece, is_good in zip(run, good, strict=True) if is_good]
            self._old_is_whole &= all(good)
            if len(pieces) == len(run):
                self._part.write(run[0].target, data)
            else:
                for piece in pieces:
                    first = piece.offset - run[0].offset
                    self._part.write(piece.target, data[first : first + piece.size])
            reused = self._mark(pieces)
            self.tally.reused += reused
            yield reused

    def _zero(self, chunks: Iterator[Chunk]) -> Iterator[int]:
        for chunk in chunks:
            if self._done[chunk.index]:
                continue
            for offset in range(chunk.offset, chunk.offset + chunk.size, BLOCK_BYTES):
                size = min(BLOCK_BYTES, chunk.offset + chunk.size - offset)
                if not _ZEROS.startswith(self._part.read(offset, size)):
                    self._part.write(offset, memoryview(_ZEROS)[:size])
            self._done[chunk.index] = 1
            self.tally.zero += chunk.size
            yield chunk.size

    async def _patch(self, url: str, chunks: RangeSource, advance: Callable[[int], None]) -> None:
        """Step 3: by a patch, where one costs less. An old image that was changed is not what a patch was made from."""
        chunk_bytes = sum(self._index[numbers[0]].length for numbers in self._missing().values())
        if self._old.header is None or not self._old_is_whole or chunk_bytes < _WORTH_PATCH_BYTES:
            return
        try:
            offer = await chunks.find_patch(url, self._old.header)
            if offer is None or offer.size >= chunk_bytes:
                return
            _LOG.info("taking a patch of %d bytes instead of chunks of %d", offer.size, chunk_bytes)
            async with aclosing(chunks.read_patch(url, self._old.header, offer)) as pieces:
                await self._apply(offer, pieces, chunks.patch_memory_bytes, advance)
        except FieldrelayError as error:
            _LOG.info("the patch is of no use, taking the chunks: %s (%s)", error, error.code)
        except MemoryError:
            _LOG.warning("there is no memory for the patch, taking the chunks")

    async def _apply(
        self, offer: PatchOffer, pieces: AsyncIterator[bytes], memory_bytes: int, advance: Callable[[int], None]
    ) -> None:
        loop = asyncio.get_running_loop()

        def put(size: int) -> None:
            self.tally.fetched += size
            loop.call_soon_threadsafe(advance, size)

        missing = Missing(self._index, self._done, self._part, put)
        stream, base = Pulled(pieces, offer.size), Base(self._old.read, self._old.size)
        try:
            await apply(offer, stream, base, missing, size=self._index.image_size, memory_bytes=memory_bytes)
        finally:
            self.tally.downloaded += stream.received

    async def _fetch(self, url: str, chunks: RangeSource, advance: Callable[[int], None]) -> None:
        """Step 4: the rest, over the wire."""
        places = self._missing()
        wanted = [self._index[numbers[0]] for numbers in places.values()]
        ranges = merge(Range(chunk.start, chunk.length) for chunk in wanted)
        if not ranges:
            return
        assembler, decoder = Assembler(wanted), ChunkDecoder()
        batch: list[tuple[Chunk, bytes]] = []
        waiting = 0
        try:
            async for offset, data in chunks.read_ranges(url, ranges):
                batch += assembler.feed(offset, data)
                waiting += len(data)
                if waiting >= _FETCH_BATCH_BYTES:
                    full, batch, waiting = batch, [], 0
                    await in_batches(self._store(full, places, decoder), advance)
            assembler.finish()
        finally:  # a connection that breaks before every batch is full still gets on
            await in_batches(self._store(batch, places, decoder), advance)

    def _missing(self) -> dict[bytes, list[int]]:
        """The chunks not yet in place, ascending: digest of the content -> every chunk that needs it."""
        places: dict[bytes, list[int]] = {}
        for number in range(len(self._index)):
            if not self._done[number] and self._index.size_of(number):
                places.setdefault(self._index.digest_of(number), []).append(number)
        return places

    def _store(self, batch: list[tuple[Chunk, bytes]], places: dict[bytes, list[int]], decoder: ChunkDecoder) -> Iterator[int]:
        for chunk, stored in batch:
            data = decoder.decode(stored, chunk)
            self.tally.downloaded += len(stored)
            for number in places[chunk.digest]:
                self._part.write(self._index[number].offset, data)
                self._done[number] = 1
                self.tally.fetched += chunk.size
                yield chunk.size

    def _settle(self) -> Iterator[int]:
        self._part.settle()
        yield 0

    def _mark(self, pieces: list[Piece]) -> int:
        for piece in pieces:
            self._done[piece.number] = 1
        return sum(piece.size for piece in pieces)


def _piece(chunk: Chunk, offset: int) -> Piece:
    return Piece(chunk.index, offset, chunk.size, chunk.digest, chunk.offset)


def _in_place(index: HeaderIndex, numbers: Iterable[int]) -> Iterator[Piece]:
    return (_piece(chunk, chunk.offset) for chunk in map(index.__getitem__, numbers))


def _common(new: HeaderIndex, old: HeaderIndex | None) -> Iterator[int]:
    """Numbers of the chunks of `new` that `old` has at the same place: both are ascending, so one walk finds them."""
    if old is None or not old.has_digests:
        return
    number = 0
    for chunk in new:
        while number < len(old) and old[number].offset < chunk.offset:
            number += 1
        if number < len(old) and old[number].offset == chunk.offset and old.digest_of(number) == chunk.digest:
            yield chunk.index
