"""The agent: carries one update at a time through its states, whatever interrupts it.

1. A state is in the journal before anything is done in it (`_enter`); after a restart `RESUME` says where to continue.
2. The network may be away for days: in FETCHING the order is put aside, in WRITING the agent waits; neither counts as a try.
3. A cancellation, or an order that replaces this one, is honoured until the trial is opened, and answered after that; a trial
   whose end is not decided yet, because others take part, may be cancelled or aborted all the time.
4. An order below the highest fencing token ever seen is refused; one that was carried out already is only reported again.
   A decision about several devices (`Offer.commit`) is taken in at every moment at which the assigner is asked, and
   written down before it is followed; `node_agent.decisions.heard` says what an order changes.
5. Whatever cannot go on leads where `TRIES` says: before the trial to a report, after it back to the previous version.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from node_agent.countdown import Countdown
from node_agent.decisions import (
    aborted,
    answer,
    answered_by,
    begun,
    carried,
    continued,
    fenced,
    given_up,
    heard,
    is_bound,
    is_word_of,
    kept_out,
    lost,
    objection,
    put_aside,
    rolled_back,
    taken_back,
    waits_for_all,
    well,
    worth_another_try,
)
from node_agent.drivers.driver import Restart
from node_agent.hooks import Moment
from node_agent.record import Entry, entry_from_mapping, entry_to_mapping, journal_version
from node_agent.reports import Reports
from node_agent.source import Cancel, Offer, Source
from node_agent.states import TRIES, Outcome, Running, State
from node_agent.steps import Steps, environment
from node_agent.telling import NOTHING, Note, Telling, kept_on_trial
from update.errors import FieldrelayError, InterlockError, StateError, WireError
from update.store.journal import Journal
from update.wire.assignment import Commit

_LOG = logging.getLogger(__name__)


class Turn(StrEnum):
    """How a turn of the agent ended."""

    NOTHING = "nothing"  # there is no order, or the order was carried out before
    WAITING = "waiting"  # the network is away, or installing is not yet allowed: try again later
    HELD = "held"  # a decision about several devices is waited for: ask again soon
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
        countdown: Countdown | None = None,
    ) -> None:
        self._journal = journal
        self._steps = steps
        self._source = source
        self._pace = pace
        self._watch = watch
        self._countdown = countdown or Countdown()
        self._telling = Telling(node, reports, source, pace.tell_s)
        self._entry = entry_from_mapping(journal.read())
        self._resumed = False
        self._offer: Offer | None = None

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
        await self._telling.deliver()
        if self._entry.state is State.IDLE and not await self._take(await self._source.next()):
            await self._telling.deliver()
            return Turn.NOTHING
        return await self._drive()

    async def roll_back(self, reason: str) -> Turn:
        """Return to the previous version because an operator says so; `StateError`, `RollbackError` where that is not allowed."""
        if not self._resumed:
            await self._resume()
        if self._entry.state in {State.PREPARED, State.HOLDING} and not is_bound(self._entry):
            self._enter(taken_back(self._entry, reason))
            return await self._drive()
        if self._entry.state is not State.IDLE:
            raise StateError(f"an update is in state {self._entry.state}; let it end, or cancel it, before rolling back")
        self._enter(await self._steps.plan_return(self._entry, reason))
        return await self._drive()

    async def confirm(self) -> Turn:
        """Confirm a version on trial because an operator says so, without its health checks; `StateError` if none is on trial."""
        if not self._resumed:
            await self._resume()
        if self._entry.state is not State.IDLE and self._entry.together and not is_bound(self._entry):
            raise StateError("several devices are updated together, and only the gateway decides for all of them")
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
                await self._telling.deliver()
                return following
            self._enter(following)
        await self._telling.deliver()
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
            case State.PREPARED:
                following = await self._stay_prepared()
            case State.ACTIVATING:
                following = await self._locked() or await self._steps.activate(entry)
            case State.RESTARTING:
                following = await self._restart()
            case State.TESTING:
                following = await self._test()
            case State.HOLDING:
                following = await self._hold()
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
        if isinstance(order, Offer):
            return self._accept(order)
        if order is not None:
            self._telling.result(answer(self._entry, order))
        return False

    def _accept(self, offer: Offer) -> bool:
        last = self._entry
        if (refusal := fenced(last, offer)) is not None:
            self._telling.result(refusal)
            return False
        if answered_by(last, offer):
            self._telling.result(replace(last, fence=offer.fence or 0))
            return False
        if offer.commit is Commit.ABORT and not (last.action == offer.action and is_bound(last)):
            self._amend(aborted(last, offer))
            self._telling.result(self._entry)
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

    async def _stay_prepared(self) -> Entry | Turn:
        """Written; until it is decided that all devices of this update may go on."""
        following = await self._ask() if self._entry.commit is Commit.PREPARE else self._entry
        if following.state is not State.PREPARED or following.commit is Commit.PREPARE:
            return following if following.state is not State.PREPARED else Turn.HELD
        self._steps.require_hold(following)
        return following.enter(State.ACTIVATING)

    async def _test(self) -> Entry:
        """What follows; while a decision about several devices is due it is listened for: an abort ends the test."""
        work = self._steps.test(self._entry)
        tested = await (self._beside(work) if waits_for_all(self._entry) else work)
        return well(tested, self._countdown.begin(tested.hold_s)) if tested.state is State.TESTING else tested

    async def _hold(self) -> Entry | Turn:
        """On trial, until it is decided for all devices. Asked is only what was just found well: to be here says so."""
        await self._steps.test(self._entry)
        following = await self._ask()
        if following.state is not State.HOLDING:
            return following
        if following.commit is Commit.COMMIT:
            return following.enter(State.TESTING)
        if not self._countdown.is_over(following.hold_s, following.hold_until):
            return Turn.HELD
        if (back := lost(following)) is not None:
            return back
        self._telling.remark(following, kept_on_trial(following))
        return Turn.HELD

    async def _revert(self) -> Entry | Turn:
        if self._steps.interlocks.waiting and (waiting := await self._locked()) is not None:
            return waiting
        if await self._steps.revert(self._entry) is not Running.TARGET:
            return rolled_back(self._entry)
        return await self._restart()

    async def _restart(self) -> Entry | Turn:
        return await self._locked() or await self._follow(await self._steps.restart())

    async def _locked(self) -> Entry | Turn | None:
        """None where every interlock is open right now; else a wait, or what the wait comes to."""
        interlocks = self._steps.interlocks
        told = {**environment(self._entry), "FIELDRELAY_STATE": self._entry.state}
        while (shut := await interlocks.shut(told)) is None:
            if not interlocks.waiting:
                return None
            interlocks.end()
            self._amend(self._entry.again())  # from here on it is a try; read again, for writing this took its time
        if not interlocks.waiting:
            interlocks.wait()
            self._amend(replace(self._entry, tries=max(0, self._entry.tries - 1)))
        if self._entry.state is not State.REVERTING:
            if (following := await self._ask()).state is not self._entry.state:
                return following
            if interlocks.waited_too_long(shut):
                return kept_out(self._entry, shut.error())
        note = Note(InterlockError.code, interlocks.words(shut))
        self._telling.remark(self._entry, note, f"{note.message}: {shut.reason}")
        return Turn.WAITING

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
        self._telling.result(entry)
        self._steps.forget(entry)
        self._offer = None
        return entry.enter(State.IDLE)

    async def _resume(self) -> None:
        """Once after the start: compare the journal with what runs."""
        if self._entry.state is State.IDLE:
            following = await self._steps.settle(self._entry)
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
        if isinstance(error, WireError) and entry.state in {State.FETCHING, State.WRITING}:
            if entry.state is State.FETCHING:
                self._enter(put_aside(entry))
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
                self._telling.progress(self._entry)
                await self._telling.deliver()
                if (following := await self._ask()).state is not self._entry.state:
                    return following
            return carried(self._entry, task.result())
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, FieldrelayError):
                await task

    async def _ask(self) -> Entry:
        """Ask the assigner; the record of this update after its answer, with what was decided in the journal already.

        In another state than before: that one is to be entered. An assigner that cannot be asked changes nothing.
        """
        try:
            order = await self._source.next()
        except WireError as error:
            _LOG.info("cannot ask for the decision on action %s: %s (%s)", self._entry.action, error, error.code)
            return self._entry
        if (against := objection(self._entry, order)) is not None:
            self._telling.remark(self._entry, Note(against.code, str(against)))
        following = heard(self._entry, order)
        if following.state is not self._entry.state:
            return following
        if is_word_of(following, order):
            self._telling.note = NOTHING
            if following.state is State.HOLDING:
                following = replace(following, hold_until=self._countdown.begin(following.hold_s))
        self._amend(following)
        return following

    def _enter(self, entry: Entry) -> None:
        """Write the journal, then act: rule 1."""
        if entry.state is not self._entry.state:
            _LOG.info("%s -> %s (action %s)", self._entry.state, entry.state, entry.action)
            self._telling.note = NOTHING
            self._steps.interlocks.end()
        self._journal.write(entry_to_mapping(entry), version=journal_version(entry))
        self._entry = entry
        self._telling.entered()
        self._watch(entry, 0, 0)
        if entry.state not in {State.IDLE, State.REPORTING}:
            self._telling.progress(self._entry)

    def _amend(self, entry: Entry) -> None:
        """The same state, with something more known: it is written down before it counts."""
        if entry != self._entry:
            self._journal.write(entry_to_mapping(entry), version=journal_version(entry))
            self._entry = entry

    def _progress(self, done: int, total: int) -> None:
        self._telling.moved(done, total)
        self._watch(self._entry, done, total)
