"""The `.zck` files that are being relayed: opened on first use, published as a whole once complete.

A relayed file needs its header first, and a header is believed only if its SHA-256 is the one in verified metadata. It is
read from the sparse file of an earlier run or fetched from upstream. When the last chunk has come the whole file is
compared with the signed digest of the target, and the store takes it over; later requests find it there.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from gateway.south.relay import RangeSource, RelayedFile
from gateway.south.sparse import SparseFile
from update.chunks.ranges import Range
from update.digest import Digest
from update.durable import Disk
from update.errors import ChunkError, FieldrelayError, NotFoundError, ProtocolError
from update.trust.verified import (
    Provenance,
    TargetInfo,
    VerifiedChunkIndex,
    VerifiedTarget,
    ZckHeader,
    verify_chunk_index,
    verify_target,
)

_log = logging.getLogger(__name__)


def _always(_info: TargetInfo) -> None:
    """There is room."""


class Relays:
    """`folder` holds the sparse files; `source_of` gives a target's upstreams; `publish` hands a complete file to the store.

    `admit` refuses a new file that there is no room for (`NoSpaceError`).
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        source_of: Callable[[TargetInfo], RangeSource],
        publish: Callable[[VerifiedTarget], Path],
        admit: Callable[[TargetInfo], None] = _always,
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._source_of = source_of
        self._publish = publish
        self._admit = admit
        self._files: dict[Digest, RelayedFile] = {}
        self._locks: dict[Digest, asyncio.Lock] = {}
        self._finishing: dict[Digest, asyncio.Task[None]] = {}

    async def get(self, info: TargetInfo) -> RelayedFile:
        """The relayed file of a `.zck` target. Errors: `WireError`, `TrustError`, `BundleError`, `StoreError`."""
        async with self._locks.setdefault(info.sha256, asyncio.Lock()):
            if info.sha256 not in self._files:
                self._files[info.sha256] = await self._open(info)
        return self._files[info.sha256]

    async def ensure(self, info: TargetInfo, ranges: tuple[Range, ...]) -> Path:
        """Have `ranges` on disk; the path of the file that holds them."""
        relayed = await self.get(info)
        await relayed.ensure(ranges)
        if relayed.sparse.complete and info.sha256 not in self._finishing:
            task = asyncio.get_running_loop().create_task(self._finish(info, relayed))
            self._finishing[info.sha256] = task
        return relayed.sparse.path

    async def settle(self) -> None:
        """Wait until complete files are published and everything that has come is durable."""
        await asyncio.gather(*self._finishing.values(), *(relayed.settle() for relayed in self._files.values()))

    async def close(self) -> None:
        """End every fetch; what has arrived stays."""
        await asyncio.gather(*self._finishing.values(), return_exceptions=True)
        for relayed in self._files.values():
            await relayed.close()
        self._files.clear()

    def progress(self) -> dict[Digest, tuple[int, int]]:
        """Per relayed file: chunks at hand and chunks in all."""
        return {digest: (relayed.sparse.count(), len(relayed.sparse.index)) for digest, relayed in self._files.items()}

    async def _open(self, info: TargetInfo) -> RelayedFile:
        pinned = info.custom.zck_header
        if pinned is None:
            raise NotFoundError(f"{info.path} is not stored, and its metadata pins no zchunk header to relay it by")
        path = self._folder / f"{info.sha256}.zck"
        if not path.exists():
            await asyncio.to_thread(self._admit, info)
        source = self._source_of(info)
        index = await asyncio.to_thread(_kept_index, path, info, pinned) or await _fetched_index(source, info, pinned)
        if index.header.total_length != info.length:
            raise ChunkError(f"{info.path}: its header describes {index.header.total_length} bytes, {info.length} are signed")
        return RelayedFile(await asyncio.to_thread(SparseFile.open, self._disk, path, index), source)

    async def _finish(self, info: TargetInfo, relayed: RelayedFile) -> None:
        """Prove the whole file and hand it to the store; readers keep their open descriptors."""
        try:
            await relayed.settle()
            verified = await asyncio.to_thread(verify_target, info, relayed.sparse.path)
            await asyncio.to_thread(self._publish, verified)
            await asyncio.to_thread(relayed.sparse.remove_bitmap)
        except FieldrelayError as error:  # it stays a sparse file, which serves as well; the next start tries again
            _log.error("relay: %s is complete but was not published: %s (%s)", info.path, error, error.code)
            return
        _log.info("relay: %s of %s is complete", info.path, info.repository)
        del self._files[info.sha256], self._finishing[info.sha256]
        relayed.sparse.close()


def _kept_index(path: Path, info: TargetInfo, pinned: ZckHeader) -> VerifiedChunkIndex | None:
    """The header at the front of an earlier run's sparse file, if it is still the signed one."""
    try:
        with path.open("rb") as file:
            raw = file.read(pinned.length)
        return verify_chunk_index(raw, sha256=pinned.sha256, provenance=Provenance.TUF, source=info.path)
    except (OSError, FieldrelayError):  # absent or damaged: it is fetched
        return None


async def _fetched_index(source: RangeSource, info: TargetInfo, pinned: ZckHeader) -> VerifiedChunkIndex:
    raw = bytearray()
    async for offset, piece in source.read_ranges((Range(0, pinned.length),)):
        if offset != len(raw):
            raise ProtocolError(f"upstream sent byte {offset} of the header of {info.path}, expected byte {len(raw)}")
        raw += piece
    return verify_chunk_index(bytes(raw), sha256=pinned.sha256, provenance=Provenance.TUF, source=info.path)
