"""The agent: carries one update at a time through its states, whatever interrupts it.

1. A state is in the journal before anything is done in it (`_enter`); after a restart `RESUME` says where to continue.
2. The network may be away for days: in FETCHING the order is put aside, in WRITING the agent waits; neither counts as a try.
3. A cancellation, or an order that replaces this one, is honoured until the trial is opened, and answered after that.
4. An order below the highest fencing token ever seen is refused; one that was carried out already is only reported again.
5. Whatever cannot go on leads where `TRIES` says: before the trial to a report, after it back to the previous version.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from node_agent.decisions import (
    answer,
    answered_by,
    begun,
    continued,
    ended_by,
    fenced,
    given_up,
    put_aside,
    report_of,
    rolled_back,
    worth_another_try,
)
from node_agent.drivers.driver import Restart
from node_agent.hooks import Moment
from node_agent.record import Entry, entry_from_mapping, entry_to_mapping
from node_agent.reports import Reports, report_id
from node_agent.source import Cancel, Offer, Source
from node_agent.states import TRIES, Outcome, Running, State
from node_agent.steps import Steps, environment
from update.errors import FieldrelayError, StateError, WireError
from update.store.journal import Journal

_LOG = logging.getLogger(__name__)


class Turn(StrEnum):
    """How a turn of the agent ended."""

    NOTHING = "nothing"  # there is no order, or the order was carried out before
    WAITING = "waiting"  # the network is away, or installing is not yet allowed: try again later
    ENDED = "ended"  # an update ended; `Agent.entry` says how
    EXIT = "exit"  # the process must end with RESTART_STATUS
    GOING_DOWN = "going-down"  # the machine restarts: start nothing new


Watch = Callable[[Entry, int, int], None]
"""Called with the record, bytes done and bytes in all: for a display. Cheap, and never raises."""


def _unwatched(_entry: Entry, _done: int, _total: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: before the first look at the assigner while bytes move, between two looks, for delivering, between tries."""

    soon_s: float = 1.0
    look_s: float = 15.0
    tell_s: float = 20.0
    retry_s: float = 2.0


class Agent:
    """One device's agent. `node` names it in the ids of reports. The caller holds the agent's lock."""

    def __init__(
        self,
        *,
        node: str,
        journal: Journal,
        steps: Steps,
        source: Source,
        reports: Reports,
        pace: Pace,
        watch: Watch = _unwatched,
    ) -> None:
        self._node = node
        self._journal = journal
        self._steps = steps
        self._source = source
        self._reports = reports
        self._pace = pace
        self._watch = watch
        self._entry = entry_from_mapping(journal.read())
        self._resumed = False
        self._offer: Offer | None = None
        self._moved = (0, 0)

    @property
    def entry(self) -> Entry:
        """The journal's record."""
        return self._entry

    async def turn(self) -> Turn:
        """Continue what the journal holds, or take one order, as far as it goes.

        Errors: `WireError` when the assigner cannot be asked, `StoreError` when the journal cannot be written.
        """
        if not self._resumed:
            await self._resume()
        await self._tell()
        if self._entry.state is State.IDLE and not await self._take(await self._source.next()):
            await self._tell()
            return Turn.NOTHING
        return await self._drive()

    async def roll_back(self, reason: str) -> Turn:
        """Return to the previous version because an operator says so; `StateError`, `RollbackError` where that is not allowed."""
        if not self._resumed:
            await self._resume()
        if self._entry.state is not State.IDLE:
            raise StateError(f"an update is in state {self._entry.state}; let it end, or cancel it, before rolling back")
        self._enter(await self._steps.plan_return(self._entry, reason))
        return await self._drive()

    async def confirm(self) -> Turn:
        """Confirm a version on trial because an operator says so, without its health checks; `StateError` if none is on trial."""
        if not self._resumed:
            await self._resume()
        if self._entry.state is not State.TESTING:
            raise StateError(f"no version is on trial: the agent is in state {self._entry.state}")
        self._enter(replace(self._entry.enter(State.CONFIRMING), message="confirmed by an operator"))
        return await self._drive()

    async def _drive(self) -> Turn:
        """Go from state to state until the update ends or has to wait."""
        while self._entry.state is not State.IDLE:
            try:
                following = await self._step()
            except FieldrelayError as error:
                following = await self._after(error)
            if isinstance(following, Turn):
                await self._tell()
                return following
            self._enter(following)
        await self._tell()
        return Turn.WAITING if self._entry.outcome is None else Turn.ENDED

    async def _step(self) -> Entry | Turn:
        """Do what the state asks for; the record of the state to enter next, or why the turn ends here."""
        entry = self._entry
        following: Entry | Turn
        match entry.state:
            case State.IDLE:
                following = Turn.ENDED
            case State.FETCHING:
                following = await self._fetch()
            case State.WRITING:
                following = await self._beside(self._steps.write(entry, self._progress))
            case State.ACTIVATING:
                following = await self._steps.activate(entry)
            case State.RESTARTING:
                following = await self._follow(await self._steps.restart())
            case State.TESTING:
                following = await self._steps.test(entry)
            case State.CONFIRMING:
                following = await self._steps.confirm(entry)
            case State.REVERTING:
                following = await self._revert()
            case State.REPORTING:
                following = await self._report()
            case _:
                assert_never(entry.state)
        return following

    async def _take(self, order: Offer | Cancel | None) -> bool:
        """Enter FETCHING for an order; False where nothing is to be carried out."""
        match order:
            case None:
                return False
            case Cancel():
                self._queue(answer(self._entry, order))
                return False
            case Offer():
                return self._accept(order)
        assert_never(order)

    def _accept(self, offer: Offer) -> bool:
        last = self._entry
        if (refusal := fenced(last, offer)) is not None:
            self._queue(refusal)
            return False
        if answered_by(last, offer):
            self._queue(replace(last, fence=offer.fence or 0))
            return False
        self._offer = offer
        self._enter(begun(last, offer))
        return True

    async def _fetch(self) -> Entry | Turn:
        if self._entry.tries > TRIES[State.FETCHING].limit:
            return given_up(self._entry)
        if self._offer is None:
            return put_aside(self._entry)
        return await self._beside(self._steps.fetch(self._entry, self._offer, self._progress))

    async def _revert(self) -> Entry | Turn:
        if await self._steps.revert(self._entry) is not Running.TARGET:
            return rolled_back(self._entry)
        return await self._follow(await self._steps.restart())

    async def _follow(self, restart: Restart) -> Entry | Turn:
        match restart:
            case Restart.BY_EXIT:
                return Turn.EXIT
            case Restart.COMMANDED:
                return Turn.GOING_DOWN
            case Restart.DONE:
                return continued(self._entry, await self._steps.look(self._entry))
        assert_never(restart)

    async def _report(self) -> Entry:
        entry = self._entry
        if entry.outcome is Outcome.ROLLED_BACK:
            await self._steps.hooks.run(Moment.AFTER_REVERT, environment(entry))
        self._queue(entry)
        self._steps.content.forget()
        self._offer = None
        return entry.enter(State.IDLE)

    async def _resume(self) -> None:
        """Once after the start: compare the journal with what runs."""
        if self._entry.state is State.IDLE:
            settled = await self._steps.settle(self._entry)
            if settled.state is not State.IDLE:
                self._enter(settled)
        else:
            before = self._entry.state
            following = continued(self._entry, await self._steps.look(self._entry))
            _LOG.info("the journal says %s; continuing with %s", before, following.state)
            if following.state is State.IDLE:
                self._entry = following
            else:
                self._enter(following)
        self._resumed = True

    async def _after(self, error: FieldrelayError) -> Entry | Turn:
        """Where an error leads."""
        entry = self._entry
        _LOG.warning("%s of action %s: %s (%s)", entry.state, entry.action, error, error.code)
        if isinstance(error, WireError) and entry.state is State.FETCHING:
            self._enter(put_aside(entry))
            return Turn.WAITING
        if isinstance(error, WireError) and entry.state is State.WRITING:
            return Turn.WAITING
        if entry.state not in TRIES:
            raise error
        if worth_another_try(entry, error):
            await asyncio.sleep(self._pace.retry_s)
            return entry.again()
        return given_up(entry, error)

    async def _beside(self, work: Coroutine[object, object, Entry]) -> Entry:
        """Do `work`, and beside it tell how far it is and listen for an order that ends it."""
        task = asyncio.create_task(work)
        pause_s = min(self._pace.soon_s, self._pace.look_s)
        try:
            while not (await asyncio.wait({task}, timeout=pause_s))[0]:
                pause_s = self._pace.look_s
                self._queue_progress()
                await self._tell()
                if (ended := await self._heard()) is not None:
                    return ended
            return task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, FieldrelayError):
                await task

    async def _heard(self) -> Entry | None:
        """The end of this update, if the assigner asks for it now."""
        try:
            return ended_by(self._entry, await self._source.next())
        except WireError:
            return None

    def _enter(self, entry: Entry) -> None:
        """Write the journal, then act: rule 1."""
        if entry.state is not self._entry.state:
            _LOG.info("%s -> %s (action %s)", self._entry.state, entry.state, entry.action)
        self._journal.write(entry_to_mapping(entry))
        self._entry, self._moved = entry, (0, 0)
        self._watch(entry, 0, 0)
        if entry.state not in {State.IDLE, State.REPORTING}:
            self._queue_progress()

    def _progress(self, done: int, total: int) -> None:
        self._moved = (done, total)
        self._watch(self._entry, done, total)

    def _queue_progress(self) -> None:
        entry, (done, total) = self._entry, self._moved
        name = report_id(self._node, entry.action, entry.fence, entry.state, entry.tries, done)
        self._reports.add(replace(report_of(entry, name), done=done, total=total))

    def _queue(self, entry: Entry) -> None:
        """The result of an action, under the same id however often it is queued."""
        name = report_id(self._node, entry.action, entry.fence, "result", entry.cancel)
        self._reports.add(replace(report_of(entry, name), outcome=entry.outcome, answers=entry.cancel))

    async def _tell(self) -> None:
        """Deliver what waits; what cannot be delivered now stays."""
        try:
            async with asyncio.timeout(self._pace.tell_s):
                await self._reports.deliver(self._source.report)
        except WireError as error:
            _LOG.info("%s reports wait for the assigner: %s", len(self._reports.waiting), error)
        except TimeoutError:
            _LOG.info("%s reports wait for the assigner: no answer within %g s", len(self._reports.waiting), self._pace.tell_s)
