"""Where a repository's bytes come from: its upstreams in their configured order, over HTTP or from a folder.

An upstream only delivers bytes; whoever asked verifies them. Failover is within one repository: on an error the next
upstream is asked for what is still missing, but *not there* (404) is an answer and not an error.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import aiohttp

from update.chunks.ranges import Range
from update.errors import NotFoundError, UnreachableError, WireError
from update.store.directory import DirectoryFetcher
from update.store.staging import Staged
from update.trust.verified import TargetInfo
from update.wire.download import download
from update.wire.http import HttpFetcher
from update.wire.ranged import read_ranges
from update.wire.rate import Retry

_log = logging.getLogger(__name__)
_BLOCK_BYTES = 1 << 20


class Upstream(Protocol):
    """One place that holds a repository. Paths are percent-encoded and relative to it. Errors: `WireError`."""

    @property
    def name(self) -> str:
        """For logs and status; holds no credential."""
        ...

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """A whole small file, as `update.trust.client.Fetcher`."""
        ...

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Fill `staged` up to `length` bytes, going on where it ends. Errors also: `StoreError`."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (offset, bytes) covering `ranges`, each range from its start."""
        ...


class HttpUpstream:
    """A repository on a server. `retry` bounds how long one upstream is tried before the next one is."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, retry: Retry | None = None) -> None:
        self.name = url
        self._session = session
        self._retry = retry or Retry()
        self._fetcher = HttpFetcher(session, url)

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Get a whole small file."""
        return await self._fetcher.fetch(path, max_bytes=max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Get the rest."""
        await download(self._session, self._fetcher.url(path), staged, length=length, retry=self._retry)

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        """Get ranges, however the server answers."""
        return read_ranges(self._session, self._fetcher.url(path), ranges, retry=self._retry)


class FolderUpstream:
    """A repository in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._fetcher = DirectoryFetcher(folder)

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Read a whole small file."""
        return await self._fetcher.fetch(path, max_bytes=max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Copy the rest."""
        async for offset, block in self.read_ranges(path, (Range(staged.size(), length - staged.size()),)):
            await asyncio.to_thread(staged.write_at, offset, block)
        await asyncio.to_thread(staged.sync)

    async def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        """Read blocks of at most 1 MiB."""
        descriptor = await asyncio.to_thread(self._fetcher.open, path)
        try:
            for span in ranges:
                offset = span.start
                while offset < span.end:
                    block = await asyncio.to_thread(_read, descriptor, min(_BLOCK_BYTES, span.end - offset), offset)
                    if not block:
                        raise UnreachableError(f"{path} in {self.name} ends at byte {offset}, byte {span.end - 1} was asked for")
                    yield offset, block
                    offset += len(block)
        finally:
            os.close(descriptor)


def _read(descriptor: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    except OSError as error:
        raise UnreachableError(f"the medium cannot be read at byte {offset}: {error.strerror}") from error


class Current:
    """A `Fetcher` that asks one upstream at a time: one refresh never mixes two."""

    def __init__(self, first: Upstream) -> None:
        self.upstream = first

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Ask the upstream in use."""
        return await self.upstream.fetch(path, max_bytes=max_bytes)


class Failover:
    """A `RangeSource` of one target: on an error the next upstream is asked for what is still missing."""

    def __init__(self, upstreams: Sequence[Upstream], info: TargetInfo) -> None:
        self._upstreams = tuple(upstreams)
        self._info = info

    async def read_ranges(self, ranges: Sequence[Range]) -> AsyncIterator[tuple[int, bytes]]:
        """Yield every byte of `ranges` once; the last upstream's error when none could finish."""
        missing = {span.start: span.length for span in ranges}
        trouble: WireError = NotFoundError(f"{self._info.path} has no upstream")
        for upstream in self._upstreams:
            try:
                rest = tuple(Range(start, length) for start, length in sorted(missing.items()))
                async for offset, piece in upstream.read_ranges(self._info.wire_path, rest):
                    _take(missing, offset, len(piece))
                    yield offset, piece
            except WireError as error:
                _log.warning("upstream %s: %s (%s)", upstream.name, error, error.code)
                trouble = error
            if not missing:
                return
        raise trouble


def _take(missing: dict[int, int], offset: int, size: int) -> None:
    """Note that `size` bytes from `offset` have come; a piece may run through adjacent ranges."""
    while size > 0:
        length = missing.pop(offset, 0)
        if not length:
            return  # delivered twice, or not asked for: the reader of the chunks judges it
        if length > size:
            missing[offset + size] = length - size
        offset, size = offset + length, size - length
