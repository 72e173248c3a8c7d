"""The six words of `Driver` for a device that runs what it is handed: one that has no slot of its own to return to, or no trial.

| word | what happens |
|---|---|
| `write` | the image is put on the shelf, judged, and staged where there is room beside what runs; what runs is kept, too |
| `activate` | a record: the device hears nothing, so what runs goes on until the restart |
| `restart` | what is due is started: the trial, or the image before it. Then the device is watched for a while |
| `confirm` | the device keeps what it runs |
| `revert` | a record, and what a start of the device by itself brings; the restart that follows hands over the image before |

1. Before the device is told to start anything the ledger says so, and it says so until the slot was seen running: a power cut at
   any step leaves a start that is done again (`standing`). To hand over an image is idempotent; so is every word here.
2. A device whose only image would be overwritten is not written unless a copy of that image is at hand: kept from the last
   update, delivered with the device (`installed`), or read back from it. Else `NoWayBackError`, unless the configuration
   accepts it.
3. On trial a device must come up as what it was given, and stay up while it is watched. Else the restart fails, and says why.
"""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

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
from node_agent.drivers.shelf.arrival import Patience, Wanted, await_up, complaint, watch
from node_agent.drivers.shelf.images import PART, KeptImage, Shelf
from node_agent.drivers.shelf.ledger import Ledger
from node_agent.drivers.shelf.machine import Life, Machine, Seen
from node_agent.drivers.shelf.standing import Holdings, Standing
from node_agent.drivers.shelf.supply import Supply, quiet
from node_agent.drivers.slots.records import PartRecord, SlotRecord, SlotRecords
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.errors import ConfigurationError, HealthError, NoWayBackError, SilentError, SlotError


@dataclass(frozen=True, slots=True)
class Habits:
    """What is configured about a device. `own_way_back`: it holds the image before by itself. `installed`: see `Supply`."""

    slots: tuple[str, str]
    device: str
    selection: str
    max_bytes: int
    capabilities: Capabilities
    patience: Patience
    installed: Path | None = None
    own_way_back: bool = False
    accept_no_way_back: bool = False


class ShelfDevice:
    """`Driver` for one device behind a `Machine`; its images stand on `shelf`, its records below the node's folder."""

    def __init__(self, machine: Machine, habits: Habits, shelf: Shelf, surroundings: Surroundings) -> None:
        """Errors: `ConfigurationError`."""
        if len(set(habits.slots)) != 2 or not all(habits.slots):
            raise ConfigurationError(f"a device has two slots of different names, got {', '.join(habits.slots)}")
        folder = surroundings.state / "slots"
        self.capabilities = habits.capabilities
        self._machine = machine
        self._habits = habits
        self._hardware = surroundings.hardware
        self._supply = Supply(shelf, habits.device, habits.max_bytes, habits.installed)
        self._records = SlotRecords(surroundings.disk, folder)
        self._ledger = Ledger(surroundings.disk, folder / "ledger.json")
        self._holdings = Holdings(habits.slots, self._records, shelf, habits.own_way_back)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots. `SilentError` for a device that does not answer while no trial is open."""
        standing = await self._standing()
        if standing.seen.life is Life.SILENT and standing.unsure is None and not standing.on_trial:
            raise SilentError(f"the device does not answer: {standing.seen.reason or 'no reason is known'}")
        return await asyncio.to_thread(standing.slots)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Put the image on the shelf, and what runs beside it (rule 2)."""
        native = need_swu(bundle)
        standing = await self._standing()
        standing.require_room()
        software_set, _, mode = self._habits.selection.partition(",")
        selection = native.description.select(self._hardware, software_set, mode)
        entry, before = self._supply.entry(selection.images), self._digests()
        image = await asyncio.to_thread(self._supply.of_bundle, native, entry, progress)
        image = replace(image, version=entry.version or selection.version)
        self._require_another(image, standing)
        await self._keep_running(standing)
        record = _written(native, selection.version, image)
        begun = SlotRecord(writing=record.bundle, parts=record.parts)
        await asyncio.to_thread(self._begin, standing.other, begun, image)
        await self._machine.stage(image, quiet)
        progress(image.size, image.size)
        await asyncio.to_thread(self._records.write, standing.other, record)
        reused = image.size if image.digest in before else 0
        return Written(standing.other, image.size, 0, reused, 0, {entry.device: image.digest})

    async def activate(self) -> None:
        """Note that the written image is to be tried."""
        standing = await self._standing()
        slot = await asyncio.to_thread(standing.to_activate)
        if slot is not None:
            await asyncio.to_thread(self._open, slot)

    async def restart(self) -> Restart:
        """Start what is due, and watch it (rule 3); where nothing is due, nothing happens."""
        standing = await self._standing()
        slot = await asyncio.to_thread(standing.due)
        if slot is None:
            return Restart.DONE
        if self._records.read(slot).state is SlotState.PENDING:
            await self._start(slot)
        else:
            await self._go_back(slot)
        return Restart.DONE

    async def confirm(self) -> None:
        """Keep what runs. `HealthError` where it is not well."""
        standing = await self._standing()
        await asyncio.to_thread(standing.require_confirmable)
        if not standing.on_trial:
            return
        if not standing.well:
            raise HealthError(f"slot {standing.running} is not well, and is not confirmed: {complaint(standing.seen)}")
        await self._machine.confirm(await asyncio.to_thread(self._require_image, standing.running))
        kept = replace(self._records.read(standing.running), state=SlotState.CONFIRMED, activated=False)
        await asyncio.to_thread(self._records.write, standing.running, kept)

    async def revert(self) -> None:
        """Note that the image before is due, and have the device prefer it. `SlotError` where there is none."""
        standing = await self._standing()
        slot = await asyncio.to_thread(self._leave, standing)
        back = None if slot is None else self._holdings.image(self._holdings.other(slot))
        if back is not None:
            await self._machine.prefer(back)

    async def _start(self, slot: str) -> None:
        image, wanted = await asyncio.to_thread(self._require_image, slot), self._wanted(slot)
        await asyncio.to_thread(self._note, begun=slot)
        await self._machine.start(image)
        await await_up(self._machine, wanted, self._habits.patience)
        await asyncio.to_thread(self._note, begun=None, running=slot, tried=True)
        await watch(self._machine, wanted, self._habits.patience)

    async def _go_back(self, slot: str) -> None:
        image = await asyncio.to_thread(self._holdings.image, slot)
        if image is None and not self._habits.own_way_back:
            raise SlotError(f"the image of slot {slot} is not at hand; the device cannot be given it")
        image = None if image is None else replace(image, version=self._wanted(slot).version)
        await asyncio.to_thread(self._note, begun=slot)
        await self._machine.go_back(image)
        if image is not None:
            await self._machine.prefer(image)
        await await_up(self._machine, self._wanted(slot), self._habits.patience)
        await asyncio.to_thread(self._note, begun=None, running=slot)

    async def _standing(self) -> Standing:
        seen = await self._machine.look()
        return await asyncio.to_thread(self._settle, seen)

    def _settle(self, seen: Seen) -> Standing:
        """Note what was learnt: what runs, and what was changed by hand (rule 4 of `standing`)."""
        standing = Standing(self._holdings, self._ledger.known(), seen)
        told = seen.image is not None or seen.version is not None
        if standing.unsure is not None or seen.life is Life.SILENT or not told:
            return standing
        known, running, names = standing.known, standing.running, dict(standing.known.names)
        record = self._records.read(running)
        changed = standing.stranger and not standing.on_trial
        if changed and record != SlotRecord():
            self._records.write(running, SlotRecord(SlotState.CONFIRMED, seen.version))
        if seen.version and (changed or not names.get(running)):
            names[running] = seen.version
        tried = known.tried or (known.begun is not None and record.activated)
        self._note(running=running, names=names, begun=None, tried=tried)
        return Standing(self._holdings, self._ledger.known(), seen)

    def _require_another(self, image: KeptImage, standing: Standing) -> None:
        """A device that cannot tell the two images apart could not be seen through a trial."""
        running, seen = standing.running, standing.seen
        part = self._records.read(running).parts.get(PART)
        if image.digest in {seen.image, None if part is None else part.digest}:
            raise SlotError(f"the device runs this image already, as slot {running}; it cannot be tried beside itself")
        if seen.image is None and seen.version == image.version:
            raise SlotError(
                f"the image's version is {image.version or 'empty'}, and the device says that of the one that runs: nobody could "
                "tell which of the two runs afterwards; give the image another version"
            )

    async def _keep_running(self, standing: Standing) -> None:
        """Have a copy of what runs, before anything can overwrite it (rule 2)."""
        slot, seen = standing.running, standing.seen
        if self._habits.own_way_back or await asyncio.to_thread(self._holdings.image, slot) is not None:
            return
        image = await self._supply.of_running(self._machine, seen.image)
        if image is None and not self._habits.accept_no_way_back:
            raise NoWayBackError(
                "no copy of the image that the device runs is at hand, and the device does not give it back: name the file that "
                "it was delivered with (`installed`), or accept that this update cannot be taken back (`accept_no_way_back`)"
            )
        if image is not None:
            record = self._records.read(slot)
            parts, version = {PART: PartRecord(image.size, image.digest)}, record.version or seen.version
            kept = replace(record, state=SlotState.CONFIRMED, version=version, parts=parts, activated=False)
            await asyncio.to_thread(self._records.write, slot, kept)

    def _begin(self, slot: str, record: SlotRecord, image: KeptImage) -> None:
        """From here on the slot holds nothing complete."""
        self._records.write(slot, record)
        self._note(names={**self._ledger.known().names, slot: image.version})
        self._supply.shelf.forget_others(self._digests())

    def _open(self, slot: str) -> None:
        running = self._holdings.other(slot)
        if self._holdings.can_run(running):
            kept = replace(self._records.read(running), state=SlotState.CONFIRMED, activated=False)
            self._records.write(running, kept)
        self._note(tried=False, running=running)
        self._records.write(slot, replace(self._records.read(slot), activated=True))

    def _leave(self, standing: Standing) -> str | None:
        """The slot that is left, marked; None where nothing is to be left."""
        slot = standing.to_leave()
        if slot is None:
            return None
        back = self._holdings.other(slot)
        if slot == standing.running and not self._holdings.can_run(back):
            raise SlotError(f"slot {back} holds nothing that could be given to the device; it stays on slot {slot}")
        self._records.write(slot, replace(self._records.read(slot), state=SlotState.BAD, activated=False))
        return slot

    def _require_image(self, slot: str) -> KeptImage:
        image = self._holdings.image(slot)
        if image is None:
            raise SlotError(f"the image of slot {slot} is not at hand any more; write it again")
        return replace(image, version=self._ledger.known().names.get(slot, ""))

    def _wanted(self, slot: str) -> Wanted:
        part = self._records.read(slot).parts.get(PART)
        return Wanted(None if part is None else part.digest, self._ledger.known().names.get(slot, ""))

    def _digests(self) -> set[str]:
        return {part.digest for name in self._habits.slots for part in self._records.read(name).parts.values()}

    def _note(self, **changes: object) -> None:
        self._ledger.note(**changes)


def _written(bundle: VerifiedBundle, version: str, image: KeptImage) -> SlotRecord:
    parts = {PART: PartRecord(image.size, image.digest)}
    return SlotRecord(SlotState.PENDING, version, bundle_identity(bundle), parts=parts)
