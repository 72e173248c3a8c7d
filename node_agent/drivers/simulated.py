"""A device without content: records instead of slots, the real switching, and faults on demand.

For tests of whatever stands above a driver, and for a dry run of a gateway's rollout. `write` takes as long as one
progress report per image and notes what the bundle would have written; everything else is that of a real A/B device.
"""

import asyncio
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import (
    Capabilities,
    ChunkSource,
    Progress,
    Restart,
    SlotState,
    SlotStatus,
    Surroundings,
    Written,
    bundle_identity,
    need_swu,
)
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from node_agent.drivers.slots.switch import SlotSwitch
from node_agent.handlers.bootenv import boot_variables
from update.bundle.description import Selection
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.errors import HandlerError


class Word(StrEnum):
    """The words that can be told to fail."""

    WRITE = "write"
    ACTIVATE = "activate"
    RESTART = "restart"
    CONFIRM = "confirm"
    REVERT = "revert"


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SimulatedConfig:
    """The slots' names, the selection `set,mode` of each (or empty), and the words that fail.

    `restarts`: the device restarts while its agent stays up, as one behind a gateway does; its bootloader is simulated too.
    """

    slots: tuple[str, str] = ("a", "b")
    selections: tuple[str, str] = ("", "")
    broken: tuple[Word, ...] = ()
    restarts: bool = False


@runtime_checkable
class _Startable(Protocol):
    """A simulated bootloader."""

    def start(self) -> None:
        """Start the board anew."""
        ...


class SimulatedDriver:
    """`Driver` for a device that exists only in its records and its bootloader."""

    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False)

    def __init__(self, config: SimulatedConfig, surroundings: Surroundings) -> None:
        self._config = config
        self._hardware = surroundings.hardware
        self._bootloader = surroundings.bootloader
        self._records = SlotRecords(surroundings.disk, surroundings.state / "slots")
        self._switch = SlotSwitch(config.slots, surroundings.bootloader, self._records)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots as they are now."""
        return await asyncio.to_thread(self._switch.slots)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Note what the bundle would have put into the inactive slot."""
        native = need_swu(bundle)
        slot = await asyncio.to_thread(self._switch.inactive)
        software_set, _, mode = self._config.selections[self._config.slots.index(slot)].partition(",")
        selection = native.description.select(self._hardware, software_set, mode)
        variables = boot_variables(selection.bootenv)
        await asyncio.to_thread(self._bootloader.check, slot, variables)
        identity = bundle_identity(native)
        await asyncio.to_thread(self._records.write, slot, SlotRecord(writing=identity))
        self._fail(Word.WRITE)
        parts = _pretend(native, selection, progress)
        record = SlotRecord(SlotState.PENDING, selection.version, identity, None, False, parts, variables)
        await asyncio.to_thread(self._records.write, slot, record)
        size = sum(part.size for part in parts.values())
        return Written(slot, size, 0, 0, 0, {device: part.digest for device, part in parts.items()})

    async def activate(self) -> None:
        """Open the trial."""
        self._fail(Word.ACTIVATE)
        await asyncio.to_thread(self._switch.activate)

    async def restart(self) -> Restart:
        """Leave it to the supervisor, or start anew beside the agent."""
        self._fail(Word.RESTART)
        if not self._config.restarts:
            return Restart.BY_EXIT
        if not isinstance(self._bootloader, _Startable):
            raise HandlerError("driver.simulated.restarts needs a bootloader that is simulated too")
        await asyncio.to_thread(self._bootloader.start)
        return Restart.DONE

    async def confirm(self) -> None:
        """Keep the running slot."""
        self._fail(Word.CONFIRM)
        await asyncio.to_thread(self._switch.confirm)

    async def revert(self) -> None:
        """Return to the previous slot."""
        self._fail(Word.REVERT)
        await asyncio.to_thread(self._switch.revert)

    def _fail(self, word: Word) -> None:
        if word in self._config.broken:
            raise HandlerError(f"this simulated device was told to fail at {word}")


def _pretend(bundle: VerifiedBundle, selection: Selection, progress: Progress) -> dict[str, PartRecord]:
    """One report per image, with the stored size of its member."""
    sizes = [bundle.members[image.filename].size for image in selection.images]
    for number in range(len(sizes)):
        progress(sum(sizes[: number + 1]), sum(sizes))
    return {image.device: PartRecord(size, image.sha256) for image, size in zip(selection.images, sizes, strict=True)}
