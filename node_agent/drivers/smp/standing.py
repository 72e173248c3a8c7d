"""Where a microcontroller stands: what it says of its images, and what the records say of them, taken together.

The running image is told by its hash. One that nobody here wrote (the device came with it, or somebody used another tool) counts
for the slot that was not written last. The device is right about what runs and what starts next; the records are right about what
an image is called, and about one that failed its trial, which MCUboot does not remember.
"""

from dataclasses import dataclass, field

from node_agent.drivers.driver import SlotState, SlotStatus
from node_agent.drivers.slots.records import SlotRecord
from node_agent.drivers.smp.images import Images, KnownImage
from node_agent.drivers.smp.view import DeviceView
from update.errors import SlotError


@dataclass(slots=True)
class Standing:
    """Made anew for every word. `running` and `other` are slots; `is_known`: the running image is the one of the records."""

    images: Images
    view: DeviceView
    running: str = field(init=False)
    other: str = field(init=False)
    is_known: bool = field(init=False)

    def __post_init__(self) -> None:
        first, second = self.images.names
        matching = [name for name in (first, second) if self._matches(name)]
        record = self.images.record(first)
        unknown = second if record.state is SlotState.PENDING or record.writing is not None else first
        self.running = matching[0] if matching else unknown
        self.other = self.images.other(self.running)
        self.is_known = bool(matching)

    @property
    def candidate(self) -> str:
        """The slot that is on trial, or would be."""
        return self.running if self.view.on_trial else self.other

    def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots, in order."""
        return tuple(self._booted() if name == self.running else self._beside() for name in self.images.names)

    def require_room(self) -> None:
        """`SlotError` while the other place is the way back, or starts next: the device itself would overwrite a marked image."""
        if self.view.on_trial:
            raise SlotError(f"slot {self.running} is on trial; confirm or revert it before anything is written")
        if self.view.pending:
            raise SlotError(f"slot {self.other} starts next, slot {self.running} runs; restart before anything is written")

    def require_confirmable(self) -> None:
        """`SlotError` unless what runs is what was activated, or confirmed already."""
        waiting = self.images.record(self.other)
        if self.view.pending or (waiting.state is SlotState.PENDING and waiting.activated):
            raise SlotError(f"slot {self.other} was activated and slot {self.running} runs; there is nothing new to confirm")
        if self.view.on_trial and self.is_known and self.images.record(self.running).state is SlotState.BAD:
            raise SlotError(f"slot {self.running} was reverted, and goes with the next start; it cannot be confirmed")

    def to_activate(self) -> KnownImage | None:
        """The image to be marked; None where it is marked, or on trial. `SlotError` for one that is not there, or failed."""
        name, begun = self.candidate, self.view.on_trial or self.view.pending
        record, image = self.images.record(name), self.images.image(name)
        failed = record.activated and not begun
        if record.state is not SlotState.PENDING or image is None or failed:
            state = SlotState.BAD if failed else record.state
            raise SlotError(f"slot {name} is {state}: only a completely written image can be activated; write it first")
        if not self.view.on_trial and not self.view.holds(image.image_hash):
            raise SlotError(f"the device does not hold the image of slot {name} any more; write it again")
        return None if begun else image

    def _booted(self) -> SlotStatus:
        record, view = self.images.record(self.running), self.view
        if not self.is_known:
            state = SlotState.PENDING if view.on_trial else SlotState.ACTIVE
            return SlotStatus(self.running, state, view.running.version, None, booted=True, trial=view.on_trial)
        if record.state is SlotState.BAD and (view.on_trial or view.pending):
            return SlotStatus(self.running, SlotState.BAD, record.version, record.bundle, booted=True)
        state = SlotState.PENDING if view.on_trial else SlotState.ACTIVE
        return SlotStatus(self.running, state, record.version, record.bundle, booted=True, trial=view.on_trial)

    def _beside(self) -> SlotStatus:
        record, image = self.images.record(self.other), self.images.image(self.other)
        state = self._state_beside(record, image)
        trial = state is SlotState.PENDING and self.view.pending
        return SlotStatus(self.other, state, record.version, record.bundle, booted=False, trial=trial)

    def _state_beside(self, record: SlotRecord, image: KnownImage | None) -> SlotState:
        if self.view.on_trial:
            return SlotState.CONFIRMED  # the next start brings it, whoever wrote it
        if record.state is SlotState.PENDING:
            if record.activated and not self.view.pending:
                return SlotState.BAD
            held = image is not None and self.view.holds(image.image_hash)
            return SlotState.PENDING if held else SlotState.EMPTY
        return SlotState.EMPTY if record.state is SlotState.CONFIRMED and image is None else record.state

    def _matches(self, name: str) -> bool:
        image = self.images.image(name)
        return image is not None and image.image_hash == self.view.running.image_hash


def activated(images: Images) -> str | None:
    """The slot whose trial was opened and not ended, by the records."""
    return next((name for name in images.names if images.record(name).activated), None)


def hanging(images: Images, tried: str) -> tuple[SlotStatus, ...]:
    """What to take a mute device for while slot `tried` is on trial: it runs and hangs."""
    return tuple(_hanging(images, name, tried) for name in images.names)


def _hanging(images: Images, name: str, tried: str) -> SlotStatus:
    record = images.record(name)
    if name == tried:
        return SlotStatus(name, SlotState.PENDING, record.version, record.bundle, booted=True, trial=True)
    return SlotStatus(name, SlotState.CONFIRMED, record.version, record.bundle, booted=False)
