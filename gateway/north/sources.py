"""Where a repository's bytes come from: its upstreams in their configured order, over HTTP or from a folder.

An upstream only delivers bytes; whoever asked verifies them. Failover is within one repository, and only who verifies can
say that an upstream failed: one that is gone and one that sends other bytes than were signed are the same to it. `Preference`
remembers both for a while.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from update.chunks.ranges import Range
from update.errors import NotFoundError, UnreachableError
from update.store.directory import DirectoryFetcher
from update.store.staging import Staged
from update.trust.verified import TargetInfo
from update.wire.download import download
from update.wire.habits import Habits
from update.wire.http import HttpFetcher, Manner
from update.wire.line import FREE, Line
from update.wire.ranged import read_ranges
from update.wire.rate import Patience, Retry

_BLOCK_BYTES = 1 << 20
PENALTY_S = 300.0


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

    def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start."""
        ...


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long one upstream is waited for, and how often it is asked again."""

    retry: Retry = field(default_factory=Retry)
    patience: Patience = field(default_factory=Patience)


ALONE: Final = Persistence()
"""There is no other: it is asked for as long as it may take, since clients are held meanwhile."""
AMONG_OTHERS: Final = Persistence(Retry(attempts=2), Patience(connect_s=10.0, answer_s=45.0))
"""One that is silent costs 90 s, and so a client that is held for 280 s is still served by the next one."""


class HttpUpstream:
    """A repository on a server. `retry` and `patience` bound how long one upstream is tried before the next one is.

    `habits` remembers how it answers; without, every upstream is a stranger again after each start. `line` is what it
    shares with the others.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        retry: Retry | None = None,
        patience: Patience | None = None,
        habits: Habits | None = None,
        line: Line = FREE,
    ) -> None:
        self.name = url
        self._session = session
        self._retry = retry or Retry()
        self._habits = habits or Habits()
        self._peer = self._habits.of(url)
        self._manner = Manner(patience or Patience(), line=line)
        self._fetcher = HttpFetcher(session, url, self._manner)

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Get a whole small file."""
        return await self._fetcher.fetch(path, max_bytes=max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Get the rest."""
        url = self._fetcher.url(path)
        await download(self._session, url, staged, length=length, manner=self._manner, retry=self._retry)

    async def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Get ranges, however the server answers, and remember how it did."""
        url = self._fetcher.url(path)
        reading = read_ranges(self._session, url, ranges, manner=self._manner, retry=self._retry, peer=self._peer)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece
        await self._habits.keep()


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

    async def read_ranges(self, path: str, ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Read blocks of at most 1 MiB."""
        for span in ranges:
            offset = span.start
            while offset < span.end:
                block = await asyncio.to_thread(self._read, path, offset, min(_BLOCK_BYTES, span.end - offset))
                if not block:
                    raise UnreachableError(f"{path} in {self.name} ends at byte {offset}, byte {span.end - 1} was asked for")
                yield offset, block
                offset += len(block)

    def _read(self, path: str, offset: int, size: int) -> bytes:
        """One block; opened for each, so that nothing stays open when the reader goes away or the medium is pulled."""
        descriptor = self._fetcher.open(path)
        try:
            return os.pread(descriptor, size, offset)
        except OSError as error:
            raise UnreachableError(f"{self.name} cannot be read at byte {offset} of {path}: {error.strerror}") from error
        finally:
            os.close(descriptor)


class Current:
    """A `Fetcher` that asks one upstream at a time: one refresh never mixes two."""

    def __init__(self, first: Upstream) -> None:
        self.upstream = first

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Ask the upstream in use."""
        return await self.upstream.fetch(path, max_bytes=max_bytes)


class Preference:
    """The order in which upstreams are asked: as configured, but one that failed is asked last for `PENALTY_S`.

    So a dead or lying upstream costs its time once in a while and not with every request, and the preferred one, which may
    be the cheap line, is preferred again by itself. `clock` gives seconds that never go back.
    """

    def __init__(self, upstreams: Sequence[Upstream], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failed_s = [float("-inf")] * len(upstreams)
        self._upstreams = tuple(upstreams)
        self._clock = clock

    def order(self) -> tuple[Upstream, ...]:
        """Whom to ask, one after the other."""
        now = self._clock()
        late = [now - failed < PENALTY_S for failed in self._failed_s]
        return tuple(self._upstreams[place] for place in sorted(range(len(late)), key=late.__getitem__))

    def failed(self, upstream: Upstream) -> None:
        """This one did not do what it should."""
        self._failed_s[self._upstreams.index(upstream)] = self._clock()


@dataclass(slots=True)
class TargetSource:
    """One upstream of one target, as the relay asks for it."""

    upstream: Upstream
    info: TargetInfo
    preference: Preference
    _lacks_it: bool = field(default=False, init=False, compare=False)

    @property
    def name(self) -> str:
        """For logs."""
        return self.upstream.name

    async def read_ranges(self, ranges: Sequence[Range]) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start. Errors: `WireError`."""
        try:
            async with aclosing(self.upstream.read_ranges(self.info.wire_path, ranges)) as pieces:
                async for piece in pieces:
                    yield piece
        except NotFoundError:
            self._lacks_it = True
            raise

    def failed(self) -> None:
        """Ask the others first for a while; not one that only lacks this target, as a mirror that is behind does."""
        if not self._lacks_it:
            self.preference.failed(self.upstream)
