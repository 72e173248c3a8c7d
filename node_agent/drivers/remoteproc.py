"""A secondary processor under Linux' remoteproc: its firmware is a file, and sysfs starts and stops it.

Linux, `Documentation/ABI/testing/sysfs-class-remoteproc`: in `<root>/class/remoteproc/<processor>/`

- `firmware`: the name of a file in the firmware folder; written only while the processor is stopped, else EBUSY.
- `state`: `offline`, `suspended`, `running`, `crashed`, `attached`, `detached`, `invalid`; takes `start` and `stop`.
- `recovery`: `enabled` (a crashed processor is started again), `disabled`; takes `recover` as well.

What follows from that:

1. Images stand in the firmware folder by their digest, so the two slots are two names, and a switch is stop, name, start.
2. A start of the machine loads `boot_firmware`, whatever ran before. That file is always the confirmed image, and is replaced as
   a whole: a power cut is the way back out of every trial.
3. Recovery is off during a trial. Else a crash loop would look like a running processor most of the time.
4. Some kernels refuse to stop a crashed processor (EINVAL). It is recovered first, and stopped then.
5. The processor that is named must be the one that is meant: their numbers follow the order in which drivers were loaded.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from node_agent.drivers.driver import Capabilities, Surroundings
from node_agent.drivers.shelf.arrival import Patience
from node_agent.drivers.shelf.device import Habits, ShelfDevice
from node_agent.drivers.shelf.images import KeptImage, Shelf
from node_agent.drivers.shelf.machine import Life, Seen
from node_agent.programs import run_program
from update.bundle.elf_image import check_elf
from update.digest import Digest, digest_file, parse_digest
from update.durable import Disk
from update.errors import BootloaderError, MetadataError

_Seconds = Annotated[float, Field(gt=0, le=3600)]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_LIVES: Final = {
    "running": Life.RUNNING,
    "attached": Life.RUNNING,
    "offline": Life.STOPPED,
    "suspended": Life.STOPPED,
    "detached": Life.STOPPED,
    "crashed": Life.FAILED,
}
_MAX_ATTRIBUTE_BYTES: Final = 4096
_TRIES: Final = 5
_SUFFIX: Final = ".elf"
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class RemoteprocConfig:
    """The processor: where sysfs has it, and where its firmware is."""

    boot_firmware: _FileName
    root: Path = Path("/sys")
    processor: _FileName = "remoteproc0"
    name: str = ""
    firmware_folder: Path = Path("/lib/firmware")
    prefix: _FileName = "fieldrelay-"
    slots: tuple[str, str] = ("a", "b")
    selection: str = ""
    device: str = "cpu"
    slot_bytes: Annotated[int, Field(ge=64, le=256 << 20)] = 16 << 20
    any_format: bool = False
    machine: Annotated[int, Field(ge=0, le=65535)] = 0
    version_file: Path | None = None
    probe: tuple[str, ...] = ()
    probe_timeout_s: _Seconds = 10.0
    answer_timeout_s: _Seconds = 30.0
    start_timeout_s: _Seconds = 60.0
    watch_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    poll_interval_s: _Seconds = 0.2


class Attributes(Protocol):
    """The attributes of one processor. Errors: `OSError`, as the kernel says it."""

    def read(self, attribute: str) -> str:
        """Its text without the line's end."""
        ...

    def write(self, attribute: str, text: str) -> None:
        """Have the kernel take `text`; what it does about it is done on return."""
        ...


class SysfsAttributes:
    """Those in a folder of sysfs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, attribute: str) -> str:
        """In one read, as sysfs answers it: no attribute is longer than a page."""
        with (self._folder / attribute).open("rb", buffering=0) as file:
            return file.read(_MAX_ATTRIBUTE_BYTES).decode("utf-8", "replace").strip()

    def write(self, attribute: str, text: str) -> None:
        """In one write, as sysfs wants it."""
        descriptor = os.open(self._folder / attribute, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


class RemoteprocMachine:
    """`Machine` for one processor."""

    def __init__(self, config: RemoteprocConfig, attributes: Attributes, disk: Disk) -> None:
        self._config = config
        self._attributes = attributes
        self._disk = disk
        self._called = config.processor
        self._boot = config.firmware_folder / config.boot_firmware
        self._boot_digest: tuple[tuple[int, int, int], Digest] | None = None

    async def look(self) -> Seen:
        """Its state, its firmware, and what the version file and the probe say."""
        seen = await asyncio.to_thread(self._look)
        if seen.life is not Life.RUNNING or not self._config.probe:
            return seen
        ended = await run_program(self._config.probe, timeout_s=self._config.probe_timeout_s, environment={})
        return seen if ended.succeeded else replace(seen, life=Life.SILENT, reason=f"the probe {ended.describe()}")

    async def stage(self, image: KeptImage, progress: Callable[[int], None]) -> None:
        """Judge it: it is in its place already."""
        if not self._config.any_format:
            await asyncio.to_thread(self._judge, image)
        progress(image.size)

    async def start(self, image: KeptImage) -> None:
        """Stop, switch, start; recovery is off (rule 3)."""
        await asyncio.to_thread(self._switch, image)

    async def go_back(self, image: KeptImage | None) -> None:
        """Stop, switch, start; then recovery is on."""
        if image is not None:
            await asyncio.to_thread(self._switch, image)
        await asyncio.to_thread(self._write, "recovery", "enabled")

    async def confirm(self, image: KeptImage) -> None:
        """Have every start of the machine bring it, and a crash start it again."""
        await asyncio.to_thread(self._make_boot_firmware, image)
        await asyncio.to_thread(self._write, "recovery", "enabled")

    async def prefer(self, image: KeptImage) -> None:
        """Have a start of the machine bring it; not while the file that is to be replaced says what runs."""
        await asyncio.to_thread(self._prefer, image)

    async def read_back(self, target: Path, max_bytes: int) -> bool:
        """The file that runs."""
        return await asyncio.to_thread(self._copy_running, target, max_bytes)

    def _look(self) -> Seen:
        try:
            self._require_processor()
            state, firmware = self._settled(), self._read("firmware")
        except BootloaderError as error:
            return Seen(Life.SILENT, reason=str(error))
        life = _LIVES.get(state, Life.SILENT)
        image = None if state == "attached" else self._digest(firmware)
        reason = "" if life is Life.RUNNING else f"its state is {state[:40]!r}"
        if life is not Life.RUNNING or self._config.version_file is None:
            return Seen(life, image, None, reason)
        version = self._version(self._config.version_file)
        if not version:
            return Seen(Life.SILENT, image, None, f"{self._config.version_file} does not say its version")
        return Seen(life, image, version)

    def _version(self, path: Path) -> str:
        try:
            with path.open("rb", buffering=0) as file:
                return file.read(255).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _digest(self, firmware: str) -> Digest | None:
        """The digest of the firmware of that name; None for one that nobody here knows."""
        if firmware.startswith(self._config.prefix) and firmware.endswith(_SUFFIX):
            try:
                return parse_digest(firmware[len(self._config.prefix) : -len(_SUFFIX)])
            except MetadataError:
                return None
        return self._digest_of_boot_firmware() if firmware == self._config.boot_firmware else None

    def _digest_of_boot_firmware(self) -> Digest | None:
        try:
            about = self._boot.stat()
            signature = (about.st_ino, about.st_size, about.st_mtime_ns)
            if self._boot_digest is None or self._boot_digest[0] != signature:
                self._boot_digest = signature, digest_file(self._boot)[0]
        except OSError:
            return None
        return self._boot_digest[1]

    def _judge(self, image: KeptImage) -> None:
        check_elf(image.path.read_bytes(), machine=self._config.machine or None)

    def _switch(self, image: KeptImage) -> None:
        self._require_processor()
        self._stop()
        self._write("recovery", "disabled")
        self._write("firmware", image.path.name)
        self._write("state", "start")
        state = self._settled()
        if self._read("firmware") != image.path.name:
            raise BootloaderError(f"{self._called} did not take the firmware {image.path.name}; is somebody else starting it?")
        if state == "offline":
            raise BootloaderError(f"{self._called} was told to start {image.path.name}, and is offline; see the kernel's log")

    def _stop(self) -> None:
        state = self._settled()
        if state not in {"offline", "crashed"}:
            self._write("state", "stop")
        for _ in range(_TRIES):
            if (state := self._settled()) != "crashed":
                break
            self._stop_crashed()
        if (state := self._settled()) != "offline":
            raise BootloaderError(f"{self._called} was told to stop, and its state is {state}")

    def _stop_crashed(self) -> None:
        """Rule 4."""
        try:
            self._write("state", "stop")
        except BootloaderError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EINVAL:
                raise
            self._write("recovery", "recover")
            with suppress(BootloaderError):  # firmware that crashes at once is faster now and then: `_stop` looks
                self._write("state", "stop")

    def _prefer(self, image: KeptImage) -> None:
        if self._read("firmware") != self._config.boot_firmware or self._settled() == "offline":
            self._make_boot_firmware(image)

    def _make_boot_firmware(self, image: KeptImage) -> None:
        """Replace the file as a whole (rule 2). Errors: `StoreError`."""
        if self._digest_of_boot_firmware() == image.digest:
            return
        staged, done = self._boot.with_name(f"{self._config.prefix}boot"), 0
        with image.path.open("rb") as reading, self._disk.open(staged, fresh=True) as file:
            while block := reading.read(_BLOCK_BYTES):
                file.write_at(done, block)
                done += len(block)
            file.sync()
        self._disk.publish(staged, self._boot)

    def _copy_running(self, target: Path, max_bytes: int) -> bool:
        firmware = self._read("firmware")
        source = self._config.firmware_folder / firmware
        if Path(firmware).name != firmware or not source.is_file() or source.stat().st_size > max_bytes:
            return False
        target.write_bytes(source.read_bytes())
        return True

    def _require_processor(self) -> None:
        """Rule 5."""
        if self._config.name and (found := self._read("name")) != self._config.name:
            raise BootloaderError(f"{self._called} is the processor {found!r}, and {self._config.name!r} is configured")

    def _settled(self) -> str:
        """The state, once a command is carried out: sysfs carries it out before the write returns, a dry run soon after."""
        until = time.monotonic() + self._config.answer_timeout_s
        while (state := self._read("state")) in {"start", "stop", ""}:
            if time.monotonic() >= until:
                raise BootloaderError(f"{self._called}: nobody carries out the command {state!r}")
            time.sleep(min(self._config.poll_interval_s, 0.02))
        return state

    def _read(self, attribute: str) -> str:
        try:
            return self._attributes.read(attribute)
        except OSError as error:
            raise BootloaderError(f"cannot read {attribute} of {self._called}: {error.strerror or error}") from error

    def _write(self, attribute: str, text: str) -> None:
        try:
            self._attributes.write(attribute, text)
        except OSError as error:
            message = f"the kernel refuses {text!r} for {attribute} of {self._called}: {error.strerror or error}"
            raise BootloaderError(message) from error


def create(config: RemoteprocConfig, surroundings: Surroundings) -> ShelfDevice:
    """The driver. Errors: `ConfigurationError`."""
    return make(config, surroundings, SysfsAttributes(config.root / "class" / "remoteproc" / config.processor))


def make(config: RemoteprocConfig, surroundings: Surroundings, attributes: Attributes) -> ShelfDevice:
    """The driver of a processor with these attributes."""
    capabilities = Capabilities(stage=True, trial=True, hold=True, revert=True, resume=False, needs_power_cycle=False)
    patience = Patience(config.start_timeout_s, config.watch_s, config.poll_interval_s)
    habits = Habits(config.slots, config.device, config.selection, config.slot_bytes, capabilities, patience)
    shelf = Shelf(surroundings.disk, config.firmware_folder, config.prefix, _SUFFIX)
    return ShelfDevice(RemoteprocMachine(config, attributes, surroundings.disk), habits, shelf, surroundings)
