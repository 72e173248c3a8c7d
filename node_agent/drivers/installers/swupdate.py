"""A device whose slots an installed SWUpdate writes; which slot starts, the node's bootloader says, as on any Linux device.

SWUpdate is asked through `swupdate-client`, the door that comes with every release of it. The structures of its control and
progress sockets change between releases without a version in them (2022.12: 3120 and 2416 bytes on 64 bit), so that a reader
of one release would misread another; the client is built together with its daemon.

What the client says is a hint. Its exit status is wrong at times in both directions (of 30 installations by 2022.12 three ended
with 1 and were complete, two ended with 1 and were not, all without a word). So:

- an error that it names ends the write; an end without a word is no verdict, and the write is repeated a few times (where the
  daemon refuses early the client loses its reason, too: then only the daemon's log has it);
- after a success every image is read back: raw ones byte for byte, deltas by the digests of their chunks.

The bundle is judged first as `slots.plan` judges every bundle: an image for anything but a part of the inactive slot is refused
before SWUpdate hears of it. It is handed over through a pipe, which ends with the agent: SWUpdate refuses the torso.

SWUpdate must run without a bootloader (`-B none`, its default) and must accept the selections of both slots (`-q SET,MODE`). The
bundle's boot variables then wait for the switch, and `ustate` is kept by the bootloader here, in the same environment. A daemon
that switches by itself is noticed after its first installation, and what it switched is taken back.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import ConfigDict, Field
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
from node_agent.drivers.slots.installed import read_back
from node_agent.drivers.slots.layout import SlotConfig, check_layout
from node_agent.drivers.slots.plan import SlotPlan, plan_slot
from node_agent.drivers.slots.records import SlotRecord, SlotRecords
from node_agent.drivers.slots.restart import restart_by
from node_agent.drivers.slots.switch import SlotSwitch
from node_agent.handlers.part import BLOCK_BYTES
from node_agent.programs import Ended, run_program
from update.bundle.verified import AnyBundle, VerifiedBundle
from update.errors import ConfigurationError, HandlerError, SlotError, StoreError

_RUNS: Final = 5
_PAUSE_S: Final = 1.0

_Seconds = Annotated[float, Field(gt=0, le=86400)]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SwupdateConfig:
    """The device. `sockets` is the folder of SWUpdate's sockets, where it is not the system's temporary folder.

    An empty `restart` leaves it to the supervisor.
    """

    slots: tuple[SlotConfig, ...]
    client: str = "swupdate-client"
    sockets: Path | None = None
    restart: tuple[str, ...] = ()
    install_timeout_s: _Seconds = 3600.0


class SwupdateDriver:
    """`Driver` for one A/B device with SWUpdate. An interrupted write begins anew: SWUpdate does not resume."""

    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=False, needs_power_cycle=False)

    def __init__(self, config: SwupdateConfig, surroundings: Surroundings) -> None:
        """`ConfigurationError` for slots that cannot be told apart, by their parts or by their selections."""
        check_layout(config.slots)
        if len({slot.selection for slot in config.slots}) != len(config.slots) or not all(
            slot.selection for slot in config.slots
        ):
            raise ConfigurationError("swupdate is told by the selection which slot to write: give each slot its own 'set,mode'")
        self._config = config
        self._disk = surroundings.disk
        self._hardware = surroundings.hardware
        self._bootloader = surroundings.bootloader
        self._records = SlotRecords(surroundings.disk, surroundings.state / "slots")
        self._switch = SlotSwitch([slot.name for slot in config.slots], surroundings.bootloader, self._records)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots as they are now."""
        return await asyncio.to_thread(self._switch.slots)

    async def write(self, bundle: AnyBundle, _chunks: ChunkSource, progress: Progress) -> Written:
        """Judge the bundle for the inactive slot, have SWUpdate write it, read it back."""
        native = need_swu(bundle)
        slot = await asyncio.to_thread(self._inactive)
        plan = await asyncio.to_thread(self._judge, native, slot)
        identity = bundle_identity(native)
        record = await asyncio.to_thread(self._records.read, slot.name)
        if (record.state, record.bundle) != (SlotState.PENDING, identity):
            await asyncio.to_thread(self._records.write, slot.name, SlotRecord(writing=identity))
            await self._install(native, slot, progress)
            await asyncio.to_thread(self._refuse_switched, slot)
        parts = await asyncio.to_thread(read_back, native, plan, self._disk)
        record = SlotRecord(SlotState.PENDING, plan.version, identity, parts=parts, boot_variables=plan.boot_variables)
        await asyncio.to_thread(self._records.write, slot.name, record)
        total = native.file.stat().st_size
        progress(total, total)
        digests = {image.entry.device: parts[image.part.name].digest for image in plan.images}
        return Written(slot.name, sum(part.size for part in parts.values()), 0, 0, 0, digests)

    async def activate(self) -> None:
        """One write of the bootloader's environment, the bundle's variables included."""
        await asyncio.to_thread(self._switch.activate)

    async def restart(self) -> Restart:
        """Run the restart command, or leave it to the supervisor."""
        return await restart_by(self._config.restart)

    async def confirm(self) -> None:
        """Keep the running slot."""
        await asyncio.to_thread(self._switch.confirm)

    async def revert(self) -> None:
        """Return to the previous slot."""
        await asyncio.to_thread(self._switch.revert)

    def _inactive(self) -> SlotConfig:
        name = self._switch.inactive()
        return next(slot for slot in self._config.slots if slot.name == name)

    def _judge(self, bundle: VerifiedBundle, slot: SlotConfig) -> SlotPlan:
        active = next(each for each in self._config.slots if each.name != slot.name)
        selection = bundle.description.select(self._hardware, slot.software_set, slot.mode)
        plan = plan_slot(bundle, selection, slot, active, verity_tool="veritysetup")
        self._bootloader.check(slot.name, plan.boot_variables)
        return plan

    async def _install(self, bundle: VerifiedBundle, slot: SlotConfig, progress: Progress) -> None:
        """Ask until there is a verdict. `HandlerError` with what SWUpdate says, or for silence."""
        command = [self._config.client, "-v", "-e", slot.selection]
        environment = {} if self._config.sockets is None else {"TMPDIR": str(self._config.sockets)}
        ended = Ended(None, "")
        for run in range(_RUNS):
            if run:
                await asyncio.sleep(_PAUSE_S)
            feed = _blocks(bundle.file, progress)
            ended = await run_program(command, timeout_s=self._config.install_timeout_s, environment=environment, feed=feed)
            if errors := [line for line in ended.output.splitlines() if "ERROR" in line]:
                raise HandlerError(f"swupdate could not install {bundle.file.name}: {'; '.join(errors)[-1000:]}")
            if ended.succeeded:
                return
            if ended.status is None:
                break
        raise HandlerError(
            f"{self._config.client} {ended.describe()[:1000]}; "
            f"see the log of swupdate: is it there, does it accept {slot.selection} (-q)?"
        )

    def _refuse_switched(self, slot: SlotConfig) -> None:
        """The daemon has the bootloader's environment, too: leave the slot that it switched to."""
        booted = self._bootloader.booted()
        if self._bootloader.trial() is not None or self._bootloader.primary() != booted:
            self._bootloader.mark_bad(slot.name)
            raise SlotError(f"swupdate made slot {slot.name} the next one when it had written it; run it with -B none")


def _blocks(file: Path, progress: Progress) -> Iterator[bytes]:
    """The bundle as SWUpdate reads it, told as it goes."""
    try:
        with file.open("rb") as stream:
            total, done = file.stat().st_size, 0
            while block := stream.read(BLOCK_BYTES):
                yield block
                done += len(block)
                progress(min(done, total - 1), total)
    except OSError as error:
        raise StoreError(f"cannot read the bundle {file}: {error.strerror or error}") from error
