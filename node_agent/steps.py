"""What is done in each state of an update: one function per state, from the journal's record to the next one.

Every step is idempotent, because after a crash it is done again (`node_agent.states`). A step returns the record of the
state to enter next and raises a named error when it cannot; what an error leads to is decided in `node_agent.agent`, and
nothing here writes the journal. What is written is `Steps.trial`, before the trial is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import uuid4

from node_agent.decisions import put_aside, refound, waits_for_all, written
from node_agent.drivers.driver import ChunkSource, Driver, Restart, SlotState, SlotStatus, bundle_identity
from node_agent.health import Health
from node_agent.hooks import Hooks, Moment
from node_agent.interlocks import Interlocks
from node_agent.record import Entry, Release, entry_from_mapping, entry_to_mapping, journal_version
from node_agent.source import Offer
from node_agent.states import Outcome, Running, State
from update.bundle.verified import AnyBundle
from update.errors import CorruptError, RollbackError, RolledBackError, SlotError, StateError, UnsupportedError
from update.store.journal import Journal
from update.trust.floor_values import FloorValues
from update.wire.assignment import Commit

Progress = Callable[[int, int], None]


class Content(Protocol):
    """Where bundles and chunks come from: `node_agent.content.Content`."""

    async def resolve(self, offer: Offer) -> Release:
        """Find what is ordered in the node's own verified metadata."""
        ...

    async def judge(self, release: Release, reason: str) -> None:
        """Refuse what may not run here; `reason` is an operator's, for a return to an older release."""
        ...

    async def obtain(self, release: Release, progress: Progress) -> AnyBundle:
        """Download what is missing of the bundle, then verify all of it; complete already: no network is needed."""
        ...

    def chunks(self) -> ChunkSource:
        """Where a bundle's remote chunks are read."""
        ...

    def forget(self) -> None:
        """Remove what was staged."""
        ...


class Confirmations(Protocol):
    """What rises with a confirmed version: `update.trust.floor.Floor`."""

    def confirm(self, *, release_counter: int, security_counter: int) -> object:
        """Raise to these counters; lower ones change nothing."""
        ...

    def read(self) -> FloorValues:
        """The present values."""
        ...


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one device.

    `trial` is a second record of a trial that waits for a decision about several devices, so that a device which lost its journal
    does not decide alone.
    """

    driver: Driver
    content: Content
    health: Health
    hooks: Hooks
    floor: Confirmations
    trial: Journal
    interlocks: Interlocks = field(default_factory=Interlocks)

    async def look(self, entry: Entry) -> Running:
        """What runs, seen from the update of `entry`."""
        return seen_from(entry.slot_to, await self.driver.slots())

    def require_hold(self, entry: Entry) -> None:
        """`UnsupportedError` for an order to hold the trial of a device that cannot."""
        able = self.driver.capabilities
        if entry.commit is Commit.HOLD and not (able.trial and able.hold and able.revert):
            raise UnsupportedError(
                "the order wants the trial held for a common decision, which this device cannot do: "
                "accept that for it in the release plan, or take it out of the plan"
            )

    async def fetch(self, entry: Entry, offer: Offer, progress: Progress) -> Entry:
        """Resolve, judge, download, verify; nothing further to do where the same bundle runs confirmed already."""
        self.require_hold(entry)
        release = await self.content.resolve(offer)
        slots = await self.driver.slots()
        running = next((slot for slot in slots if slot.booted), None)
        if running is None:
            raise SlotError("no slot of this device is the booted one; check the slots in the configuration")
        known = replace(entry, release=release, slot_from=running.name, slot_to=_other(slots, running))
        if _runs(release, running):
            return _already(known.holding(running.name, release))
        await self.content.judge(release, offer.reason)
        bundle = await self.content.obtain(release, progress)
        complete = replace(release, bundle=bundle_identity(bundle))
        known = replace(known, release=complete)
        if _runs(complete, running):
            return _already(known.holding(running.name, complete))
        if not offer.may_write:
            return put_aside(known)
        return known.enter(State.WRITING).holding(known.slot_to, None)

    async def write(self, entry: Entry, progress: Progress) -> Entry:
        """Write the inactive slot from the verified bundle."""
        release = _release(entry)
        await self.hooks.run(Moment.BEFORE_WRITE, environment(entry))
        bundle = await self.content.obtain(release, _quiet)
        done = await self.driver.write(bundle, self.content.chunks(), progress)
        if done.slot != entry.slot_to:
            raise SlotError(
                f"slot {done.slot} was written where {entry.slot_to} was expected; check the slots in the configuration"
            )
        content = next(iter(done.parts.values())) if len(done.parts) == 1 else None
        counted = replace(entry, downloaded_bytes=done.downloaded_bytes, reused_bytes=done.reused_bytes)
        return written(counted.holding(entry.slot_to, replace(release, content=content)))

    async def activate(self, entry: Entry) -> Entry:
        """Ask the hooks, then open the trial: the last moment to stop."""
        await self.hooks.run(Moment.BEFORE_RESTART, environment(entry))
        if waits_for_all(entry):
            self.trial.write(entry_to_mapping(entry), version=journal_version(entry))
        else:
            self._forget_trial()
        await self.driver.activate()
        return entry.enter(State.RESTARTING)

    async def restart(self) -> Restart:
        """Restart the device."""
        return await self.driver.restart()

    async def test(self, entry: Entry) -> Entry:
        """Is the new version the one that runs, and is it well? The same record; `SlotError`, `HealthError` if not."""
        slots = await self.driver.slots()
        if seen_from(entry.slot_to, slots) is not Running.TARGET:
            raise SlotError(f"slot {entry.slot_to} was to be tested, and it does not run")
        if any(slot.booted and slot.state is SlotState.BAD for slot in slots):
            raise SlotError(f"slot {entry.slot_to} was started and has failed on trial; the device says that it is bad")
        await self.health.require(environment(entry))
        return entry

    async def confirm(self, entry: Entry) -> Entry:
        """Keep the new version, then raise the floor: in this order, so that a version which falls back can still run."""
        await self.driver.confirm()
        release = entry.release
        if release is not None:
            self.floor.confirm(release_counter=release.release_counter, security_counter=release.security_counter)
        await self.hooks.run(Moment.AFTER_CONFIRM, environment(entry))
        return entry.enter(State.REPORTING).ended(Outcome.CONFIRMED, message=entry.message)

    async def revert(self, entry: Entry) -> Running:
        """Make the previous slot the next one; says what still runs."""
        if await self.look(entry) in {Running.TARGET, Running.DUE}:
            await self.driver.revert()
        return await self.look(entry)

    def forget(self, entry: Entry) -> None:
        """Remove what was kept for this update alone. One that could not be taken back may still be a trial for all."""
        self.content.forget()
        if entry.outcome is not Outcome.INCONSISTENT:
            self._forget_trial()

    async def plan_return(self, entry: Entry, reason: str) -> Entry:
        """REVERTING from a confirmed version to the one before it, if that ran well and is not below the security floor."""
        slots = await self.driver.slots()
        running = next(slot for slot in slots if slot.booted)
        previous = next(slot for slot in slots if slot.name == _other(slots, running))
        if previous.state is not SlotState.CONFIRMED:
            raise StateError(f"slot {previous.name} is {previous.state}: there is no previous version to return to")
        release, floor = entry.in_slot(previous.name), self.floor.read().security_counter
        counter = release.security_counter if release else 0
        if counter < floor:
            raise RollbackError(
                f"the previous version has security counter {counter}, the floor is {floor}; it may not run again"
            )
        fresh = Entry(action=f"operator-{uuid4()}", highest_fence=entry.highest_fence, held=entry.held, release=release)
        planned = replace(fresh, slot_from=previous.name, slot_to=running.name)
        return planned.enter(State.REVERTING).because(RolledBackError.code, reason)

    async def settle(self, entry: Entry) -> Entry:
        """What to do where no update is under way: mostly nothing.

        The floor is raised to what runs confirmed, which finishes a confirmation whose last write was lost. A trial that
        the journal does not know (installed by hand, or the journal was lost) is tested like any other, unless this
        device was given up in it: then somebody must look. One that waited for a decision waits for it again.
        """
        slots = await self.driver.slots()
        if not any(slot.trial for slot in slots):
            self._forget_trial()
        running = next((slot for slot in slots if slot.booted), None)
        if running is None:
            return entry
        release = entry.in_slot(running.name)
        if release is not None and _runs(release, running):
            self.floor.confirm(release_counter=release.release_counter, security_counter=release.security_counter)
        if not running.trial or (entry.outcome is Outcome.INCONSISTENT and entry.slot_to == running.name):
            return entry
        found = Entry(action=f"found-{uuid4()}", highest_fence=entry.highest_fence, held=entry.held, release=release)
        found = replace(found, slot_from=_other(slots, running), slot_to=running.name)
        try:
            kept = entry_from_mapping(self.trial.read())
        except CorruptError as error:
            return found.enter(State.REVERTING).because(error.code, f"not known whether this trial waits for others: {error}")
        return (refound(entry, kept) if kept.slot_to == running.name else None) or found.enter(State.TESTING)

    def _forget_trial(self) -> None:
        if self.trial.path.exists():
            self.trial.clear()


def seen_from(target: str, slots: tuple[SlotStatus, ...]) -> Running:
    """Classify what runs from the point of view of an update to slot `target`."""
    found = next((slot for slot in slots if slot.name == target), None)
    if found is None:
        return Running.PREVIOUS
    if found.booted:
        return Running.TARGET
    if found.trial:
        return Running.DUE
    return Running.WRITTEN if found.state is SlotState.PENDING else Running.PREVIOUS


def _runs(release: Release, slot: SlotStatus) -> bool:
    """Whether `slot` holds `release`, confirmed and running."""
    return slot.state is SlotState.ACTIVE and release.bundle is not None and slot.bundle == release.bundle


def _already(entry: Entry) -> Entry:
    version = entry.release.version if entry.release else ""
    return entry.enter(State.REPORTING).ended(Outcome.CONFIRMED, message=f"{version} runs already".strip())


def environment(entry: Entry) -> Mapping[str, str]:
    """What hooks and health checks are told."""
    return {
        "FIELDRELAY_VERSION": entry.release.version if entry.release else "",
        "FIELDRELAY_SLOT": entry.slot_to,
        "FIELDRELAY_ACTION": entry.action,
    }


def _other(slots: tuple[SlotStatus, ...], running: SlotStatus) -> str:
    others = [slot.name for slot in slots if slot.name != running.name]
    if len(others) != 1:
        raise SlotError(f"an update needs one inactive slot beside the running {running.name}; this device has {len(others)}")
    return others[0]


def _release(entry: Entry) -> Release:
    if entry.release is None:
        raise StateError(f"the journal says {entry.state} without naming a release; nothing can be written from it")
    return entry.release


def _quiet(_done: int, _total: int) -> None:
    """Verifying again is not worth a report."""
