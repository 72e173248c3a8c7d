"""Disks rot unseen: what is stored is read again, slowly, before somebody needs it.

One round visits all complete content in the order of its digests, then the chunks of the files that are being relayed and
were read by this process already (others are read at their first use anyway). What no longer matches goes to quarantine, or
counts as a missing chunk, and so is fetched again; it is logged and counted. A round that a restart interrupts goes on where
it was. The reading is paced, so that nodes and the line do not notice.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.south.relays import Relays
from update.digest import Digest
from update.errors import CorruptError, StoreError
from update.store.journal import Journal
from update.store.quota import Held
from update.store.store import Store

_log = logging.getLogger(__name__)

BYTES_PER_S = 8 << 20
BLOCK_BYTES = 1 << 20
MAX_NAP_S = 6 * 3600.0
"""After so long it is looked whether a round is due; the clock may have been set meanwhile."""


class Scrub:
    """`journal` keeps how far the round is. `now` gives seconds since the epoch, `forget` lets go of open content.

    `report` is told how many pieces were found damaged.
    """

    def __init__(
        self,
        store: Store,
        relays: Relays,
        journal: Journal,
        *,
        every_s: float,
        now: Callable[[], float],
        forget: Callable[[Digest], None],
        report: Callable[[int], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._relays = relays
        self._journal = journal
        self._every_s = every_s
        self._now = now
        self._forget = forget
        self._report = report
        self._sleep = sleep
        self.damaged = 0
        """Contents and chunks that were found damaged since the start."""

    async def run(self) -> None:
        """One round after the other, until cancelled; none if they are 0 seconds apart."""
        if not self._every_s:
            await asyncio.Event().wait()
        while True:
            due_s = await asyncio.to_thread(self._due_s)
            try:
                if due_s <= 0:
                    await self.round()
            except StoreError as error:  # a disk that is full or broken is told of; reading goes on later
                _log.error("scrub: %s (%s)", error, error.code)
                due_s = MAX_NAP_S
            await self._sleep(max(0.0, min(due_s, MAX_NAP_S)))

    async def round(self) -> None:
        """Check everything once, from where the last round was left."""
        began, after = await asyncio.to_thread(self._position)
        for held in await asyncio.to_thread(self._rest, after):
            await self._check(held)
            await asyncio.to_thread(self._journal.write, {"began": began, "after": held.sha256})
        self._found(await self._relays.recheck(self._pace))
        await asyncio.to_thread(self._journal.write, {"began": began, "after": "", "ended": True})
        _log.info("scrub: everything was read; %d damaged pieces since the start", self.damaged)

    async def _check(self, held: Held) -> None:
        if await self._matches(held.file, held.sha256):
            return
        self._found(1)
        _log.error("scrub: %s is damaged on disk; it is in quarantine and will be fetched again", held.file)
        await asyncio.to_thread(self._store.set_aside, held)
        self._forget(held.sha256)

    def _found(self, pieces: int) -> None:
        self.damaged += pieces
        self._report(pieces)

    async def _matches(self, file: Path, sha256: Digest) -> bool:
        """Whether a file still has its digest; what was removed meanwhile is no damage."""
        hasher, offset = hashlib.sha256(), 0
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError as error:
            _log.warning("scrub: %s cannot be opened: %s", file, error.strerror or error)
            return False
        try:
            while block := await asyncio.to_thread(os.pread, descriptor, BLOCK_BYTES, offset):
                await asyncio.to_thread(hasher.update, block)
                offset += len(block)
                await self._pace(len(block))
        except OSError as error:  # a bad sector
            _log.warning("scrub: %s cannot be read: %s", file, error.strerror or error)
            return False
        finally:
            os.close(descriptor)
        return hasher.hexdigest() == sha256

    async def _pace(self, read_bytes: int) -> None:
        await self._sleep(read_bytes / BYTES_PER_S)

    def _rest(self, after: str) -> list[Held]:
        return sorted((held for held in self._store.held() if held.sha256 > after), key=lambda held: held.sha256)

    def _due_s(self) -> float:
        """Seconds until the next round; what is under way is due, and so is a time that lies in the future."""
        began, ended = self._read()
        age_s = self._now() - began
        return self._every_s - age_s if ended and 0 <= age_s < self._every_s else 0.0

    def _position(self) -> tuple[float, str]:
        """When the round began that is under way, and the last digest that it has checked."""
        began, ended = self._read()
        body = self._journal_body()
        after = body.get("after")
        return (self._now(), "") if ended or not began else (began, after if isinstance(after, str) else "")

    def _read(self) -> tuple[float, bool]:
        body = self._journal_body()
        began = body.get("began")
        return (float(began), body.get("ended") is True) if isinstance(began, int | float) else (0.0, False)

    def _journal_body(self) -> dict[str, object]:
        try:
            return dict(self._journal.read() or {})
        except CorruptError:  # it costs a round
            return {}
