"""The gateway's content for an agent that runs in it: metadata from the store's folder, bytes as nodes get them.

Nothing is trusted for being near. The agent checks metadata against its own pinned root and bundles by their signatures, as on a
node; it only saves the way over the network. What the store does not have completely comes through the relay.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from gateway.fleet.attached.crossing import Crossing
from node_agent.config import PatchesSection
from update.chunks.pair import PatchOffer
from update.chunks.ranges import Range
from update.digest import Digest
from update.errors import NotFoundError, ProtocolError, StoreError, UnreachableError
from update.store.directory import DirectoryFetcher
from update.store.staging import Staged
from update.trust.client import Fetcher
from update.trust.verified import TargetInfo

_BLOCK_BYTES: Final = 1 << 20
_STEP_BLOCKS: Final = 16
NO_PATCHES: Final = PatchesSection(enabled=False)
"""A patch saves the way to a node; here there is none."""


class Lent(Protocol):
    """An open file to read from."""

    @property
    def descriptor(self) -> int:
        """Where to read."""
        ...

    @property
    def release(self) -> Callable[[], None]:
        """Give it back."""
        ...


class Shelf(Protocol):
    """The content that nodes get: `gateway.south.content.ContentServer`."""

    def find(self, repository: str, path: str) -> TargetInfo | None:
        """What verified metadata lists under this name on the wire."""
        ...

    async def lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lent:
        """A file that holds `ranges`. Errors: `WireError`, `StoreError`."""
        ...


class ShelfTransport:
    """`node_agent.content.Transport` in the gateway's own process; `folder_of` is where the store has a repository."""

    def __init__(self, crossing: Crossing, shelf: Shelf, folder_of: Callable[[str], Path]) -> None:
        self._crossing = crossing
        self._shelf = shelf
        self._folder_of = folder_of

    def fetcher(self, repository: str) -> Fetcher:
        """Metadata as it was mirrored, byte for byte."""
        return DirectoryFetcher(self._folder_of(repository))

    async def download(self, repository: str, path: str, staged: Staged, progress: Callable[[int, int], None]) -> None:
        """Continue `staged` until it is whole."""
        try:
            for number, block in enumerate(_blocks(staged.size(), staged.length), start=1):
                data = await self._read(repository, path, block)
                await asyncio.to_thread(staged.write_at, block.start, data)
                progress(block.end, staged.length)
                if number % _STEP_BLOCKS == 0:
                    await asyncio.to_thread(staged.sync)
        except BaseException:  # also when cancelled: what arrived is kept for the next try
            with suppress(StoreError):
                staged.sync()
            raise
        await asyncio.to_thread(staged.sync)

    async def read_ranges(
        self, repository: str, path: str, ranges: Sequence[tuple[int, int]]
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of a file."""
        for start, length in ranges:
            for block in _blocks(start, start + length):
                yield block.start, await self._read(repository, path, block)

    async def find_patch(self, repository: str, path: str, base: Digest, limits: PatchesSection) -> PatchOffer | None:
        """None is offered."""
        del repository, path, base, limits
        return None

    def read_patch(
        self, repository: str, path: str, base: Digest, offer: PatchOffer, limits: PatchesSection
    ) -> AsyncGenerator[bytes, None]:
        """None was offered."""
        del repository, base, offer, limits
        raise ProtocolError(f"no patch to {path} was offered")

    async def _read(self, repository: str, path: str, block: Range) -> bytes:
        data = await self._crossing.call(lambda: self._lend(repository, path, block))
        if len(data) != block.length:
            raise UnreachableError(f"{path} of {repository} ends before byte {block.end}; it was removed or cut meanwhile")
        return data

    async def _lend(self, repository: str, path: str, block: Range) -> bytes:
        """On the gateway's loop, where the file is given back whatever becomes of who asked."""
        info = self._shelf.find(repository, path)
        if info is None:
            raise NotFoundError(f"repository {repository} lists no {path}")
        lent = await self._shelf.lend(info, [block])
        try:
            return await asyncio.to_thread(_pread, lent.descriptor, block)
        finally:
            lent.release()


def _pread(descriptor: int, block: Range) -> bytes:
    try:
        return os.pread(descriptor, block.length, block.start)
    except OSError as error:
        raise StoreError(f"cannot read stored content: {error.strerror or error}") from error


def _blocks(start: int, end: int) -> Iterator[Range]:
    for position in range(start, end, _BLOCK_BYTES):
        yield Range(position, min(_BLOCK_BYTES, end - position))
