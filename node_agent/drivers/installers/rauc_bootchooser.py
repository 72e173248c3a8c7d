"""RAUC's bootchooser as the `Bootloader` that `slots.switch` drives; slots are called by their `bootname`.

RAUC says which slot runs and which one starts next; which one is on trial, the records say:

- another slot than the booted one starts next: it is on trial, unless the booted one was left (its record says BAD);
- the booted slot was activated and not yet confirmed: it is on trial. On its last start a counting bootloader already says
  that the other one comes next;
- the other slot was activated, and is neither booted nor next: its trial failed. Unless RAUC was never told of it, because the
  power went between the record and `Mark`: its status file says when a slot was activated last.

Blocks; used in a thread. Each question opens a connection of its own (`rauc_bus`).
"""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from node_agent.drivers.driver import SlotState
from node_agent.drivers.installers.rauc_slots import RaucSlot, RaucState
from node_agent.drivers.slots.records import SlotRecords
from update.errors import BootloaderError


class Service(Protocol):
    """RAUC's service: `rauc_bus.RaucBus`."""

    async def look(self) -> RaucState:
        """Slots and identity as they are now."""
        ...

    async def mark(self, state: str, slot: str) -> None:
        """`good`, `bad` or `active` for a slot of RAUC's name."""
        ...


class RaucBootchooser:
    """`Bootloader` of one device with RAUC."""

    def __init__(self, service: Service, records: SlotRecords) -> None:
        self._service = service
        self._records = records

    def booted(self) -> str:
        """The slot that runs."""
        return self._look().booted().bootname

    def primary(self) -> str:
        """The slot that the next start tries first."""
        state = self._look()
        return next((slot.bootname for slot in state.pair() if slot.name == state.primary), state.primary)

    def trial(self) -> str | None:
        """The slot on trial."""
        state = self._look()
        booted, other = _sides(state)
        if self._activated(booted):
            return booted.bootname
        left = self._records.read(booted.bootname).state is SlotState.BAD
        return other.bootname if state.primary == other.name and not left else None

    def failed(self) -> str | None:
        """The slot whose trial failed."""
        state = self._look()
        _, other = _sides(state)
        told = not other.activated or other.activated >= other.installed
        return other.bootname if self._activated(other) and told and state.primary != other.name else None

    def check(self, slot: str, extra: Mapping[str, str]) -> None:
        """RAUC's bundles bring no variables."""
        self._look().called(slot)
        if extra:
            raise BootloaderError(f"rauc sets no boot variables; the update brings {', '.join(sorted(extra))[:200]}")

    def try_once(self, slot: str, extra: Mapping[str, str]) -> None:
        """Open a trial."""
        self.check(slot, extra)
        self._mark("active", self._look().called(slot))

    def mark_good(self, slot: str) -> None:
        """Close the trial of the running slot well."""
        booted = self._look().booted()
        if booted.bootname != slot:
            raise BootloaderError(f"slot {booted.bootname} runs; only a running slot is marked good, not {slot}")
        self._mark("good", booted)

    def mark_bad(self, slot: str) -> None:
        """Leave `slot`: the other one starts next."""
        state = self._look()
        left = state.called(slot)
        stays = next(each for each in state.pair() if each.name != left.name)
        self._mark("bad", left)
        if self._look().primary != stays.name:
            self._mark("active", stays)

    def _activated(self, slot: RaucSlot) -> bool:
        record = self._records.read(slot.bootname)
        return record.state is SlotState.PENDING and record.activated

    def _look(self) -> RaucState:
        return asyncio.run(self._service.look())

    def _mark(self, state: str, slot: RaucSlot) -> None:
        asyncio.run(self._service.mark(state, slot.name))


def _sides(state: RaucState) -> tuple[RaucSlot, RaucSlot]:
    """The booted slot and the other one."""
    booted = state.booted()
    return booted, next(slot for slot in state.pair() if slot.name != booted.name)
