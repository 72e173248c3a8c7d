"""Switching between two slots: what every driver with a `Bootloader` has in common, whatever its slots are made of.

The bootloader knows which slot runs and which one is on trial; the records know what each slot holds. Every word first
looks, and does only what is still missing, so that it may be called again after a power loss between any two writes:

- `activate`: the record says `activated`, then one write of the bootloader opens the trial.
- `confirm`: one write of the bootloader ends the trial, then the record says CONFIRMED.
- `revert`: the record says BAD, then one write of the bootloader leaves the slot. In this order, because a slot that was
  left and is called CONFIRMED would be returned to by the next `revert`.

Blocks for milliseconds: drivers call it in a thread.
"""

from collections.abc import Sequence
from dataclasses import replace

from node_agent.bootloaders.bootloader import Bootloader
from node_agent.drivers.driver import SlotState, SlotStatus
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from update.errors import ConfigurationError, SlotError


class SlotSwitch:
    """The two slots of one device, by name, in the order of the configuration."""

    def __init__(self, names: Sequence[str], bootloader: Bootloader, records: SlotRecords) -> None:
        if len(names) != 2 or len(set(names)) != 2:
            raise ConfigurationError(f"an A/B device has two slots of different names, got {', '.join(names) or 'none'}")
        self._names = tuple(names)
        self._bootloader = bootloader
        self._records = records

    def slots(self) -> tuple[SlotStatus, ...]:
        """Every slot as it is now."""
        booted, trial, failed = self._booted(), self._bootloader.trial(), self._bootloader.failed()
        return tuple(self._status(name, booted=booted, trial=trial, failed=failed) for name in self._names)

    def inactive(self) -> str:
        """The slot that may be written now. `SlotError` while it is the way back from a trial, or starts next."""
        booted, trial = self._booted(), self._bootloader.trial()
        if trial is not None:
            raise SlotError(f"slot {trial} is on trial; confirm or revert it before anything is written")
        if (primary := self._bootloader.primary()) != booted:
            raise SlotError(f"slot {primary} starts next, slot {booted} runs; restart before anything is written")
        return self._other(booted)

    def activate(self) -> None:
        """Open the trial of what was written."""
        booted, trial = self._booted(), self._bootloader.trial()
        if trial is not None:
            return
        slot = self._other(booted)
        record, failed = self._records.read(slot), self._bootloader.failed() == slot
        if record.state is not SlotState.PENDING or (record.activated and failed):
            state = SlotState.BAD if record.state is SlotState.PENDING else record.state
            raise SlotError(f"slot {slot} is {state}: only a completely written slot can be activated; write it first")
        self._records.write(booted, replace(self._records.read(booted), state=SlotState.CONFIRMED, activated=False))
        if failed:
            self._bootloader.mark_good(booted)  # forgets the failure of what the slot held before
        self._records.write(slot, replace(record, activated=True))
        self._bootloader.try_once(slot, record.boot_variables)

    def confirm(self) -> None:
        """Keep the running slot."""
        booted = self._booted()
        other = self._other(booted)
        if self._bootloader.trial() == other or self._was_activated(other):
            raise SlotError(f"slot {other} was activated and slot {booted} runs; there is nothing new to confirm")
        self._bootloader.mark_good(booted)
        self._records.write(booted, replace(self._records.read(booted), state=SlotState.CONFIRMED, activated=False))

    def revert(self) -> None:
        """Return to the previous slot: out of a trial, or from a confirmed slot to the confirmed one before it."""
        booted, trial = self._booted(), self._bootloader.trial()
        other = self._other(booted)
        if trial is not None:
            self._leave(trial)
        elif self._was_activated(other):
            self._leave(other)
        elif self._bootloader.primary() != booted:
            self._leave(booted)
        else:
            self._return_to(other, booted)

    def _return_to(self, other: str, booted: str) -> None:
        state = self._records.read(other).state
        if state is SlotState.CONFIRMED:
            self._leave(booted)
        elif state is SlotState.EMPTY:
            raise SlotError(f"slot {other} holds nothing complete; the device stays on slot {booted}")

    def _leave(self, slot: str) -> None:
        self._records.write(slot, replace(self._records.read(slot), state=SlotState.BAD, activated=False))
        self._bootloader.mark_bad(slot)

    def _was_activated(self, slot: str) -> bool:
        record = self._records.read(slot)
        return record.state is SlotState.PENDING and record.activated

    def _booted(self) -> str:
        booted = self._bootloader.booted()
        if booted not in self._names:
            raise SlotError(f"slot {booted} runs; the configuration knows {' and '.join(self._names)} only")
        return booted

    def _other(self, slot: str) -> str:
        return self._names[1 - self._names.index(slot)]

    def _status(self, name: str, *, booted: str, trial: str | None, failed: str | None) -> SlotStatus:
        record = self._records.read(name)
        state = _state(record, runs=name == booted, on_trial=name == trial, failed=name == failed)
        return SlotStatus(name, state, record.version, record.bundle, booted=name == booted, trial=name == trial)


def _state(record: SlotRecord, *, runs: bool, on_trial: bool, failed: bool) -> SlotState:
    if on_trial:
        return SlotState.PENDING
    if runs:
        return SlotState.ACTIVE
    if failed and record.state is SlotState.PENDING and record.activated:
        return SlotState.BAD
    return record.state
