"""A simulated microcontroller that lives in a folder: its flash outlasts the program that plays it.

    FOLDER/place-0.bin, place-1.bin   the two places of flash: what runs, and what is beside it
    FOLDER/flash.json                 what MCUboot has noted: mark, swapped, image_ok
    FOLDER/faults.json                how it misbehaves from now on
    FOLDER/power                      somebody who makes this file switches the device off and on; then it is gone
    FOLDER/line                       while it is served on a pty: a link to it

To play a device is to give it power: a trial that was not confirmed is over when the program is started again.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from gateway.simulators.mcu import Flash, Mark, Mcu, McuFaults
from update.durable import Disk
from update.errors import StateError

_PAUSE_S: Final = 0.02
_FAULTS: Final = TypeAdapter(McuFaults)


@dataclass(slots=True)
class McuFolder:
    """The device in `folder`."""

    folder: Path
    mcu: Mcu
    _kept: Flash | None = None
    _faults: str = ""

    def step(self) -> None:
        """Do what people want of the device, and keep what it has in flash."""
        self._misbehave()
        if (self.folder / "power").exists():
            (self.folder / "power").unlink()
            self.mcu.start()
        flash = self.mcu.flash()
        if flash != self._kept:
            _keep(self.folder, flash, self._kept)
            self._kept = flash

    def _misbehave(self) -> None:
        """Take `faults.json` over when it has changed, and note there which cuts of the power are over."""
        text = _text(self.folder / "faults.json")
        if text and text != self._faults:
            self.mcu.faults, self._faults = _faults_of(text), text
        elif self._faults and self.mcu.faults.swap_cuts != _faults_of(self._faults).swap_cuts:
            misbehave(self.folder, self.mcu.faults)
            self._faults = _text(self.folder / "faults.json")


def make_mcu(folder: Path, image: bytes) -> McuFolder:
    """A device that was delivered with `image`, and has power. `StateError` where there is one."""
    if (folder / "flash.json").exists():
        raise StateError(f"{folder} holds a simulated microcontroller already; remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder, Flash((image, b"")))
    return open_mcu(folder)


def open_mcu(folder: Path) -> McuFolder:
    """Give the device in `folder` power. `StateError` where there is none."""
    flash = read_flash(folder)
    mcu = Mcu([*flash.places], mark=flash.mark, swapped=flash.swapped, image_ok=flash.image_ok)
    device = McuFolder(folder, mcu)
    device.step()
    mcu.start()
    mcu.moment = device.step
    device.step()
    return device


def read_flash(folder: Path) -> Flash:
    """What the device in `folder` has in flash. `StateError` where there is none."""
    if not (folder / "flash.json").is_file():
        raise StateError(f"{folder} holds no microcontroller; make one with `fieldrelay simulate mcu create {folder}`")
    noted = json.loads(_text(folder / "flash.json"))
    first, second = ((folder / f"place-{number}.bin").read_bytes() for number in range(2))
    return Flash((first, second), Mark(noted["mark"]), noted["swapped"], noted["image_ok"])


def misbehave(folder: Path, faults: McuFaults) -> None:
    """From now on."""
    Disk().write_file(folder / "faults.json", _FAULTS.dump_json(faults))


@asynccontextmanager
async def kept_alive(device: McuFolder) -> AsyncIterator[McuFolder]:
    """Look at the folder between requests, too, as long as the block lasts; the wire is `mcu_server`'s."""
    task = asyncio.create_task(_keep_alive(device))
    try:
        yield device
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        device.step()


async def _keep_alive(device: McuFolder) -> None:
    while True:
        device.step()
        await asyncio.sleep(_PAUSE_S)


def _faults_of(text: str) -> McuFaults:
    return _FAULTS.validate_json(text)


def _keep(folder: Path, flash: Flash, before: Flash | None = None) -> None:
    """Write what has changed, each file at once: somebody may read it meanwhile."""
    disk = Disk()
    for number, data in enumerate(flash.places):
        if before is None or before.places[number] != data:
            disk.write_file(folder / f"place-{number}.bin", data)
    noted = {"mark": flash.mark, "swapped": flash.swapped, "image_ok": flash.image_ok}
    disk.write_file(folder / "flash.json", json.dumps(noted).encode())


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
