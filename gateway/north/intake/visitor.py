"""A repository on a medium that is here, as one more upstream: it delivers bytes, and whoever asked verifies them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from gateway.north.intake.desk import Desk
from update.chunks.ranges import Range
from update.errors import MediumUnreadableError
from update.store.staging import Staged
from update.wire.ranged import Spare

_BLOCK_BYTES: Final = 1 << 20
SYNC_BYTES: Final = 64 << 20
"""What may have to be copied once more after a power cut."""


class Visitor:
    """Repository `number` of an offer. Errors of all methods: those of `Desk`."""

    def __init__(self, desk: Desk, number: int) -> None:
        self.name = desk.label
        self.ranged = True
        self._desk = desk
        self._number = number

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """A whole small file."""
        return await self._desk.file(self._number, _parts(path), max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Copy the rest; what has come is kept, and gone on with at the next visit."""
        await copy(self._desk, self._number, _parts(path), staged, length=length)

    async def read_ranges(
        self,
        path: str,
        ranges: Sequence[Range],
        spare: Spare | None = None,  # noqa: ARG002 - nothing comes unasked
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """The ranges, one after the other."""
        async with aclosing(self._desk.pieces(self._number, _parts(path), ranges)) as pieces:
            async for piece in pieces:
                yield piece


async def copy(desk: Desk, number: int, path: Sequence[str], staged: Staged, *, length: int) -> None:
    """Fill `staged` up to `length` bytes, going on where it ends. Errors: those of `Desk.pieces`, `StoreError`."""
    start = staged.size()
    synced = start
    rest = (Range(start, length - start),) if length > start else ()
    try:
        async with aclosing(desk.portions(number, path, rest)) as portions:
            async for portion, file in portions:
                await asyncio.to_thread(_append, file, staged, portion[0].start)
                end = portion[-1].end
                if end - synced >= SYNC_BYTES:
                    await asyncio.to_thread(staged.sync)
                    synced = end
    finally:
        await asyncio.shield(asyncio.to_thread(staged.sync))


def _append(file: Path, staged: Staged, offset: int) -> None:
    """Copy a portion in blocks through one buffer: memory stays the same whatever is copied."""
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    try:
        with file.open("rb", buffering=0) as opened:
            while count := opened.readinto(buffer):
                staged.write_at(offset, buffer[:count])
                offset += count
    except OSError as error:
        raise MediumUnreadableError(f"cannot read {file}: {error.strerror}") from error


def _parts(path: str) -> tuple[str, ...]:
    """A path as the metadata writes it, percent-encoded; what leads elsewhere is refused where it is opened."""
    return tuple(unquote(part) for part in path.split("/"))
