"""The orders of one attached device, and its reports: the same judgement as of any node, without a network between.

- The gateway itself takes the place of the device's certificate: its agent runs here, so what it says to have seen running is
  believed without a signature. Everything else is judged as of a node: an action ends well only when it runs.
- A device that is told something new (an order, a cancellation, a decision) hears of it at once, not at its next look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from gateway.database.records import Action, ActionState, ClientKind, Release
from gateway.fleet.attached.crossing import Crossing
from gateway.fleet.fitness import Offering
from gateway.fleet.hearing import heard
from gateway.fleet.progress import Contact, Progress
from gateway.fleet.windows import allowed
from node_agent.record import Report
from node_agent.source import Cancel, Offer, feedback_of
from update.digest import digest_of
from update.errors import DeviceError, NotFoundError, WireError
from update.wire.assignment import Commit, Lost
from update.wire.attributes import NodeFacts
from update.wire.ddi import Handling, Mode

ATTACHED: Final = digest_of(b"a device that is attached to the gateway")
"""What stands for the certificate of an attached device."""
_SPACING_S: Final = 0.1
_LOG = logging.getLogger(__name__)


class Desk:
    """What the gateway knows of one device; used on its loop. `news` is set whenever something was written.

    Errors: those of `Progress`.
    """

    def __init__(self, node: str, progress: Progress, offering: Offering, now: Callable[[], datetime]) -> None:
        self._node = node
        self._progress = progress
        self._offering = offering
        self._now = now
        self._told: object = None
        self.news = asyncio.Event()

    async def next(self) -> Offer | Cancel | None:
        """The one order that counts now."""
        contact = await self._progress.contact(self._node, ATTACHED, ClientKind.AGENT)
        self._told, action = _sign(contact), contact.action
        if action is None or action.state is ActionState.WAITING:
            return None
        if action.state is ActionState.CANCELLING:
            return Cancel(action=str(action.id), id=str(action.id))
        release = await self._offering.offered(contact.node, action) or (None if action.offered is None else action.release)
        if release is None:
            return None
        await self._progress.offer(self._node, action.id)
        return self._offer(action, release)

    async def hear(self, report: Report) -> None:
        """A report about an action, or about its cancellation."""
        said = feedback_of(report)
        assert said.fieldrelay is not None
        told = heard(said.status, said.fieldrelay, proven=True)
        if report.answers:
            await self._progress.cancel_feedback(self._node, int(report.answers), told)
        else:
            await self._progress.feedback(self._node, int(report.action), told)

    async def describe(self, facts: NodeFacts) -> None:
        """What the device is and runs."""
        await self._progress.describe(self._node, ATTACHED, Mode.MERGE, facts.attributes())

    async def wait(self, longest_s: float) -> None:
        """Until `next` may say something else than last time, or so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                while True:
                    self.news.clear()
                    if _sign(await self._progress.standing(self._node)) != self._told:
                        return
                    await self.news.wait()
                    await asyncio.sleep(_SPACING_S)

    def _offer(self, action: Action, release: Release) -> Offer:
        hold_s, lost = (0, Lost.REVERT) if action.hold is None else (action.hold.hold_s, Lost(action.hold.lost))
        return Offer(
            action=str(action.id),
            fence=action.fence,
            repository=release.repository,
            target=release.path,
            sha256=release.sha256,
            length=release.length,
            may_write=allowed(action.terms, self._now()).update is not Handling.SKIP,
            commit=Commit(action.commit),
            hold_s=hold_s,
            lost=lost,
        )


class DeskSource:
    """`node_agent.source.Source` in the device's thread; `facts` asks the device what it runs."""

    def __init__(self, crossing: Crossing, desk: Desk, facts: Callable[[], Awaitable[NodeFacts]]) -> None:
        self._crossing = crossing
        self._desk = desk
        self._facts = facts
        self._may_differ = True

    async def next(self) -> Offer | Cancel | None:
        """The one order that counts now."""
        return await self._crossing.call(self._desk.next)

    async def report(self, report: Report) -> None:
        """Tell; `NotFoundError` for what was begun without an order."""
        self._may_differ = self._may_differ or report.final
        if not (report.answers or report.action).isdecimal():
            raise NotFoundError(f"action {report.action} was begun without an order of the gateway: it has no number for it")
        await self._crossing.call(lambda: self._desk.hear(report))

    async def describe(self) -> None:
        """Tell what the device runs, if that may be something else: after a start, and after an end.

        Asks the device, so not while a step of the agent does. What cannot be asked or told now is told another time.
        """
        if not self._may_differ:
            return
        try:
            facts = await self._facts()
            await self._crossing.call(lambda: self._desk.describe(facts))
        except (DeviceError, WireError) as error:
            _LOG.warning("cannot tell what runs on an attached device: %s (%s)", error, error.code)
            return
        self._may_differ = False


def _sign(contact: Contact) -> object:
    """What makes an order another one."""
    action = contact.action
    return None if action is None else (action.id, action.state, action.fence, action.commit, action.hold, action.terms)
