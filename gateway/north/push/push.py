"""One upload after the other, from its first byte until every node has ended, and what its master hears meanwhile.

    START    the upload has begun
    RUN      it is proved and ordered; then `step` and `message` for each node
    SUCCESS  every node has been verified to run it
    FAILURE  anything else, with the reason in a message before it: refused, one node failed, or `result_within_s` has passed

1. The master is told an end exactly once; what is still open when it is told a failure for lack of time is withdrawn.
2. One upload at a time: a status does not name what it is about. Another one is refused before its body (`BusyError`), which
   the handler takes for a failure at once.
3. `all_or_none`: when one node has failed, what is open for the others is withdrawn, and once they have answered, who has
   confirmed already is ordered what it ran before. The end is told when that has ended, too; the failure says who went back and
   who stays, and why. Without it, the others run to their own ends. One decision for many devices, taken before any of them
   confirms, is what release plans are for.
4. A master that leaves changes nothing: what it has pushed is carried out. After a restart of the gateway, too, but nobody waits
   for it any more; whoever pushes the same again joins what is under way (`push.orders`).
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiohttp import web

from gateway.database.engine import Database
from gateway.fleet.catalogue import AssignerState
from gateway.north.push.messages import Level, Status, step, text
from gateway.north.push.orders import Member, Orders, Standing
from gateway.north.push.receiving import Receiving
from gateway.north.push.watchers import PeerOf, Watchers
from gateway.north.vouched import Obtained
from update.errors import BusyError, FieldrelayError, StateError

_LOG = logging.getLogger(__name__)
_GATHER_S = 0.2


class Listener(Protocol):
    """Where masters find the gateway: `gateway.north.push.door`."""

    async def open(self) -> None:
        """Begin to listen."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


@dataclass(frozen=True, slots=True)
class Manner:
    """How results are waited for. `look_s`: at least so often, whatever is heard."""

    all_or_none: bool
    result_within_s: float
    look_s: float = 15.0


@dataclass(slots=True)
class _Upload:
    """What is under way; `obtained` once it is here."""

    peer: str
    id: str
    obtained: Obtained | None = None


class Push:
    """The uploads of one listener."""

    def __init__(
        self,
        assigner: str,
        receiving: Receiving,
        orders: Orders,
        watchers: Watchers,
        *,
        database: Database,
        manner: Manner,
        peer_of: PeerOf,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.assigner = assigner
        self._receiving = receiving
        self._orders = orders
        self._watchers = watchers
        self._manner = manner
        self._peer_of = peer_of
        self._now = now
        self._clock = clock
        self._arrived: asyncio.Queue[_Upload] = asyncio.Queue()
        self._upload: _Upload | None = None
        self._contact: datetime | None = None
        self._trouble: tuple[str, str] = ("", "")
        self._changed = asyncio.Event()
        database.watch(self._changed.set)

    async def upload(self, request: web.Request) -> web.Response:
        """Take an upload; answered when it is proved, before any node has it. Errors: `BusyError`, those of `Receiving`."""
        peer = self._peer_of(request)
        if self._upload is not None:
            raise BusyError(f"an upload of {self._upload.peer} is under way until its nodes have ended; push again then")
        upload = self._upload = _Upload(peer, str(uuid.uuid4()))
        self._contact = self._now()
        try:
            await self._watchers.tell_status(peer, Status.START)
            upload.obtained = await self._receiving.receive(request)
        finally:
            if upload.obtained is None:
                self._upload = None
                self._watchers.forget(peer)
        self._arrived.put_nowait(upload)
        release = upload.obtained.release
        return web.Response(text=f"Ok, {release.path} - {release.length} bytes.\n")

    async def refused(self, request: web.Request, error: FieldrelayError) -> None:
        """An upload was refused, whatever for: its master is told, and waits no longer."""
        peer = self._peer_of(request)
        self._note(peer, str(error), error.code)
        await self._watchers.tell_refusal(peer, f"{error} ({error.code})")

    async def run(self, listener: Listener) -> None:
        """Listen, and see every upload through, for ever."""
        await listener.open()
        try:
            while True:
                upload = await self._arrived.get()
                try:
                    await self._see_through(upload)
                except FieldrelayError as error:
                    await self._failed(upload, str(error), error.code)
                finally:
                    self._upload = None
        finally:
            await self._watchers.close()
            await listener.close()

    async def state(self) -> AssignerState:
        """How this listener stands."""
        code, problem = self._trouble
        return AssignerState(self.assigner, len(await self._orders.nodes()), self._contact, 0, code, problem)

    async def _see_through(self, upload: _Upload) -> None:
        if upload.obtained is None:
            raise StateError("an upload is seen through once it is here")
        members = await self._orders.order(upload.obtained, upload.id, upload.peer)
        await self._watchers.tell_status(upload.peer, Status.RUN)
        standings = await self._await_ends(upload, members)
        failures = [f"{each.node}: {each.failure or 'no result yet'}" for each in standings if each.failure or not each.over]
        if failures:
            well = [member for member, each in zip(members, standings, strict=True) if each.over and not each.failure]
            await self._failed(upload, "; ".join([*failures, *await self._after_failure(upload, well)]))
            return
        self._trouble = ("", "")
        await self._watchers.tell_status(upload.peer, Status.SUCCESS)

    async def _after_failure(self, upload: _Upload, well: Sequence[Member]) -> list[str]:
        """What becomes of the nodes that run it although others failed, in words."""
        taken_back: dict[str, Standing] = {}
        if self._manner.all_or_none and well:
            back = await self._orders.take_back(well, upload.peer, "all or none: the upload failed on another node")
            taken_back = {each.node: each for each in await self._await_ends(upload, back)}
        gone = [node for node, each in taken_back.items() if each.over and not each.failure]
        words = [f"taken back on {', '.join(gone)}"] if gone else []
        stays = [each.node for each in well if each.node not in gone]
        words += [f"it runs on {', '.join(stays)} and stays there"] if stays else []
        return words + [f"{node} could not be taken back: {each.failure}" for node, each in taken_back.items() if each.failure]

    async def _await_ends(self, upload: _Upload, members: Sequence[Member]) -> tuple[Standing, ...]:
        """How all stand when all have ended, or the time is up."""
        until, shown, let_go = self._clock() + self._manner.result_within_s, dict[str, Standing](), False
        while True:
            self._changed.clear()
            standings = await self._orders.look(members)
            await self._show(upload.peer, standings, shown)
            if all(each.over for each in standings):
                return standings
            failed = [each.node for each in standings if each.failure]
            if failed and self._manner.all_or_none and not let_go:
                let_go = True
                await self._orders.let_go(members, f"all or none: the upload failed on {', '.join(failed)}")
            left = until - self._clock()
            if left <= 0:
                await self._orders.let_go(members, f"no result within {self._manner.result_within_s:g} s of the upload")
                return await self._orders.look(members)
            await self._wait(min(left, self._manner.look_s))

    async def _wait(self, most_s: float) -> None:
        """Until something has changed; what changes together is looked at together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._changed.wait()
                await asyncio.sleep(_GATHER_S)

    async def _show(self, peer: str, standings: Sequence[Standing], shown: dict[str, Standing]) -> None:
        """Tell what is new of each node."""
        for number, each in enumerate(standings, 1):
            if shown.get(each.node) != each:
                shown[each.node] = each
                level = Level.ERROR if each.failure else Level.INFO
                await self._watchers.tell(peer, step(number, len(standings), each.node, each.percent))
                await self._watchers.tell(peer, text(level, f"{each.node}: {each.failure or each.words}"))

    async def _failed(self, upload: _Upload, reason: str, code: str = "") -> None:
        self._note(upload.peer, reason, code)
        await self._watchers.tell(upload.peer, text(Level.ERROR, f"{reason} ({code})" if code else reason))
        await self._watchers.tell_status(upload.peer, Status.FAILURE)

    def _note(self, peer: str, reason: str, code: str) -> None:
        self._trouble = (code, reason)
        _LOG.warning("%s: the upload of %s failed: %s%s", self.assigner, peer, reason, f" ({code})" if code else "")
