"""An FPGA that Linux loads: `/sys/class/fpga_manager` of kernels that offer the attributes `firmware` and `flags` there.

Linux, `Documentation/ABI/testing/sysfs-class-fpga-manager`: `name` and `state` can be read; `state` is `operating` once a
bitstream is loaded, and names the step that failed otherwise (`write error`, ...). `firmware` and `flags` come with the kernels
of AMD/Xilinx: the name of a file in the firmware folder is written to `firmware`, and when that returns the bitstream is
loaded, or it is not.

1. An FPGA that is loaded so forgets all when the power goes: the trial is in its memory only, and a power cut ends it. What a
   start of the machine loads is `boot_file`, which is always the confirmed bitstream, and is replaced as a whole.
2. Nobody can ask sysfs which bitstream runs. So what was loaded is noted, for this start of the machine (`boot_id`): the note
   goes before a load and comes after it, so that it never says more than is true. Where there is none, what runs is
   `boot_file`, or unknown.
3. `version_command` asks the FPGA itself, and is right where both are known.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import Capabilities, Surroundings
from node_agent.drivers.fpga.telling import Telling
from node_agent.drivers.shelf.arrival import Patience
from node_agent.drivers.shelf.device import Habits, ShelfDevice
from node_agent.drivers.shelf.images import KeptImage, Shelf
from node_agent.drivers.shelf.machine import Life, Seen
from update.digest import Digest, digest_file, parse_digest
from update.durable import Disk
from update.errors import BootloaderError, MetadataError, SlotError

_Seconds = Annotated[float, Field(gt=0, le=3600)]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_OPERATING: Final = "operating"
_FIRMWARE: Final = "firmware"
_MAX_ATTRIBUTE_BYTES: Final = 4096
_TAKEN_WITHIN_S: Final = 5.0
_LOOK_S: Final = 0.005


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class FpgaManagerConfig:
    """The FPGA: where sysfs has it, where the kernel looks for bitstreams, and what a start of the machine loads."""

    root: Path = Path("/sys")
    manager: _FileName = "fpga0"
    name: str = ""
    flags: str = "0"
    firmware_folder: Path = Path("/lib/firmware")
    prefix: _FileName = "fieldrelay-"
    boot_file: Path | None = None
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    version_command: tuple[str, ...] = ()
    version_pattern: str = r"^\s*(\S+)\s*$"
    slots: tuple[str, str] = ("a", "b")
    selection: str = ""
    device: str = "fpga"
    slot_bytes: Annotated[int, Field(ge=64, le=256 << 20)] = 64 << 20
    installed: Path | None = None
    load_timeout_s: _Seconds = 60.0
    command_timeout_s: _Seconds = 30.0
    start_timeout_s: _Seconds = 30.0
    watch_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    poll_interval_s: _Seconds = 0.5


class Manager(Protocol):
    """The attributes of one FPGA. Errors: `BootloaderError`."""

    async def read(self, attribute: str) -> str:
        """Its text without the line's end."""
        ...

    async def write(self, attribute: str, text: str) -> None:
        """Have the kernel take `text`; it returns when what that means is done."""
        ...


class SysfsManager:
    """Those in a folder of sysfs."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._folder = folder
        self._timeout_s = timeout_s

    async def read(self, attribute: str) -> str:
        """No attribute is longer than a page."""
        return await self._within(attribute, lambda: self._read(attribute))

    async def write(self, attribute: str, text: str) -> None:
        """In one write, as sysfs wants it."""
        await self._within(attribute, lambda: self._write(attribute, text))

    async def _within(self, attribute: str, work: Callable[[], str]) -> str:
        where = self._folder / attribute
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.to_thread(work)
        except TimeoutError as error:
            raise BootloaderError(f"{where}: no answer of the kernel within {self._timeout_s:g} s") from error
        except OSError as error:
            raise BootloaderError(f"{where}: the kernel refuses: {error.strerror or error}; see its log") from error

    def _read(self, attribute: str) -> str:
        with (self._folder / attribute).open("rb") as file:
            return file.read(_MAX_ATTRIBUTE_BYTES).decode("utf-8", "replace").strip()

    def _write(self, attribute: str, text: str) -> str:
        descriptor = os.open(self._folder / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{text}\n".encode())
        finally:
            os.close(descriptor)
        until = time.monotonic() + _TAKEN_WITHIN_S
        while attribute == _FIRMWARE and self._waits(text) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return text

    def _waits(self, text: str) -> bool:
        """Whether the name still stands there: the kernel has taken it when the write returns, a dry run soon after."""
        try:
            return self._read(_FIRMWARE) == text
        except OSError:  # nothing can be read there, as in most kernels
            return False


class LoadedNote:
    """Which bitstream was loaded since the machine started (rule 2): its boot id and the digest, in one file."""

    def __init__(self, path: Path, boot_id: Path, disk: Disk) -> None:
        self._path = path
        self._boot_id = boot_id
        self._disk = disk

    def read(self) -> tuple[bool, Digest | None]:
        """Whether anything was loaded, or begun, in this start of the machine; and what, if that is known."""
        try:
            boot, _, digest = self._path.read_text().partition(" ")
        except OSError:
            return False, None
        if boot != self._now():
            return False, None
        try:
            return True, parse_digest(digest)
        except MetadataError:
            return True, None

    def write(self, digest: Digest | None) -> None:
        """None: it is being loaded."""
        self._disk.make_folder(self._path.parent)
        self._disk.write_file(self._path, f"{self._now()} {digest or 'loading'}".encode())

    def _now(self) -> str:
        try:
            return self._boot_id.read_text().strip()
        except OSError:
            return "unknown"


class FpgaManagerMachine:
    """`Machine` for one FPGA."""

    def __init__(self, config: FpgaManagerConfig, manager: Manager, note: LoadedNote, disk: Disk) -> None:
        self._config = config
        self._manager = manager
        self._note = note
        self._disk = disk
        self._telling = Telling(config.version_command, config.version_pattern, config.command_timeout_s)

    async def look(self) -> Seen:
        """Its state, what was loaded, and what the version command says."""
        try:
            await self._require_name()
            state = await self._manager.read("state")
        except BootloaderError as error:
            return Seen(Life.SILENT, reason=str(error))
        image = await asyncio.to_thread(self._loaded)
        if state != _OPERATING:  # the other states are passed through
            life = Life.FAILED if state.endswith("error") else Life.STOPPED
            return Seen(life, image, reason=f"its state is {state[:80]!r}")
        if not self._config.version_command:
            return Seen(Life.RUNNING, image)
        return replace(await self._telling.ask(""), image=image)

    async def stage(self, image: KeptImage, progress: Callable[[int], None]) -> None:
        """It is in its place already; the FPGA must be the one that is meant, and must be one that can be loaded so."""
        await self._require_name()
        await self._manager.read("flags")
        progress(image.size)

    async def start(self, image: KeptImage) -> None:
        """Load it. Errors: `BootloaderError` for one that the FPGA does not take."""
        await self._require_name()
        await asyncio.to_thread(self._note.write, None)
        await self._manager.write("flags", self._config.flags)
        await self._manager.write(_FIRMWARE, image.path.name)
        await asyncio.to_thread(self._note.write, image.digest)

    async def go_back(self, image: KeptImage | None) -> None:
        """The same, for the one before."""
        if image is None:
            raise SlotError("the bitstream before is not at hand; the FPGA cannot be given it")
        await self.start(image)

    async def confirm(self, image: KeptImage) -> None:
        """Have every start of the machine load it."""
        await asyncio.to_thread(self._make_boot_file, image)

    async def prefer(self, image: KeptImage) -> None:
        """The same."""
        await asyncio.to_thread(self._make_boot_file, image)

    async def read_back(self, target: Path, max_bytes: int) -> bool:
        """What a start of the machine loads, where nothing was loaded since."""
        return await asyncio.to_thread(self._copy, target, max_bytes)

    async def _require_name(self) -> None:
        """The numbers of FPGAs follow the order in which drivers were loaded."""
        wanted = self._config.name
        if wanted and (found := await self._manager.read("name")) != wanted:
            raise BootloaderError(f"{self._config.manager} is the FPGA {found[:80]!r}, and {wanted!r} is configured")

    def _loaded(self) -> Digest | None:
        begun, digest = self._note.read()
        if begun or self._config.boot_file is None:
            return digest
        try:
            return digest_file(self._config.boot_file)[0]
        except OSError:
            return None

    def _make_boot_file(self, image: KeptImage) -> None:
        path = self._config.boot_file
        if path is None or (path.exists() and digest_file(path) == (image.digest, image.size)):
            return
        before = self._loaded()
        if not self._note.read()[0] and before is not None:
            self._note.write(before)  # the file that said what runs is about to say something else
        self._disk.write_file(path, image.path.read_bytes())

    def _copy(self, target: Path, max_bytes: int) -> bool:
        path = self._config.boot_file
        if path is None or self._note.read()[0] or not path.is_file() or path.stat().st_size > max_bytes:
            return False
        target.write_bytes(path.read_bytes())
        return True


def create(config: FpgaManagerConfig, surroundings: Surroundings) -> ShelfDevice:
    """The driver. Errors: `ConfigurationError`."""
    manager = SysfsManager(config.root / "class" / "fpga_manager" / config.manager, config.load_timeout_s)
    note = LoadedNote(surroundings.state / "slots" / "loaded.txt", config.boot_id, surroundings.disk)
    capabilities = Capabilities(
        stage=True, trial=True, hold=True, revert=True, resume=True, needs_power_cycle=False, reflash=True
    )
    patience = Patience(config.start_timeout_s, config.watch_s, config.poll_interval_s)
    habits = Habits(
        config.slots, config.device, config.selection, config.slot_bytes, capabilities, patience, installed=config.installed
    )
    shelf = Shelf(surroundings.disk, config.firmware_folder, config.prefix)
    return ShelfDevice(FpgaManagerMachine(config, manager, note, surroundings.disk), habits, shelf, surroundings)
