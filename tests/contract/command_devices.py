"""Devices behind an external program for the contract suite of drivers: with one slot and an archive here, or with two."""

import random
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.command import CommandConfig, create
from node_agent.drivers.driver import Driver, Surroundings
from node_agent.drivers.shelf.images import Shelf
from tests.builders.bundles import DEMO
from tests.contract.devices import Device, DeviceMaker
from tests.contract.shelf_devices import ImageReleases, ShelfContents, aside, carry_on
from update.durable import Disk

PROGRAM = (sys.executable, "-I", "-S", str(Path(__file__).with_name("device_program.py")))


def device_image(version: str) -> bytes:
    return f"version {version}\n".encode() + random.Random(version).randbytes(5_000)


def command_releases(folder: Path) -> ImageReleases:
    return ImageReleases(folder, "device", device_image)


@dataclass(slots=True)
class DeviceBoard:
    """The power switch of the device, and the start of its agent."""

    flash: Path
    slots: int
    driver: Driver = field(init=False)

    def decides(self) -> bytes:
        return (self.flash / "flash.bin").read_bytes()

    def power_on(self) -> str:
        if (self.flash / "trial").exists():
            (self.flash / "trial").unlink()
            ours, beside = (self.flash / "flash.bin").read_bytes(), (self.flash / "beside.bin").read_bytes()
            (self.flash / "flash.bin").write_bytes(beside)
            (self.flash / "beside.bin").write_bytes(ours)
        return aside(carry_on(self.driver))


def quick(folder: Path, slots: int = 1, **keys: object) -> CommandConfig:
    """A configuration that waits no longer than the simulated device needs."""
    waits = {"poll_interval_s": 0.01, "watch_s": 0.0, "start_timeout_s": 1.0, "installed": folder / "delivered.bin"}
    settings = {"slots": str(slots), "tells": "version" if slots == 1 else "sha256"}
    given = {"program": PROGRAM, "address": str(folder / "flash"), "settings": settings, "slots": slots}
    return CommandConfig(**{**waits, **given, **keys})  # type: ignore[arg-type] # the keys are checked by pydantic


def make_flash(folder: Path) -> bytes:
    """A device as it is delivered, in `folder`."""
    delivered = device_image("1.0")
    (folder / "flash").mkdir()
    (folder / "flash" / "flash.bin").write_bytes(delivered)
    (folder / "delivered.bin").write_bytes(delivered)
    return delivered


def command_device(_stack: ExitStack, *, slots: int = 1) -> DeviceMaker:
    """A maker of devices that run version 1.0 and have nothing beside it."""

    def build(folder: Path, disk: Disk | None = None) -> Device:
        delivered, config = make_flash(folder), quick(folder, slots)
        board = DeviceBoard(folder / "flash", slots)
        board.driver = create(config, Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader()))
        shelf = Shelf(Disk(), folder / "state" / "images")
        return ShelfContents(board.driver, board, folder, {"a": (), "b": ()}, shelf, delivered)

    return build
