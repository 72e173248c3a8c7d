"""The `.zck` files that are being relayed: opened on first use, published as a whole once complete.

A relayed file needs its header first, and a header is believed only if its SHA-256 is the one in verified metadata. It is
read from the sparse file of an earlier run or fetched from upstream. When the last chunk has come the whole file is
compared with the signed digest of the target, and the store takes it over; later requests find it there. Whoever borrowed
the file before reads on: it is the same file under another name. Where there is no room, even by evicting, what is asked for
is passed on without being stored.
"""

import asyncio
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gateway.single_flight import SingleFlight
from gateway.south.besides import SpareRoom
from gateway.south.headers import fetched_index, kept_index, pinned_header
from gateway.south.open_files import Lease
from gateway.south.origins import RangeSource
from gateway.south.registry import known_by_header
from gateway.south.relay import GATHER_S, RelayedFile
from gateway.south.seeds import Look, Seeds
from gateway.south.sparse import SparseFile, remove
from gateway.south.unstored import Unstored
from update.chunks.ranges import Range
from update.digest import Digest
from update.durable import Disk
from update.errors import (
    ChunkError,
    FieldrelayError,
    NoSpaceError,
    SlowError,
    StoreError,
    TrustError,
)
from update.trust.verified import (
    TargetInfo,
    VerifiedChunkIndex,
    VerifiedTarget,
    verify_target,
)

_log = logging.getLogger(__name__)

HOLD_S = 280.0
"""swupdate gives up after 300 s without a byte."""

FULL_PAUSE_S = 30.0
"""After the disk was full in spite of all care, nothing is fetched for it for so long."""
MAX_HOMELESS = 16
"""Headers of files that could not even be begun; each is at most 16 MiB, and usually some kB."""

Find = Callable[[TargetInfo], Path | None]
"""Where a complete, verified target is stored; reads the file at its first use after a start, so not on an event loop."""


Grow = Callable[[TargetInfo, int], Awaitable[None]]
"""Makes room for so many more bytes of a target; `NoSpaceError` if there is none."""


async def _always(_info: TargetInfo, _needed_bytes: int) -> None:
    """There is room."""


async def _at_once(_read_bytes: int) -> None:
    """Read on."""


class Relays:
    """`folder` holds the sparse files; `sources_of` gives a target's upstreams; `publish` hands a complete file to the store.

    `find` looks into the store; `grow` makes room before anything is fetched, or refuses (`NoSpaceError`); `spare`
    has room for what comes unasked; `look` lists the files on disk that chunks may be taken from.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        sources_of: Callable[[TargetInfo], Sequence[RangeSource]],
        *,
        publish: Callable[[VerifiedTarget], Path],
        find: Find,
        grow: Grow = _always,
        spare: SpareRoom | None = None,
        look: Look = tuple,
        hold_s: float = HOLD_S,
        unstored: Unstored | None = None,
        full_pause_s: float = FULL_PAUSE_S,
        gather_s: float = GATHER_S,
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._sources_of = sources_of
        self._publish = publish
        self._find = find
        self._grow = grow
        self._spare = spare
        self._look = look
        self._hold_s = hold_s
        self._unstored = unstored or Unstored()
        self._full_pause_s = full_pause_s
        self._gather_s = gather_s
        self._full_until_s = -math.inf
        self._homeless: OrderedDict[Digest, VerifiedChunkIndex] = OrderedDict()
        self._files: dict[Digest, RelayedFile] = {}
        self._openings: SingleFlight[Digest, None] = SingleFlight()
        self._finishing: dict[Digest, asyncio.Task[None]] = {}
        self._unpublished: set[Digest] = set()
        self._users: Counter[Digest] = Counter()
        self._waiters = 0
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()
        self._leaving: dict[Digest, asyncio.Task[None]] = {}

    def is_open(self, digest: Digest) -> bool:
        """Whether this content is relayed already: then the store does not have it."""
        return digest in self._files

    async def lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease | None:
        """A descriptor of the file, once `ranges` are in it; None if the store has it by now.

        Errors: `UnreachableError`, `SlowError` after the time that a request is held, `NotFoundError` for a target that
        cannot be relayed, `StoreError`, `BundleError`.
        """
        try:
            async with asyncio.timeout(self._hold_s):
                return await self._lend(info, ranges)
        except TimeoutError as error:
            raise SlowError(f"upstream did not send what was asked of {info.path} in {self._hold_s:g} s; ask again") from error

    async def bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        """Have `ranges` in the file before somebody asks; what cannot be stored is not fetched.

        Errors: those of `lend`, and `NoSpaceError`.
        """
        try:
            async with asyncio.timeout(self._hold_s):
                await self._bring(info, ranges)
        except TimeoutError as error:
            raise SlowError(f"upstream did not send what was asked of {info.path} in {self._hold_s:g} s; ask again") from error

    async def quiet(self, within_s: float) -> None:
        """Return when nobody waits for `lend`, or after so long: who comes unasked stands back."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._nobody_waits.wait()

    def leading(self, info: TargetInfo, ranges: Sequence[Range]) -> int:
        """How many of `ranges`, from the first on, can be had at once."""
        relayed = self._files.get(info.sha256)
        return relayed.leading(ranges) if relayed else 0

    def bearable(self, info: TargetInfo, ranges: Sequence[Range]) -> int:
        """How many of `ranges`, from the first on, can be passed on where there is no room to store them."""
        relayed, index = self._files.get(info.sha256), self._homeless.get(info.sha256)
        if relayed is not None:
            return self._unstored.leading(relayed.sparse.index, ranges)
        return self._unstored.leading(index.header, ranges) if index else 0

    async def evict(self, digest: Digest) -> bool:
        """Remove a partly filled file to make room; False if it is in use. Responses that borrowed it read on."""
        relayed = self._files.get(digest)
        busy = digest in self._users or digest in self._openings or digest in self._finishing or digest in self._leaving
        if busy or (relayed is not None and relayed.busy):
            return False
        self._files.pop(digest, None)
        self._unpublished.discard(digest)
        task = self._leaving[digest] = asyncio.get_running_loop().create_task(self._remove(digest, relayed))
        task.add_done_callback(partial(self._left, digest))
        await asyncio.wait([task])  # unlike `await task`, who goes away leaves it to itself
        if isinstance(task.exception(), StoreError):
            return False
        task.result()
        return True

    def _left(self, digest: Digest, task: "asyncio.Task[None]") -> None:
        del self._leaving[digest]
        if not task.cancelled() and isinstance(error := task.exception(), StoreError):
            _log.error("relay: %s cannot be removed: %s (%s)", self._path(digest).name, error, error.code)

    async def recheck(self, pace: Callable[[int], Awaitable[None]]) -> int:
        """Read everything again that was read before, at the speed that `pace` lets; how many chunks were damaged."""
        damaged = 0
        for relayed in tuple(self._files.values()):
            if bad := await relayed.recheck(pace):
                _log.error("relay: %d chunks of %s are damaged on disk; they count as missing", bad, relayed.sparse.path.name)
                damaged += bad
        return damaged

    async def settle(self) -> None:
        """Wait until complete files are published and everything that has come is durable."""
        await asyncio.gather(*self._finishing.values())
        await asyncio.gather(*(relayed.settle() for relayed in self._files.values()))

    async def close(self) -> None:
        """End every fetch; what has arrived stays."""
        await self._openings.close()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*self._finishing.values(), return_exceptions=True)
        await self._unstored.close()
        while self._files:
            await self._files.popitem()[1].close()

    def progress(self) -> dict[Digest, tuple[int, int]]:
        """Per relayed file: chunks at hand and chunks in all."""
        return {digest: (relayed.sparse.count(), len(relayed.sparse.index)) for digest, relayed in self._files.items()}

    @contextmanager
    def _using(self, digest: Digest) -> Iterator[None]:
        """Have a file known to be in use: it is not evicted."""
        self._users[digest] += 1
        try:
            yield
        finally:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Have it known that somebody waits."""
        self._waiters += 1
        self._nobody_waits.clear()
        try:
            yield
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._nobody_waits.set()

    async def _bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        with self._using(info.sha256):
            relayed = await self._opened(info)
            if relayed is not None:
                await self._fill(info, relayed, ranges)
                self._finish_when_complete(info, relayed)
            elif info.sha256 in self._homeless:
                raise NoSpaceError(f"there is no room to begin {info.path}")

    async def _opened(self, info: TargetInfo) -> RelayedFile | None:
        """The file, opened if need be; None if the store has it, or there is no room for it."""
        if leaving := self._leaving.get(info.sha256):
            await asyncio.wait([leaving])
        if info.sha256 not in self._files:
            await self._openings.share(info.sha256, lambda: self._open(info))
        return self._files.get(info.sha256)

    async def _lend(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease | None:
        with self._waiting(), self._using(info.sha256):
            return await self._lend_used(info, ranges)

    async def _lend_used(self, info: TargetInfo, ranges: Sequence[Range]) -> Lease | None:
        relayed = await self._opened(info)
        if relayed is None:
            index = self._homeless.get(info.sha256)
            return None if index is None else await self._pass_on(info, index, None, ranges)
        lease = relayed.lend()  # before anything is waited for: it may be published meanwhile
        try:
            await self._fill(info, relayed, ranges)
        except NoSpaceError as error:
            lease.release()
            _log.warning("relay: %s is passed on without being stored: %s (%s)", info.path, error, error.code)
            return await self._pass_on(info, relayed.sparse.verified, relayed, ranges)
        except BaseException:  # also when the reader goes away: its descriptor is given back
            lease.release()
            raise
        self._finish_when_complete(info, relayed)
        return lease

    async def _pass_on(
        self, info: TargetInfo, index: VerifiedChunkIndex, stored: RelayedFile | None, ranges: Sequence[Range]
    ) -> Lease:
        seeds = stored.seeds if stored is not None else self._seeds_of(info, index)
        return await self._unstored.lend(index, stored, ranges, self._sources_of(info), seeds)

    def _seeds_of(self, info: TargetInfo, index: VerifiedChunkIndex) -> Seeds:
        return Seeds(index.header, info.sha256, self._look)

    async def _fill(self, info: TargetInfo, relayed: RelayedFile, ranges: Sequence[Range]) -> None:
        """Have `ranges` in the file; `NoSpaceError`, if possible before anything is fetched."""
        loop = asyncio.get_running_loop()
        relayed.note_use()
        if missing_bytes := relayed.missing_bytes(ranges):
            if loop.time() < self._full_until_s:
                raise NoSpaceError(f"the disk was full less than {self._full_pause_s:g} s ago")
            await self._grow(info, missing_bytes)
        try:
            await relayed.ensure(ranges, self._sources_of(info))
        except NoSpaceError:  # others fill the disk: what is fetched for it is lost
            self._full_until_s = loop.time() + self._full_pause_s
            raise

    async def _open(self, info: TargetInfo) -> None:
        homeless = self._homeless.pop(info.sha256, None)
        if await asyncio.to_thread(self._find, info) is not None:  # published since its reader looked
            return
        pinned = pinned_header(info)
        path = self._path(info.sha256)
        index = homeless or await asyncio.to_thread(kept_index, path, info, pinned)
        index = index or await fetched_index(self._sources_of(info), info, pinned)
        if index.header.total_length != info.length:
            raise ChunkError(f"{info.path}: its header describes {index.header.total_length} bytes, {info.length} are signed")
        try:
            await self._open_file(info, path, index)
        except NoSpaceError as error:
            _log.warning("relay: %s is passed on without being stored: %s (%s)", info.path, error, error.code)
            self._homeless[info.sha256] = index
            while len(self._homeless) > MAX_HOMELESS:
                self._homeless.popitem(last=False)

    async def _open_file(self, info: TargetInfo, path: Path, index: VerifiedChunkIndex) -> None:
        if not await asyncio.to_thread(path.exists):
            await self._grow(info, index.header.header_size)
        opening = asyncio.ensure_future(asyncio.to_thread(SparseFile.open, self._disk, path, index))
        try:
            sparse = await asyncio.shield(opening)
        except asyncio.CancelledError:  # the thread goes on
            (await opening).close()
            raise
        self._files[info.sha256] = RelayedFile(
            sparse, seeds=self._seeds_of(info, index), spare_room=self._spare, gather_s=self._gather_s
        )

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest}.zck"

    async def _remove(self, digest: Digest, relayed: RelayedFile | None) -> None:
        if relayed is not None:
            await relayed.close()
        await asyncio.to_thread(remove, self._disk, self._path(digest))

    def _finish_when_complete(self, info: TargetInfo, relayed: RelayedFile) -> None:
        digest = info.sha256
        ours = self._files.get(digest) is relayed  # not published since its reader began
        if known_by_header(info):  # proved by its chunks, and the store knows content by the digest of all of it
            return
        if ours and relayed.sparse.complete and digest not in self._finishing and digest not in self._unpublished:
            task = self._finishing[digest] = asyncio.get_running_loop().create_task(self._finish(info, relayed))
            task.add_done_callback(lambda _: self._finishing.pop(digest))

    async def _finish(self, info: TargetInfo, relayed: RelayedFile) -> None:
        """Prove the whole file and hand it to the store; readers keep their open descriptors."""
        try:
            await relayed.settle()
            if not relayed.sparse.complete:  # something had rotted: whoever needs it fetches it, and comes here again
                return
            verified = await asyncio.to_thread(verify_target, info, relayed.sparse.path)
            await asyncio.to_thread(self._publish, verified)
        except FieldrelayError as error:  # it stays a sparse file, which serves as well; the next start tries again
            _log.error("relay: %s is complete but was not published: %s (%s)", info.path, error, error.code)
            if not isinstance(error, TrustError) or not await relayed.recheck(_at_once):
                self._unpublished.add(info.sha256)
            return  # what has rotted since it came is missing again: whoever needs it fetches it, and comes here again
        _log.info("relay: %s of %s is complete", info.path, info.repository)
        del self._files[info.sha256]
        await relayed.close()
        try:
            await asyncio.to_thread(relayed.sparse.remove_bitmap)
        except StoreError as error:
            _log.warning("relay: a bitmap that nobody needs stays behind: %s (%s)", error, error.code)
