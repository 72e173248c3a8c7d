"""Images of ordered releases, fetched before nodes ask for them, as the configuration of their repositories says.

Rules:

1. What to fetch, `gateway.fleet.needs` decides. It is asked again when something was ordered or ended, when a node has said
   what it runs, and when a repository lists something else: each of these wakes, none is polled for. Once in `LOOK_S` it is
   asked anyway, for the orders of another gateway on the same database.
2. Whoever waits for chunks comes first: before each piece it is waited until nobody does, though no longer than `YIELD_S`;
   one piece is fetched at a time. It goes through the relay, so it costs no byte twice, is stored and resumed like what nodes
   ask for, uses what is on disk already, and keeps within the limits of the line.
3. What is wanted is pinned, so that nothing else takes its room, as long as the order is open; the pin names the bundle. A
   bundle that cannot be read now keeps its pins.
4. What fails is told by name and tried again after `RETRY_S`; meanwhile the others get on. Where there is no room it is not
   fetched at all.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.fleet.needs import Need, Needs, bytes_of
from gateway.status import PrefetchState
from update.chunks.ranges import Range
from update.digest import Digest
from update.errors import FieldrelayError
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
RETRY_S: Final = 60.0
YIELD_S: Final = 5.0
SETTLE_S: Final = 1.0
"""Orders come in swarms: when everything is done it is looked again only after so long."""
NEWS_S: Final = 10.0
"""While something is fetched it is looked again only after so long."""
_REASON: Final = "prefetch: "


class Chunks(Protocol):
    """The relay, from behind."""

    async def bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        """Have chunks at hand. Errors: `WireError`, `StoreError`, `BundleError`."""
        ...

    async def quiet(self, within_s: float) -> None:
        """Return when nobody waits for chunks, or after so long."""
        ...


class Pins(Protocol):
    """The store, as far as it keeps content from going."""

    def pin(self, sha256: Digest, reason: str) -> None:
        """Keep it. Errors: `StoreError`."""
        ...

    def unpin(self, sha256: Digest, reason: str) -> None:
        """Take one reason away."""
        ...

    def pins(self) -> Mapping[Digest, frozenset[str]]:
        """Everything that is kept, and why."""
        ...


@dataclass(slots=True)
class _Job:
    """How far one image is; after trouble nothing is tried before `due_s`."""

    need: Need
    pieces_done: int = 0
    done_bytes: int = 0
    trouble: FieldrelayError | None = None
    due_s: float = float("-inf")

    @property
    def is_done(self) -> bool:
        """Whether all of it is here."""
        return self.pieces_done == len(self.need.pieces)


class Prefetch:
    """`look` tells what is needed; `changed` is set by whoever knows of news. Used on one event loop.

    `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Needs]],
        chunks: Chunks,
        pins: Pins,
        changed: asyncio.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        settle_s: float = SETTLE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._look = look
        self._chunks = chunks
        self._pins = pins
        self._changed = changed
        self._clock = clock
        self._settle_s = settle_s
        self._retry_s = retry_s
        self._needs = Needs()
        self._pinned: Needs | None = None
        self._jobs: dict[Digest, _Job] = {}
        self._looked_s = 0.0

    async def run(self) -> None:
        """Fetch what is needed, until cancelled."""
        while True:
            self._changed.clear()
            await self._look_again()
            if await self._work():
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, self._retry_s)):
                    await self._changed.wait()
            await asyncio.sleep(self._settle_s)

    def states(self) -> tuple[PrefetchState, ...]:
        """How far everything is."""
        jobs = [_state(job.need, job.done_bytes, job.trouble) for job in self._jobs.values()]
        troubles = [
            PrefetchState(info.repository, info.path, mode, 0, 0, 0, 0, trouble.code, str(trouble))
            for info, mode, trouble in self._needs.troubles
        ]
        return (*jobs, *troubles)

    async def _look_again(self) -> None:
        self._looked_s = self._clock()
        try:
            found = await self._look()
            if found is not self._needs:
                self._take(found)
            if found is not self._pinned:
                await asyncio.to_thread(self._pin, found)
                self._pinned = found
        except FieldrelayError as error:  # the database or the disk: what is known is worked on
            _log.error("prefetch: %s (%s)", error, error.code)

    def _take(self, found: Needs) -> None:
        self._needs = found
        self._jobs = {need.target.sha256: self._job(need) for need in found.images}
        for info, _, trouble in found.troubles:
            _log.warning("prefetch: %s of %s: %s (%s)", info.path, info.repository, trouble, trouble.code)

    def _job(self, need: Need) -> _Job:
        before = self._jobs.get(need.target.sha256)
        if before is None or before.need.pieces != need.pieces:
            return _Job(need)
        before.need = need
        return before

    def _pin(self, needs: Needs) -> None:
        """Rule 3. New pins first, so that nothing is without any."""
        wanted = {(need.target.sha256, _REASON + bundle) for need in needs.images for bundle in need.bundles}
        unread = needs.ordered - {bundle for need in needs.images for bundle in need.bundles}
        kept = {(sha256, reason) for sha256, reasons in self._pins.pins().items() for reason in reasons}
        for sha256, reason in sorted(wanted - kept):
            self._pins.pin(sha256, reason)
        for sha256, reason in sorted(kept - wanted):
            if reason.startswith(_REASON) and reason.removeprefix(_REASON) not in unread:
                self._pins.unpin(sha256, reason)

    async def _work(self) -> bool:
        """Go on with everything that is due; True when there is news before the end."""
        for job in tuple(self._jobs.values()):
            try:
                while not job.is_done and self._clock() >= job.due_s:
                    if self._changed.is_set() and self._clock() - self._looked_s >= NEWS_S:
                        return True
                    await self._fetch(job)
            except FieldrelayError as error:
                _log.warning("prefetch: %s of %s: %s (%s)", job.need.target.path, job.need.target.repository, error, error.code)
                job.trouble, job.due_s = error, self._clock() + self._retry_s
        return False

    async def _fetch(self, job: _Job) -> None:
        """The next piece."""
        piece = job.need.pieces[job.pieces_done]
        await self._chunks.quiet(YIELD_S)
        await self._chunks.bring(job.need.target, piece)
        job.pieces_done += 1
        job.done_bytes += bytes_of(piece)
        job.trouble = None
        if job.is_done:
            _log.info("prefetch: all that is wanted of %s of %s is here", job.need.target.path, job.need.target.repository)


def _state(need: Need, done_bytes: int, trouble: FieldrelayError | None) -> PrefetchState:
    return PrefetchState(
        repository=need.target.repository,
        path=need.target.path,
        mode=need.mode,
        wanted_bytes=need.wanted_bytes,
        done_bytes=done_bytes,
        nodes=need.nodes,
        unknown=need.unknown,
        code=trouble.code if trouble else "",
        problem=str(trouble) if trouble else "",
    )
