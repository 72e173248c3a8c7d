"""Where a device stands: what it says of itself, what the records say of its slots, and what was begun, taken together.

1. The device is right about what runs, as far as it can tell: an image is known by its digest, else by its version. One that
   tells neither runs what it was seen running last.
2. While a start was begun and its slot was not seen running, the device may hold anything. A trial whose start was interrupted is
   due again; a return that was interrupted counts as not done, so that the slot that was left is said to be the running one.
3. A trial that was started, and is not what runs any more, has failed. One that is loaded and does not run is bad, too.
4. A device that says something else than either slot holds was changed by hand: what it runs is taken as it is. During a trial it
   has failed, for it does not run what it was given.
"""

from dataclasses import dataclass, field

from node_agent.drivers.driver import SlotState, SlotStatus
from node_agent.drivers.shelf.images import PART, KeptImage, Shelf
from node_agent.drivers.shelf.ledger import Known
from node_agent.drivers.shelf.machine import Life, Seen
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from update.errors import SlotError


@dataclass(frozen=True, slots=True)
class Holdings:
    """The two slots: their names, their records, and the images that are at hand. `own`: the device itself holds the second."""

    names: tuple[str, str]
    records: SlotRecords
    shelf: Shelf
    own: bool

    def record(self, slot: str) -> SlotRecord:
        """What was written into it."""
        return self.records.read(slot)

    def image(self, slot: str) -> KeptImage | None:
        """Its image, if it is at hand."""
        return self.shelf.find(self.record(slot).parts.get(PART))

    def can_run(self, slot: str) -> bool:
        """Whether the device can be given what `slot` holds."""
        return self.own or self.image(slot) is not None

    def other(self, slot: str) -> str:
        """The other one."""
        return self.names[1 - self.names.index(slot)]


@dataclass(slots=True)
class Standing:
    """Made anew for every word. `unsure` is the slot whose start was begun and not seen to succeed (rule 2)."""

    holdings: Holdings
    known: Known
    seen: Seen
    running: str = field(init=False)
    stranger: bool = field(init=False)
    unsure: str | None = field(init=False)

    def __post_init__(self) -> None:
        last = self.known.running or self.holdings.names[0]
        found = self._told(last)
        self.stranger = found is None
        self.running = found or last
        arrived = found is not None and self.seen.life is Life.RUNNING
        self.unsure = None if arrived and not self._cannot_tell() else self.known.begun

    @property
    def other(self) -> str:
        """The slot beside."""
        return self.holdings.other(self.running)

    @property
    def on_trial(self) -> bool:
        """Whether the running slot was activated and not confirmed."""
        return self._activated(self.running)

    @property
    def well(self) -> bool:
        """Whether what is said to run is what runs."""
        return self.seen.life is Life.RUNNING and not self.stranger and self.unsure is None

    def due(self) -> str | None:
        """The slot that the device shall be told to start: a trial that was activated, or the way back; None: it runs already."""
        if self.unsure is not None:
            return (
                self.unsure if self._activated(self.unsure) or not self._left(self.unsure) else self.holdings.other(self.unsure)
            )
        if self._left(self.running):
            return self.other
        waits = self._activated(self.other) and not self.known.tried
        return self.other if waits else None

    def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots, in order."""
        if self.unsure is not None:
            return tuple(self._in_doubt(name, self.unsure) for name in self.holdings.names)
        return tuple(self._booted() if name == self.running else self._beside() for name in self.holdings.names)

    def require_room(self) -> None:
        """`SlotError` while the other slot is the way back, or starts next."""
        if self.unsure is not None:
            raise SlotError(f"the start of slot {self.unsure} was interrupted; restart or revert before anything is written")
        if self.on_trial:
            raise SlotError(f"slot {self.running} is on trial; confirm or revert it before anything is written")
        if (following := self.due()) is not None:
            raise SlotError(f"slot {following} starts next, slot {self.running} runs; restart before anything is written")

    def to_activate(self) -> str | None:
        """The slot whose trial is to be opened; None where it is open. Errors: `SlotError`."""
        if self.unsure is not None or self.on_trial or (self._activated(self.other) and not self.known.tried):
            return None
        state = self._state_beside()
        if state is not SlotState.PENDING or not self.holdings.can_run(self.other):
            raise SlotError(f"slot {self.other} is {state}: only a completely written image can be activated; write it first")
        return self.other

    def to_leave(self) -> str | None:
        """The slot that a revert leaves: the one on trial, or the confirmed one that runs; None: there is nothing to leave.

        Errors: `SlotError` where there is no other to return to.
        """
        if self.unsure is not None:
            begun = self.unsure
            return begun if self._activated(begun) or self._left(begun) else self.holdings.other(begun)
        beside = self.holdings.record(self.other)
        if self.on_trial or self._left(self.running) or beside.state is SlotState.CONFIRMED:
            return self.running
        if beside.state is SlotState.EMPTY:
            raise SlotError(f"slot {self.other} holds nothing complete; the device stays on slot {self.running}")
        return self.other if self._activated(self.other) else None

    def require_confirmable(self) -> None:
        """`SlotError` unless what runs is what was activated, or confirmed already."""
        if self.unsure is not None:
            raise SlotError(f"nobody can tell what the device runs: the start of slot {self.unsure} was interrupted; restart it")
        if self._activated(self.other):
            raise SlotError(f"slot {self.other} was activated and slot {self.running} runs; there is nothing new to confirm")
        if self._left(self.running):
            raise SlotError(f"slot {self.running} was reverted, and goes with the next start; it cannot be confirmed")

    def _told(self, last: str) -> str | None:
        """The slot that the device says it runs; None for something that no slot holds (rule 1)."""
        beside = self.holdings.other(last)
        for slot in (last, beside):
            if self._matches(slot):
                return slot
        if self._matches(last) is None:
            return last
        filled = self.holdings.record(beside).state is not SlotState.EMPTY
        return beside if filled and self._matches(beside) is None else None

    def _matches(self, slot: str) -> bool | None:
        """Whether the device says that it runs `slot`; None where nobody can tell."""
        part, name = self.holdings.record(slot).parts.get(PART), self.known.names.get(slot)
        if self.seen.image is not None and part is not None:
            return part.digest == self.seen.image and not (self.seen.version and name and name != self.seen.version)
        if self.seen.version is not None and name:
            return name == self.seen.version
        return None

    def _cannot_tell(self) -> bool:
        """Whether a device that answers says nothing about what it runs: then only a start that was finished counts."""
        return self.known.begun is not None and self._matches(self.known.begun) is None

    def _activated(self, slot: str) -> bool:
        record = self.holdings.record(slot)
        return record.state is SlotState.PENDING and record.activated

    def _left(self, slot: str) -> bool:
        return self.holdings.record(slot).state is SlotState.BAD

    def _in_doubt(self, name: str, unsure: str) -> SlotStatus:
        record = self.holdings.record(name)
        if self._activated(unsure):
            if name == unsure:
                return SlotStatus(name, SlotState.PENDING, record.version, record.bundle, booted=False, trial=True)
            return SlotStatus(name, self._kept(name), record.version, record.bundle, booted=False)
        left = unsure if self._left(unsure) else self.holdings.other(unsure)
        state = SlotState.BAD if name == left else self._kept(name)
        return SlotStatus(name, state, record.version, record.bundle, booted=name == left)

    def _booted(self) -> SlotStatus:
        record = self.holdings.record(self.running)
        failed = self._left(self.running) or (self.on_trial and (self.stranger or self.seen.life is Life.FAILED))
        state = SlotState.PENDING if self.on_trial else SlotState.ACTIVE
        version, trial = record.version or self.seen.version, self.on_trial and not failed
        return SlotStatus(self.running, SlotState.BAD if failed else state, version, record.bundle, booted=True, trial=trial)

    def _beside(self) -> SlotStatus:
        record, state = self.holdings.record(self.other), self._state_beside()
        trial = state is SlotState.PENDING and record.activated
        return SlotStatus(self.other, state, record.version, record.bundle, booted=False, trial=trial)

    def _state_beside(self) -> SlotState:
        record = self.holdings.record(self.other)
        if self.on_trial or record.state is SlotState.CONFIRMED:
            return self._kept(self.other)
        if record.state is SlotState.PENDING and record.activated and self.known.tried:
            return SlotState.BAD
        if record.state is SlotState.PENDING and not self.holdings.can_run(self.other):
            return SlotState.EMPTY
        return record.state

    def _kept(self, slot: str) -> SlotState:
        """A slot to return to: only as long as the device can be given what it held."""
        return SlotState.CONFIRMED if self.holdings.can_run(slot) else SlotState.EMPTY
