"""A Linux device with two slots of block devices or files, switched by its bootloader.

The words of `Driver`: `write` judges a bundle for the inactive slot, writes it and reads it back (`slots.plan`,
`slots.writer`); `activate`, `confirm` and `revert` are those of every such device (`slots.switch`). Nothing but the inactive
slot, the bootloader's environment and the driver's own records is ever written.
"""

import asyncio

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import (
    Capabilities,
    ChunkSource,
    Progress,
    Restart,
    SlotStatus,
    Surroundings,
    Written,
    bundle_identity,
    need_swu,
)
from node_agent.drivers.slots.layout import SlotConfig, check_layout
from node_agent.drivers.slots.plan import SlotPlan, plan_slot
from node_agent.drivers.slots.records import SlotRecords
from node_agent.drivers.slots.restart import restart_by
from node_agent.drivers.slots.switch import SlotSwitch
from node_agent.drivers.slots.writer import SlotWriter, Tools
from update.bundle.verified import AnyBundle, VerifiedBundle


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class LinuxConfig:
    """The device. An empty `restart` leaves it to the supervisor: the agent ends with `RESTART_STATUS`."""

    slots: tuple[SlotConfig, ...]
    restart: tuple[str, ...] = ()
    verity_tool: str = "veritysetup"
    script_timeout_s: float = 600.0
    verity_timeout_s: float = 3600.0


class LinuxDriver:
    """`Driver` for one A/B device."""

    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False)

    def __init__(self, config: LinuxConfig, surroundings: Surroundings) -> None:
        """`ConfigurationError` for slots that cannot be told apart."""
        check_layout(config.slots)
        folder = surroundings.state / "slots"
        self._config = config
        self._disk = surroundings.disk
        self._hardware = surroundings.hardware
        self._bootloader = surroundings.bootloader
        self._records = SlotRecords(surroundings.disk, folder)
        self._switch = SlotSwitch([slot.name for slot in config.slots], surroundings.bootloader, self._records)
        self._tools = Tools(folder / "scripts", config.verity_tool, config.script_timeout_s, config.verity_timeout_s)

    async def slots(self) -> tuple[SlotStatus, ...]:
        """Both slots as they are now."""
        return await asyncio.to_thread(self._switch.slots)

    async def write(self, bundle: AnyBundle, chunks: ChunkSource, progress: Progress) -> Written:
        """Judge the bundle for the inactive slot, write it, read it back."""
        native = need_swu(bundle)
        name = await asyncio.to_thread(self._switch.inactive)
        slot = next(slot for slot in self._config.slots if slot.name == name)
        active = next(slot for slot in self._config.slots if slot.name != name)
        plan = await asyncio.to_thread(self._judge, native, slot, active)
        writer = SlotWriter(slot, active, self._records, self._disk, self._tools)
        return await writer.write(native, plan, bundle_identity(native), chunks, progress)

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

    def _judge(self, bundle: VerifiedBundle, slot: SlotConfig, active: SlotConfig) -> SlotPlan:
        selection = bundle.description.select(self._hardware, slot.software_set, slot.mode)
        plan = plan_slot(bundle, selection, slot, active, verity_tool=self._config.verity_tool)
        self._bootloader.check(slot.name, plan.boot_variables)
        return plan
