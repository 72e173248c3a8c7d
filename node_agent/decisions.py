"""What follows in the life of an update: decided from the journal's record and what was heard or seen, without any I/O."""

from dataclasses import replace

from node_agent.record import Entry, Report
from node_agent.source import Cancel, Offer
from node_agent.states import TRIES, Outcome, Running, State, resume
from update.errors import (
    BundleError,
    ChunkError,
    DeviceError,
    FenceError,
    FieldrelayError,
    ReadBackError,
    RolledBackError,
    TrustError,
)

_MAY_PASS = {
    State.WRITING: (ChunkError, ReadBackError),
    State.CONFIRMING: (DeviceError,),
    State.REVERTING: (DeviceError,),
}
"""Errors that may pass by themselves: the same state is entered again, up to its limit of tries."""


def begun(last: Entry, offer: Offer) -> Entry:
    """FETCHING for an order. An order that was interrupted before goes on counting its tries."""
    interrupted = last.tries if last.action == offer.action and last.outcome is None else 0
    fence = offer.fence or 0
    fresh = Entry(action=offer.action, fence=fence, highest_fence=max(fence, last.highest_fence), held=last.held)
    return replace(fresh.enter(State.FETCHING), tries=interrupted + 1)


def put_aside(entry: Entry) -> Entry:
    """Back to IDLE without an outcome and without counting a try: the order will be offered again."""
    return replace(entry.enter(State.IDLE), tries=0)


def answered_by(last: Entry, offer: Offer) -> bool:
    """Whether the end of an action answers the same action now: unless it failed and a newer lease orders it again."""
    if last.action != offer.action or last.outcome is None:
        return False
    return offer.fence in {last.fence, None} or last.outcome is Outcome.CONFIRMED


def fenced(last: Entry, offer: Offer) -> Entry | None:
    """The refusal of an order of an older lease than one seen before; None for any other order."""
    if offer.fence is None or offer.fence >= last.highest_fence:
        return None
    error = FenceError(
        f"action {offer.action} carries fencing token {offer.fence}, and {last.highest_fence} was seen already: "
        "it comes from an assigner whose lease is over; order it again under the present one"
    )
    return Entry(action=offer.action, fence=offer.fence).ended(Outcome.REFUSED, error.code, str(error))


def answer(last: Entry, cancel: Cancel) -> Entry:
    """The answer to a cancellation while nothing is carried out: too late for an action that ended, fine for any other."""
    if last.action == cancel.action and last.outcome is not None:
        return replace(last, cancel=cancel.id)
    stopped = Entry(action=cancel.action, fence=last.fence, cancel=cancel.id)
    return stopped.ended(Outcome.CANCELLED, message="cancelled before it began")


def ended_by(entry: Entry, order: Offer | Cancel | None) -> Entry | None:
    """The end of an update that has not opened its trial, if `order` asks for it; None to go on.

    No order at all does not end it: an assigner that restarts may know nothing for a while.
    """
    if isinstance(order, Cancel) and order.action == entry.action:
        return replace(entry.enter(State.REPORTING), cancel=order.id).ended(Outcome.CANCELLED, message="cancelled in time")
    if isinstance(order, Offer) and order.action != entry.action and fenced(entry, order) is None:
        return entry.enter(State.REPORTING).ended(Outcome.CANCELLED, message=f"replaced by action {order.action}")
    return None


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
    if entry.state is State.WRITING:
        message = f"slot {entry.slot_to} was started or activated by hand while it was being written"
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
