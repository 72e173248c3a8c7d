"""What follows in the life of an update: decided from the journal's record and what was heard or seen, without any I/O."""

from dataclasses import replace
from typing import assert_never

from node_agent.record import Entry, Report
from node_agent.source import Cancel, Offer
from node_agent.states import TRANSITIONS, TRIES, Outcome, Running, State, resume
from update.errors import (
    BundleError,
    BusyError,
    ChunkError,
    DeviceError,
    FenceError,
    FieldrelayError,
    InterlockError,
    LostDecisionError,
    ReadBackError,
    RolledBackError,
    TrustError,
)
from update.wire.assignment import Commit, Lost

_MAY_PASS = {
    State.WRITING: (ChunkError, ReadBackError),
    State.CONFIRMING: (DeviceError,),
    State.REVERTING: (DeviceError,),
}
"""Errors that may pass by themselves: the same state is entered again, up to its limit of tries."""


_RANK = {Commit.PREPARE: 0, Commit.HOLD: 1, Commit.COMMIT: 2, Commit.ABORT: 2}
"""A decision is replaced only by one of a higher rank: what was decided for all devices stays decided."""

_BEFORE_TRIAL = {State.FETCHING, State.WRITING, State.PREPARED, State.ACTIVATING}


def begun(last: Entry, offer: Offer) -> Entry:
    """FETCHING for an order. An order that was interrupted before goes on counting its tries, and keeps what was decided."""
    same = last.action == offer.action
    interrupted = last.tries if same and last.outcome is None else 0
    fresh = Entry(action=offer.action, highest_fence=last.highest_fence, held=last.held, commit=offer.commit)
    if same and last.together and (last.outcome is None or last.commit is Commit.COMMIT):
        fresh = replace(fresh, together=True, commit=last.commit)
    fetching = replace(fresh.enter(State.FETCHING), tries=interrupted + 1)
    return _taken(replace(fetching, together=fresh.together or offer.commit is not Commit.COMMIT), offer)


def put_aside(entry: Entry) -> Entry:
    """Back to IDLE without an outcome and without counting a try: the order will be offered again."""
    return replace(entry.enter(State.IDLE), tries=0)


def answered_by(last: Entry, offer: Offer) -> bool:
    """Whether the end of an action answers the same action now: unless it failed and a newer lease orders it again.

    One that was aborted is never begun again, and of one that ended there is nothing to abort.
    """
    if last.action != offer.action or last.outcome is None:
        return False
    if Commit.ABORT in {last.commit, offer.commit}:
        return True
    return offer.fence in {last.fence, None} or last.outcome is Outcome.CONFIRMED


def aborted(last: Entry, offer: Offer) -> Entry:
    """The answer to an abort while nothing is carried out."""
    stopped = Entry(action=offer.action, fence=offer.fence or 0, commit=Commit.ABORT, together=True)
    known = replace(stopped, highest_fence=max(stopped.fence, last.highest_fence), held=last.held)
    return known.ended(Outcome.CANCELLED, message="aborted before it began")


def fenced(last: Entry, offer: Offer) -> Entry | None:
    """The refusal of an order of an older lease than one seen before; None for any other order."""
    if offer.fence is None or offer.fence >= last.highest_fence:
        return None
    error = _older_lease(offer, last.highest_fence)
    return Entry(action=offer.action, fence=offer.fence).ended(Outcome.REFUSED, error.code, str(error))


def _older_lease(offer: Offer, highest: int) -> FenceError:
    return FenceError(
        f"action {offer.action} carries fencing token {offer.fence}, and {highest} was seen already: "
        "it comes from an assigner whose lease is over; order it again under the present one"
    )


def answer(last: Entry, cancel: Cancel) -> Entry:
    """The answer to a cancellation while nothing is carried out: too late for an action that ended, fine for any other."""
    if last.action == cancel.action and last.outcome is not None:
        return replace(last, cancel=cancel.id)
    stopped = Entry(action=cancel.action, fence=last.fence, cancel=cancel.id)
    return stopped.ended(Outcome.CANCELLED, message="cancelled before it began")


def heard(entry: Entry, order: Offer | Cancel | None) -> Entry:
    """What `order` makes of an update under way: its end, its way back, its next decision, or nothing.

    No order at all changes nothing: an assigner that restarts may know nothing for a while. What `objection` says about an
    order holds: then it changes nothing either.
    """
    if order is None or objection(entry, order) is not None:
        return entry
    if isinstance(order, Cancel):
        return _cancelled(entry, order) if order.action == entry.action else entry
    if order.action == entry.action:
        return _decided(_taken(entry, order))
    if entry.state in _BEFORE_TRIAL:
        return entry.enter(State.REPORTING).ended(Outcome.CANCELLED, message=f"replaced by action {order.action}")
    return entry


def objection(entry: Entry, order: Offer | Cancel | None) -> FieldrelayError | None:
    """Why `order` is not followed while the update of `entry` is under way; None where there is nothing to say."""
    if isinstance(order, Offer):
        if order.fence is not None and order.fence < entry.highest_fence:
            return _older_lease(order, entry.highest_fence)
        if order.action != entry.action and (is_bound(entry) or entry.state not in _BEFORE_TRIAL):
            return BusyError(f"action {order.action} waits until action {entry.action} has ended: that one is {entry.state}")
    if isinstance(order, Cancel) and order.action == entry.action and is_bound(entry):
        return BusyError(
            f"action {entry.action} cannot be cancelled: it was decided for all devices that it shall be carried out"
        )
    return None


def is_bound(entry: Entry) -> bool:
    """Whether there is only forward: one decision was made for several devices."""
    return entry.together and entry.commit is Commit.COMMIT


def waits_for_all(entry: Entry) -> bool:
    """Whether the end of this update is not decided yet, and is not this device's own to decide."""
    return entry.together and entry.commit is not Commit.COMMIT


def refound(last: Entry, kept: Entry) -> Entry | None:
    """TESTING for a trial that is not in the journal any more, by the record `kept` of when it was opened.

    It waits for its decision as if nothing had been heard since. None where no trial of several devices was opened, or where the
    journal says how that one ended.
    """
    if not kept.together or (last.action == kept.action and last.outcome is not None):
        return None
    fence = max(last.highest_fence, kept.highest_fence)
    return replace(kept, state=State.IDLE, commit=Commit.HOLD, highest_fence=fence).enter(State.TESTING)


def taken_back(entry: Entry, reason: str) -> Entry:
    """The end, or the way back, of an update that waits for a decision, because an operator at the device says so."""
    if entry.state in _BEFORE_TRIAL:
        return entry.enter(State.REPORTING).ended(Outcome.CANCELLED, RolledBackError.code, reason)
    return _back(entry, reason)


def is_word_of(entry: Entry, order: Offer | Cancel | None) -> bool:
    """Whether `order` shows that the assigner of this update is there and knows of it."""
    return order is not None and order.action == entry.action and objection(entry, order) is None


def _taken(entry: Entry, offer: Offer) -> Entry:
    """The same record under the order's lease and decision, if that goes further than the one before."""
    fence = entry.fence if offer.fence is None else offer.fence
    leased = replace(entry, fence=fence, highest_fence=max(fence, entry.highest_fence), hold_s=offer.hold_s, lost=offer.lost)
    return replace(leased, commit=offer.commit) if _RANK[offer.commit] > _RANK[entry.commit] else leased


def _decided(entry: Entry) -> Entry:
    """Where an abort leads; any other decision is looked at in the state's own step."""
    if entry.commit is not Commit.ABORT:
        return entry
    if entry.state in _BEFORE_TRIAL:
        return entry.enter(State.REPORTING).ended(Outcome.CANCELLED, message="aborted before the trial")
    return _back(entry, "aborted: it was decided for all devices of this update that they go back")


def _cancelled(entry: Entry, cancel: Cancel) -> Entry:
    if entry.state in _BEFORE_TRIAL:
        return replace(entry.enter(State.REPORTING), cancel=cancel.id).ended(Outcome.CANCELLED, message="cancelled in time")
    return _back(replace(entry, commit=Commit.ABORT), "cancelled on trial")


def _back(entry: Entry, message: str) -> Entry:
    if State.REVERTING not in TRANSITIONS[entry.state]:
        return entry
    return entry.enter(State.REVERTING).because(RolledBackError.code, message)


def carried(now: Entry, following: Entry) -> Entry:
    """`following`, which was made of an earlier record, with what was decided since."""
    return replace(
        following, commit=now.commit, fence=now.fence, highest_fence=now.highest_fence, hold_s=now.hold_s, lost=now.lost
    )


def written(entry: Entry) -> Entry:
    """What follows when the slot is written."""
    return entry.enter(State.PREPARED if entry.commit is Commit.PREPARE else State.ACTIVATING)


def well(entry: Entry, hold_until: int) -> Entry:
    """What follows when the new version was found well; a hold that begins now ends at `hold_until`."""
    match entry.commit:
        case Commit.COMMIT:
            return entry.enter(State.CONFIRMING)
        case Commit.PREPARE | Commit.HOLD:
            return replace(entry.enter(State.HOLDING), hold_until=hold_until)
        case Commit.ABORT:
            return _decided(entry)
    assert_never(entry.commit)


def kept_out(entry: Entry, error: InterlockError) -> Entry:
    """What follows when an interlock stayed shut for too long before a restart into the new version."""
    if entry.state is State.ACTIVATING:
        return entry.enter(State.REPORTING).ended(Outcome.FAILED, error.code, str(error))
    return entry.enter(State.REVERTING).because(error.code, str(error))


def lost(entry: Entry) -> Entry | None:
    """What a node on hold does when its time is over; None: it goes on holding."""
    if entry.lost is Lost.KEEP:
        return None
    error = LostDecisionError(f"no word from the assigner for {entry.hold_s} s; back to the previous version, as was ordered")
    return entry.enter(State.REVERTING).because(error.code, str(error))


def continued(entry: Entry, running: Running) -> Entry:
    """Where `RESUME` continues after a restart, with the count of tries and the reason of an end."""
    following = resume(entry.state, running)
    if following is State.IDLE:
        return replace(entry, state=State.IDLE)
    if following is entry.state:
        limited = entry.state in TRIES and entry.tries >= TRIES[entry.state].limit
        return given_up(entry) if limited else entry.again()
    if following is not State.REPORTING:
        return entry.enter(following)
    if entry.state in {State.WRITING, State.PREPARED}:
        message = f"slot {entry.slot_to} was started or activated by hand before its trial"
        return entry.enter(following).ended(Outcome.FAILED, "device.slot", message)
    return rolled_back(entry)


def rolled_back(entry: Entry) -> Entry:
    """The record of an update whose device is back on its previous version; a reason already known is kept."""
    code = entry.code or RolledBackError.code
    message = entry.message or "the new version did not come up; the bootloader returned to the previous one"
    return entry.enter(State.REPORTING).ended(Outcome.ROLLED_BACK, code, message)


def worth_another_try(entry: Entry, error: FieldrelayError) -> bool:
    """Whether the same state is entered again after `error`."""
    return isinstance(error, _MAY_PASS.get(entry.state, ())) and entry.tries < TRIES[entry.state].limit


def given_up(entry: Entry, error: FieldrelayError | None = None) -> Entry:
    """The record that follows a state which cannot be left well: by an error, or by too many interruptions (None)."""
    following = entry.enter(TRIES[entry.state].then)
    code = error.code if error else "usage.state"
    message = str(error) if error else f"interrupted {entry.tries} times in state {entry.state}"
    if entry.state is State.REVERTING:
        return following.ended(Outcome.INCONSISTENT, code, f"the device could not be taken back, look at it: {message}")
    if following.state is State.REVERTING:
        return following.because(code, message)
    return following.ended(Outcome.REFUSED if isinstance(error, TrustError | BundleError) else Outcome.FAILED, code, message)


def report_of(entry: Entry, name: str) -> Report:
    """What the assigner is told of a record, under the id `name`."""
    slot = entry.slot_to if entry.outcome is Outcome.CONFIRMED else entry.slot_from
    held = entry.in_slot(slot)
    return Report(
        id=name,
        action=entry.action,
        fence=entry.fence,
        state=entry.state,
        code=entry.code,
        message=entry.message,
        version=entry.release.version if entry.release else "",
        slot=slot,
        slot_sha256=(held.content if held else None) or "",
        downloaded_bytes=entry.downloaded_bytes,
        reused_bytes=entry.reused_bytes,
    )
