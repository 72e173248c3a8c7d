"""An FPGA that loads its bitstream from a flash chip: a golden region that is never written, and one update region, or two.

| | one update region | two |
|---|---|---|
| `write` | the bitstream is kept here; the chip hears nothing | it is written into the region that is not selected |
| `restart` | it is written over the one before, then the trigger | its region is selected, then the trigger |
| way back | the one before is written again, from the copy kept here | the region before is selected |

1. Nothing but the update regions is ever written, and nothing is before the layout, the chip and the size were judged
   (`fpga.layout`).
2. With one region, a power cut in the middle of a write leaves the FPGA on its golden bitstream; the next restart writes again.
   What the region held before the first update is read from the chip; an empty region is a way back, too: to the golden
   bitstream.
3. The trigger (a command: PROG_B, a warm boot by ICAP, ...) has the FPGA load again. What it runs then, it is asked
   (`version_command`). If that is the golden bitstream, the new one did not load, the restart fails and says so, and the agent
   takes it back.
4. The chip remembers no trial: a bitstream that loads and does not work stays until it is taken back, over power cuts too. So the
   chip must be reached without the FPGA's help.
5. How the FPGA is told which of two regions to load is its maker's matter: `select_command` gets the region's name as its last
   argument, and must switch in one step; `selected_command` prints the name.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import Capabilities, Surroundings
from node_agent.drivers.fpga.flash import ERASED, FileFlash, Flash, filled
from node_agent.drivers.fpga.flashrom import Flashrom, Programmer
from node_agent.drivers.fpga.layout import Layout, Region, read_layout
from node_agent.drivers.fpga.telling import Telling
from node_agent.drivers.shelf.arrival import Patience
from node_agent.drivers.shelf.device import Habits, ShelfDevice
from node_agent.drivers.shelf.images import KeptImage, Shelf
from node_agent.drivers.shelf.machine import Seen
from node_agent.programs import run_program
from update.errors import ConfigurationError, HandlerError, SlotError

_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Command = Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
_Text = Annotated[str, Field(min_length=1, max_length=255)]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class FpgaFlashConfig:
    """The chip (`programmer` of flashrom, or `chip_file`), what may be written of it, and the commands that reach the FPGA."""

    layout: Path
    trigger_command: _Command
    version_command: _Command
    golden_versions: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=16)]
    programmer: str = ""
    chip_file: Path | None = None
    chip: str = ""
    flashrom: str = "flashrom"
    protected: bool = True
    golden: str = "golden"
    regions: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("update",)
    block_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = 65_536
    select_command: tuple[str, ...] = ()
    selected_command: tuple[str, ...] = ()
    version_pattern: str = r"^\s*(\S+)\s*$"
    slots: tuple[str, str] = ("a", "b")
    selection: str = ""
    device: str = "fpga"
    write_timeout_s: _Seconds = 900.0
    command_timeout_s: _Seconds = 30.0
    settle_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    start_timeout_s: _Seconds = 30.0
    watch_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    poll_interval_s: _Seconds = 0.5


class Commands:
    """The commands that reach the FPGA itself."""

    def __init__(self, config: FpgaFlashConfig) -> None:
        self._config = config
        self._telling = Telling(
            config.version_command, config.version_pattern, config.command_timeout_s, golden=config.golden_versions
        )

    async def version(self, wanted: str) -> Seen:
        """What the FPGA says that it runs (`Telling.ask`)."""
        return await self._telling.ask(wanted)

    async def trigger(self) -> None:
        """Have it load again. Errors: `HandlerError`."""
        await self._run("trigger_command", self._config.trigger_command)
        await asyncio.sleep(self._config.settle_s)

    async def select(self, region: Region) -> None:
        """Have its next load take that region. Errors: `HandlerError`."""
        await self._run("select_command", (*self._config.select_command, region.name))

    async def selected(self) -> str:
        """The name of the region that its next load takes. Errors: `HandlerError`."""
        return await self._run("selected_command", self._config.selected_command)

    async def _run(self, name: str, command: tuple[str, ...]) -> str:
        ended = await run_program(command, timeout_s=self._config.command_timeout_s, environment={})
        if not ended.succeeded:
            raise HandlerError(f"driver.{name} {ended.describe()}"[:500])
        return ended.output


class FpgaFlashMachine:
    """`Machine` for one FPGA and its chip."""

    def __init__(self, layout: Layout, flash: Flash, commands: Commands) -> None:
        self._layout = layout
        self._flash = flash
        self._commands = commands
        self._wanted = ""

    async def look(self) -> Seen:
        """Ask it for its version."""
        return await self._commands.version(self._wanted)

    async def stage(self, image: KeptImage, progress: Callable[[int], None]) -> None:
        """Judge chip and size; with two regions, write the one that is not selected."""
        await self._flash.check(self._layout)
        content = await self._content(image, self._layout.updates[0])
        if len(self._layout.updates) > 1:
            region = await self._beside()
            await self._flash.write(region, filled(content, region))
        progress(image.size)

    async def start(self, image: KeptImage) -> None:
        """Have the chip offer it, and the FPGA load."""
        await self._offer(image)
        self._wanted = image.version
        await self._commands.trigger()

    async def go_back(self, image: KeptImage | None) -> None:
        """The same, for the one before."""
        if image is None:
            raise SlotError("the bitstream before is not at hand; the FPGA cannot be given it")
        await self.start(image)

    async def confirm(self, _image: KeptImage) -> None:
        """Nothing: the chip remembers no trial (rule 4)."""

    async def prefer(self, image: KeptImage) -> None:
        """Have the chip offer it to a load that nobody asks for."""
        await self._offer(image)

    async def read_back(self, target: Path, _max_bytes: int) -> bool:
        """What the region holds that is selected, without the erased flash after it."""
        content = await self._flash.read(await self._selected())
        await asyncio.to_thread(target.write_bytes, content.rstrip(ERASED))
        return True

    async def _offer(self, image: KeptImage) -> None:
        await self._flash.check(self._layout)
        content = await self._content(image, self._layout.updates[0])
        if len(self._layout.updates) == 1:
            region = self._layout.updates[0]
            await self._flash.write(region, filled(content, region))
            return
        region = await self._holder(content)
        await self._flash.write(region, filled(content, region))
        await self._commands.select(region)

    async def _holder(self, content: bytes) -> Region:
        """The region that holds `content`; the one that is not selected where neither does."""
        for region in self._layout.updates:
            if await self._flash.read(region) == filled(content, region):
                return region
        return await self._beside()

    async def _selected(self) -> Region:
        if len(self._layout.updates) == 1:
            return self._layout.updates[0]
        name = await self._commands.selected()
        found = [region for region in self._layout.updates if region.name == name]
        if not found:
            names = ", ".join(region.name for region in self._layout.updates)
            raise HandlerError(f"driver.selected_command printed {name[:80]!r}; the update regions are {names}")
        return found[0]

    async def _beside(self) -> Region:
        selected = await self._selected()
        return next(region for region in self._layout.updates if region is not selected)

    async def _content(self, image: KeptImage, region: Region) -> bytes:
        """The image. `FlashError` if it is too large, before anything is read."""
        content = await asyncio.to_thread(image.path.read_bytes)
        filled(content, region)
        return content


_ONE_REGION: Final = Capabilities(
    stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False, reflash=True
)
_TWO_REGIONS: Final = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False)


def create(config: FpgaFlashConfig, surroundings: Surroundings) -> ShelfDevice:
    """The driver. Errors: `ConfigurationError`."""
    layout = read_layout(config.layout, config.golden, config.regions, config.block_bytes)
    return make(config, surroundings, layout, _make_flash(config, layout, surroundings))


def make(config: FpgaFlashConfig, surroundings: Surroundings, layout: Layout, flash: Flash) -> ShelfDevice:
    """The driver of an FPGA at this chip. Errors: `ConfigurationError`."""
    if (len(layout.updates) > 1) != bool(config.select_command and config.selected_command):
        raise ConfigurationError("driver.select_command and selected_command: both for two update regions, none for one")
    patience = Patience(config.start_timeout_s, config.watch_s, config.poll_interval_s)
    capabilities = _ONE_REGION if len(layout.updates) == 1 else _TWO_REGIONS
    habits = Habits(config.slots, config.device, config.selection, layout.room_bytes, capabilities, patience)
    shelf = Shelf(surroundings.disk, surroundings.state / "slots" / "bitstreams")
    return ShelfDevice(FpgaFlashMachine(layout, flash, Commands(config)), habits, shelf, surroundings)


def _make_flash(config: FpgaFlashConfig, layout: Layout, surroundings: Surroundings) -> Flash:
    if bool(config.programmer) == (config.chip_file is not None):
        raise ConfigurationError("driver.fpga_flash: name either the programmer (of flashrom) or chip_file")
    if config.chip_file is not None:
        return FileFlash(config.chip_file, surroundings.disk)
    programmer = Programmer(config.flashrom, config.programmer, config.chip, config.write_timeout_s, config.protected)
    return Flashrom(programmer, layout, surroundings.state / "flash", surroundings.disk)
