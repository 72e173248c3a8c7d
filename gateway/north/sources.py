"""Where a repository's bytes come from: its upstreams in their configured order, over HTTP or from a folder.

An upstream only delivers bytes; whoever asked verifies them. Failover is within one repository, and only who verifies can
say that an upstream failed: one that is gone and one that sends other bytes than were signed are the same to it. `Preference`
remembers both for a while.

A 404 (also 403 and 410) is an answer and no failure: failover is on error only. The upstreams of a repository hold the same
files, so one that lacks a file says something of that file and nothing of itself; giving it up would let the choice of the
upstream wander with every file that is missing somewhere. Yet the file is listed in metadata that was signed, so an upstream
that lacks it is behind (a mirror that is not filled yet) or never had it (a peer, another gateway). Therefore:

1. It keeps its place for everything else, and is not asked again at once.
2. What it lacks is remembered for `LACKING_S`: until then nobody's request for that file reaches it, however many ask.
3. The others are asked for that file alone, in their order; who lacks it too is remembered too. When all do, requests are
   refused without a word to anybody until the first of them may have it.
"""

import asyncio
import os
import time
from collections import OrderedDict
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
from update.wire.ranged import Spare, read_ranges
from update.wire.rate import Patience, Retry

_BLOCK_BYTES = 1 << 20
PENALTY_S = 300.0
LACKING_S = 30.0
"""A mirror that is being filled may have the file soon; a hundred nodes that ask for it meanwhile need not find out."""
MAX_LACKING = 1024


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

    @property
    def ranged(self) -> bool:
        """Whether it is known to send a range when it is asked for one."""
        ...

    def read_ranges(
        self, path: str, ranges: Sequence[Range], spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start; `spare` gets what comes besides."""
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

    @property
    def ranged(self) -> bool:
        """Whether it has answered a range with that range, and does not ignore them since."""
        return self._peer.manners.partial

    async def read_ranges(
        self, path: str, ranges: Sequence[Range], spare: Spare | None = None
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Get ranges, however the server answers, and remember how it did."""
        url = self._fetcher.url(path)
        reading = read_ranges(self._session, url, ranges, manner=self._manner, retry=self._retry, peer=self._peer, spare=spare)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                yield piece
        await self._habits.keep()


class Files(Protocol):
    """Files of this machine by the paths of a repository, as `DirectoryFetcher`."""

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """A whole small file."""
        ...

    def open(self, path: str) -> int:
        """A descriptor, which the caller closes."""
        ...


class FolderUpstream:
    """A repository in a folder of this machine, or in other `files` of it that are called so."""

    def __init__(self, folder: Path | str, files: Files | None = None) -> None:
        self.name = str(folder)
        self.ranged = True
        self._fetcher = DirectoryFetcher(Path(folder)) if files is None else files

    async def fetch(self, path: str, *, max_bytes: int) -> bytes:
        """Read a whole small file."""
        return await self._fetcher.fetch(path, max_bytes=max_bytes)

    async def download(self, path: str, staged: Staged, *, length: int) -> None:
        """Copy the rest."""
        async for offset, block in self.read_ranges(path, (Range(staged.size(), length - staged.size()),)):
            await asyncio.to_thread(staged.write_at, offset, block)
        await asyncio.to_thread(staged.sync)

    async def read_ranges(
        self,
        path: str,
        ranges: Sequence[Range],
        spare: Spare | None = None,  # noqa: ARG002 - nothing comes unasked
    ) -> AsyncGenerator[tuple[int, bytes], None]:
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
    be the cheap line, is preferred again by itself. It also remembers what an upstream lacks, for `LACKING_S`: that changes no
    order. `clock` gives seconds that never go back.
    """

    def __init__(self, upstreams: Sequence[Upstream], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failed_s = [float("-inf")] * len(upstreams)
        self._upstreams = tuple(upstreams)
        self._away: set[str] = set()
        self._lacking_s: OrderedDict[tuple[str, str], float] = OrderedDict()  # since when, by upstream and path
        self._clock = clock

    def order(self) -> tuple[Upstream, ...]:
        """Whom to ask, one after the other."""
        now = self._clock()
        late = [now - failed < PENALTY_S for failed in self._failed_s]
        return tuple(self._upstreams[place] for place in sorted(range(len(late)), key=late.__getitem__))

    def failed(self, upstream: Upstream) -> None:
        """This one did not do what it should."""
        self._failed_s[self._upstreams.index(upstream)] = self._clock()
        self._away.add(upstream.name)

    def answered(self, upstream: Upstream) -> None:
        """This one did; its place does not change by that."""
        self._away.discard(upstream.name)

    def reachable(self) -> tuple[str, ...]:
        """The names of those that have not failed since they last did what they should; who was never asked counts."""
        return tuple(each.name for each in self._upstreams if each.name not in self._away)

    def lacks(self, upstream: Upstream, path: str) -> bool:
        """Whether it said a moment ago that it does not have this file."""
        return self._clock() - self._lacking_s.get((upstream.name, path), float("-inf")) < LACKING_S

    def note_lack(self, upstream: Upstream, path: str) -> None:
        """It said that it does not have this file."""
        place = upstream.name, path
        self._lacking_s[place] = self._clock()
        self._lacking_s.move_to_end(place)
        while len(self._lacking_s) > MAX_LACKING:
            self._lacking_s.popitem(last=False)


@dataclass(slots=True)
class TargetSource:
    """One upstream of one target, as the relay asks for it."""

    upstream: Upstream
    info: TargetInfo
    preference: Preference

    @property
    def name(self) -> str:
        """For logs."""
        return self.upstream.name

    @property
    def ranged(self) -> bool:
        """Whether several requests may go side by side, each for its own part."""
        return self.upstream.ranged

    async def read_ranges(self, ranges: Sequence[Range], spare: Spare | None = None) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) covering `ranges`, each range from its start. Errors: `WireError`."""
        if self.preference.lacks(self.upstream, self.info.wire_path):
            raise NotFoundError(
                f"{self.name} did not have {self.info.path} a moment ago; it is asked again after {LACKING_S:g} s"
            )
        try:
            async with aclosing(self.upstream.read_ranges(self.info.wire_path, ranges, spare)) as pieces:
                async for piece in pieces:
                    yield piece
            self.preference.answered(self.upstream)
        except NotFoundError:
            self.preference.note_lack(self.upstream, self.info.wire_path)
            raise

    def failed(self) -> None:
        """Ask the others first for a while; not if it only lacks this target, which is an answer."""
        if not self.preference.lacks(self.upstream, self.info.wire_path):
            self.preference.failed(self.upstream)
