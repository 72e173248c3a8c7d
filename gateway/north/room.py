"""How much content may be kept: a quota of bytes, and bytes of the disk that stay free in any case.

What is short of room takes the place of what was used longest ago. Some content never goes: what is pinned, what an open
action wants, what a repository lists and is mirrored as a whole (the next refresh would fetch it again), and what is being
fetched, relayed or made at this moment. Everything else is a cache: releases that are no longer listed, images that the
relay can fetch again by chunks, and pair patches. It stays as long as there is room. Where not even that suffices, what
needs room is refused by name before it is fetched, and nothing was removed.

Until a repository was shown for the first time since the start, nothing of it goes: what it lists is not known.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace

from gateway.status import StoreState
from update.digest import Digest
from update.errors import NoSpaceError
from update.store.quota import Held, choose_evictions
from update.store.store import Store
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

GRANT_BYTES = 16 << 20
"""The relay's growth is measured about this often, and more often where room is short: by so much the quota may be missed."""
_CAUTION = 4
_BLOCK_BYTES = 512  # st_blocks, stat(2)
_PATCH_NAME = re.compile(r"[0-9a-f.]{130}[a-z]+-[0-9]+\.([0-9a-f]{64})", re.ASCII)
_SPARSE_NAME = re.compile(r"([0-9a-f]{64})\.zck", re.ASCII)

Wanted = Callable[[], Awaitable[Collection[Digest]]]
"""What open actions want."""
Evict = Callable[[Digest], Awaitable[bool]]
"""Removes a partly filled file; False if it is in use."""
Forget = Callable[[Digest], None]
"""Lets go of descriptors of content that goes."""


async def _nothing() -> Collection[Digest]:
    """There are no actions."""
    return ()


async def _in_use(_digest: Digest) -> bool:
    """There is no relay that could tell."""
    return False


class Room:
    """The room in one store. `quota_bytes` 0: as much as fits beside `reserve_bytes`. Used on one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        quota_bytes: int,
        reserve_bytes: int,
        repositories: Collection[str] = (),
        wanted: Wanted = _nothing,
    ) -> None:
        self.store = store
        self.quota_bytes = quota_bytes
        self._reserve_bytes = reserve_bytes
        self._unknown = set(repositories)
        self._wanted = wanted
        self._kept: dict[str, frozenset[Digest]] = {}
        self._arriving: dict[str, set[Digest]] = {}
        self._evict_sparse: Evict = _in_use
        self._forget: Forget = lambda _digest: None
        self._deciding = asyncio.Lock()
        self._granted_bytes = 0
        self._damaged = 0

    def let_to(self, evict: Evict, forget: Forget) -> None:
        """Name who holds content open: the relays, which come after the room, and the files that are being served."""
        self._evict_sparse, self._forget = evict, forget

    def shown(self, repository: str, listed: Collection[TargetInfo]) -> None:
        """Note what a repository lists from now on: of that, whatever is not relayed is kept."""
        self._kept[repository] = frozenset(info.sha256 for info in listed if info.custom.zck_header is None)
        self._arriving.pop(repository, None)
        self._unknown.discard(repository)

    def used_bytes(self) -> int:
        """What complete content and partly filled files really take; walks the store."""
        return sum(held.size_bytes for held in self._held())

    def free_bytes(self) -> int:
        """What the disk has left, the reserve included."""
        return self.store.free_bytes()

    def note_damage(self, pieces: int) -> None:
        """Count contents and chunks that were found damaged on disk."""
        self._damaged += pieces

    async def state(self) -> StoreState:
        """How full the store is; walks it in a thread."""
        used = await asyncio.to_thread(self.used_bytes)
        return StoreState(used, self.free_bytes(), self.quota_bytes, self._damaged)

    async def admit(self, info: TargetInfo) -> None:
        """Make room for a whole target that is fetched now; `NoSpaceError` if there is none."""
        self._arriving.setdefault(info.repository, set()).add(info.sha256)
        async with self._deciding:
            await self._make(info, info.length)
            self._granted_bytes = 0

    async def grow(self, info: TargetInfo, needed_bytes: int) -> None:
        """Make room for more chunks of a relayed target; `NoSpaceError` if there is none."""
        async with self._deciding:
            if needed_bytes > self._granted_bytes:
                await self._make(info, needed_bytes)
                left = await asyncio.to_thread(self._left_bytes) - needed_bytes
                self._granted_bytes = needed_bytes + min(GRANT_BYTES, max(0, left) // _CAUTION)
            self._granted_bytes -= needed_bytes

    async def spare(self, needed_bytes: int) -> bool:
        """Take room for bytes that nobody has asked for: only where nothing has to go for them."""
        async with self._deciding:
            if needed_bytes > self._granted_bytes:
                left = await asyncio.to_thread(self._left_bytes) - needed_bytes
                if left < 0:
                    return False
                self._granted_bytes = needed_bytes + min(GRANT_BYTES, left // _CAUTION)
            self._granted_bytes -= needed_bytes
        return True

    async def _make(self, info: TargetInfo, needed_bytes: int) -> None:
        if needed_bytes <= await asyncio.to_thread(self._left_bytes):
            return
        wanted = frozenset(await self._wanted())
        await asyncio.to_thread(self._sweep, wanted)
        in_use: set[Digest] = set()
        while True:  # each round removes candidates, or sets some aside
            chosen = await asyncio.to_thread(self._choose, info, needed_bytes, wanted | in_use)
            refused = {each.sha256 for each in chosen if not await self._evict(each)}
            if not refused:
                return
            in_use |= refused

    async def _evict(self, held: Held) -> bool:
        if held.file.parent == self.store.layout.sparse:
            gone = await self._evict_sparse(held.sha256)
        else:
            await asyncio.to_thread(self.store.remove, held)
            self._forget(held.sha256)
            gone = True
        if gone:
            _log.info("room: removed %s of %d bytes, used longest ago", held.file.name, held.size_bytes)
        return gone

    def _sweep(self, wanted: frozenset[Digest]) -> None:
        """Remove what serves nobody: damaged content, and the beginnings of what no repository lists."""
        self.store.empty_quarantine()
        if not self._unknown:
            self.store.sweep_staging(wanted.union(*self._kept.values(), *self._arriving.values()))

    def _choose(self, info: TargetInfo, needed_bytes: int, spared: frozenset[Digest]) -> tuple[Held, ...]:
        spared = spared.union((info.sha256,), *self._kept.values(), *self._arriving.values())
        held = [replace(each, pinned=each.pinned or self._is_spared(each, spared)) for each in self._held()]
        quota, free = self.quota_bytes or sys.maxsize, self.free_bytes() - self._reserve_bytes
        try:
            return choose_evictions(held, needed_bytes=needed_bytes, quota_bytes=quota, free_bytes=free)
        except NoSpaceError as error:
            used, kept = sum(each.size_bytes for each in held), sum(each.size_bytes for each in held if each.pinned)
            limits = f"{max(0, free)} are free beside the reserve of {self._reserve_bytes} (store.reserve_bytes)"
            if self.quota_bytes:
                limits += f", {used} of the quota of {self.quota_bytes} are used (store.quota_bytes)"
            raise NoSpaceError(
                f"{info.path} needs {needed_bytes} bytes; {limits}, and {kept} bytes must stay because they are listed, wanted, "
                "pinned or in use: enlarge the disk, raise the quota, or mirror less (repository.hardware)"
            ) from error

    def _is_spared(self, held: Held, spared: frozenset[Digest]) -> bool:
        return held.sha256 in spared or held.repository in self._unknown

    def _left_bytes(self) -> int:
        """Room that nothing has to go for; negative where the reserve or the quota are broken into."""
        left = self.free_bytes() - self._reserve_bytes
        return min(left, self.quota_bytes - self.used_bytes()) if self.quota_bytes else left

    def _held(self) -> Iterator[Held]:
        """Complete content, partly filled files by what they really take, and pair patches."""
        yield from self._patches()
        pinned = self.store.pins().keys()
        for file in self.store.layout.sparse.iterdir():
            with suppress(FileNotFoundError):  # published a moment ago, and then counted below
                status, match = file.stat(), _SPARSE_NAME.fullmatch(file.name)
                digest = Digest(match[1]) if match else None
                size_bytes = status.st_blocks * _BLOCK_BYTES
                spared = digest is None or digest in pinned
                yield Held("", file, digest or Digest("0" * 64), size_bytes, status.st_mtime, spared)
        yield from self.store.held()

    def _patches(self) -> Iterator[Held]:
        """Pair patches; one that is being made has no digest yet, and is spared."""
        for file in self.store.layout.pairs.iterdir():
            with suppress(FileNotFoundError):  # given its name a moment ago
                status, match = file.stat(), _PATCH_NAME.fullmatch(file.name)
                name = match[1] if match else "0" * 64
                yield Held("", file, Digest(name), status.st_size, status.st_mtime, match is None)
