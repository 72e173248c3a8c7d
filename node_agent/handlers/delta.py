"""An image that travels as the chunks that are not at hand: zchunk over ranges (SWUpdate's delta handler, in our words).

The order of work, each step on what the one before left over:

1. What an interrupted write, or an older release at the same place, already put there is verified and kept.
2. Chunks of the running slot are read, verified and copied; chunks of zeros are written where there are none yet.
3. What is still missing is fetched, once each, decoded, verified, and written to every place it belongs.
4. Everything is made durable, then every chunk is read back and compared.

Indexes of old images are only hints: each chunk taken from a slot is hashed as it is read, and one that differs counts as
missing. So a slot that somebody wrote to costs bytes, never correctness.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from node_agent.handlers.assembler import Assembler
from node_agent.handlers.part import BLOCK_BYTES, Part, Piece, check, in_batches, runs
from update.chunks.plan import Reuse, Source, Zero, merge, plan_delta
from update.chunks.ranges import Range
from update.chunks.zchunk import Chunk, ChunkDecoder, HeaderIndex
from update.trust.verified import VerifiedChunkIndex

_FETCH_BATCH_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(BLOCK_BYTES)


class RangeSource(Protocol):
    """Where the bytes of the remote `.zck` come from; `node_agent.drivers.driver.ChunkSource` says the rules."""

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, bytes) of every range."""
        ...


@dataclass(frozen=True, slots=True)
class OldImage:
    """What the running slot holds: how to read it (offset, size), and what is believed to be where."""

    read: Callable[[int, int], bytes]
    source: Source


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

    async def write(self, url: str, chunks: RangeSource, advance: Callable[[int], None]) -> None:
        """Write everything and make it durable. Errors: `WireError` of the source, `ChunkError`, `StoreError`."""
        await in_batches(self._keep(), advance)
        await in_batches(self._copy(), advance)
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

    async def _fetch(self, url: str, chunks: RangeSource, advance: Callable[[int], None]) -> None:
        """Step 3: the rest, over the wire."""
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
