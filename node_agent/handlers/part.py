"""One part of a slot while it is written: a block device or file with bounds, and the proof by reading back.

Content is written through `DurableFile` and counts only after `settle`, which also drops the page cache of the part, so
that reading back sees what the medium holds. Everything works in blocks of bounded size: memory does not grow with the
image. Work is cut into batches that run in a thread, one at a time, so that the agent's event loop stays alive.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from update.durable import DurableFile
from update.errors import ReadBackError, SlotError

BLOCK_BYTES: Final = 1 << 20
BATCH_BYTES: Final = 16 << 20


class Piece(NamedTuple):
    """Content that must have a digest: read at `offset`, and meant for `target` (bytes; the same where nothing moves)."""

    number: int
    offset: int
    size: int
    digest: bytes
    target: int


class Part:
    """An open part; `name` is for messages, `capacity` its size in bytes."""

    def __init__(self, name: str, file: DurableFile) -> None:
        self.name = name
        self.capacity = file.size()
        self._file = file

    def require(self, size: int) -> None:
        """`SlotError` unless `size` bytes fit: asked before the first byte is written, and at every write."""
        if size > self.capacity:
            raise SlotError(f"part {self.name} holds {self.capacity} bytes, the image needs {size}; it is not for this layout")

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end."""
        return self._file.read_at(offset, size)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write within the bounds of the part."""
        self.require(offset + len(data))
        self._file.write_at(offset, data)

    def settle(self) -> None:
        """Make everything written durable, and forget what the page cache holds of it."""
        self._file.sync()
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read_back(self, pieces: Iterable[Piece]) -> Iterator[int]:
        """Compare every piece with its digest; yields bytes compared. `ReadBackError` names the first that differs."""
        for run in runs(pieces):
            checked = check(self.read, run)
            if not all(checked.good):
                piece = run[checked.good.index(False)]
                raise ReadBackError(
                    f"part {self.name}: {piece.size} bytes at {piece.offset} are not what was written; "
                    "the medium is failing, or a program wrote to the slot"
                )
            yield len(checked.data)


def runs(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Groups of pieces that are adjacent where they are read and where they are meant for, of up to `BLOCK_BYTES`.

    One group is one read and at best one write. A larger piece stands alone.
    """
    run: list[Piece] = []
    start = end = shift = 0
    for piece in pieces:
        adjacent = piece.offset == end and piece.target - piece.offset == shift
        if run and not (adjacent and end + piece.size - start <= BLOCK_BYTES):
            yield run
            run = []
        if not run:
            start, shift = piece.offset, piece.target - piece.offset
        run.append(piece)
        end = piece.offset + piece.size
    if run:
        yield run


class Checked(NamedTuple):
    """The data of one run, and which of its pieces have their digest."""

    data: memoryview
    good: list[bool]


def check(read: Callable[[int, int], bytes], run: list[Piece]) -> Checked:
    """Read one run of adjacent pieces at once and hash each."""
    start = run[0].offset
    data = memoryview(read(start, run[-1].offset + run[-1].size - start))
    good = []
    for _, offset, size, digest, _ in run:
        view = data[offset - start : offset - start + size]
        good.append(hashlib.sha256(view).digest() == digest)
    return Checked(data, good)


async def in_batches(work: Iterator[int], advance: Callable[[int], None]) -> None:
    """Drive `work`, which yields bytes done, in a thread; `advance` hears, in the event loop, of each batch.

    When cancelled, the batch in flight ends first: nothing goes on writing behind the back of whoever cleans up.
    """
    while True:
        batch = asyncio.ensure_future(asyncio.to_thread(_one_batch, work))
        try:
            done, ended = await asyncio.shield(batch)
        except asyncio.CancelledError:
            while not batch.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({batch})
            raise
        advance(done)
        if ended:
            return


def _one_batch(work: Iterator[int]) -> tuple[int, bool]:
    total = 0
    for done in work:
        total += done
        if total >= BATCH_BYTES:
            return total, False
    return total, True
