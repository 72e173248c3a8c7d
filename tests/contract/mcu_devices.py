"""Microcontrollers for the contract suite of drivers, and bundles that bring their images."""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.simulators.mcu import Mcu
from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.mcuboot import McubootDriver
from node_agent.drivers.slots.records import SlotRecords
from node_agent.drivers.smp.images import PART
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.builders.mcuboot import make_image
from tests.builders.microcontroller import quick, served
from tests.contract.devices import Device, DeviceMaker, FileChunks, Release
from update.digest import digest_of
from update.durable import Disk

Bootenv = Sequence[Mapping[str, object]]
BODY_BYTES = 20_000


def mcu_image(version: int, **attributes: object) -> bytes:
    body = random.Random(version).randbytes(BODY_BYTES)
    return make_image(f"{version}.0.0", body, **attributes)  # type: ignore[arg-type] # those of make_image


def mcu_release(folder: Path, version: int, data: bytes | None = None) -> Release:
    """A bundle with one image for the device `mcu`."""
    content = mcu_image(version) if data is None else data
    description = describe(version=f"{version}.0", images=[image("mcu.bin", content, device="mcu", type="raw")])
    file = signed(folder, description, {"mcu.bin": content}, name=f"mcu-{version}.swu")
    return Release(verified(file), FileChunks({}), content, b"")


@dataclass(slots=True)
class McuReleases:
    """Bundles of one folder by version."""

    folder: Path
    made: dict[int, Release] = field(default_factory=dict)

    def __call__(self, version: int, /, bootenv: Bootenv = ()) -> Release:
        assert not bootenv, "a microcontroller has none"
        if version not in self.made:
            self.made[version] = mcu_release(self.folder, version)
        return self.made[version]


@dataclass(frozen=True, slots=True)
class McuBoard:
    """The power switch. Slots are images: `b` is what the driver wrote as that, `a` the other."""

    mcu: Mcu
    records: SlotRecords

    def decides(self) -> bytes:
        return f"{self.mcu.mark} {self.mcu.swapped} {self.mcu.image_ok}".encode()

    def power_on(self) -> str:
        self.mcu.start()
        written = self.records.read("b").parts.get(PART)
        return "b" if written is not None and written.digest == digest_of(self.mcu.places[0]) else "a"


@dataclass(frozen=True, slots=True)
class McuDevice(Device):
    """Its contents are in flash, not in files."""

    def content(self, slot: str) -> str:
        assert isinstance(self.board, McuBoard)
        return self.board.mcu.places["ab".index(slot)].hex()


def mcu_device(stack: ExitStack, *, pty: bool = False) -> DeviceMaker:
    """A maker of devices that run version 1 and have nothing beside it."""

    def make(folder: Path, disk: Disk | None = None) -> Device:
        delivered = mcu_image(1)
        (folder / "delivered.bin").write_bytes(delivered)
        mcu = Mcu([delivered, b""])
        config = quick(stack.enter_context(served(mcu, pty=pty)), installed=folder / "delivered.bin")
        driver = McubootDriver(config, Surroundings(disk or Disk(), folder / "state", DEMO, NoBootloader()))
        return McuDevice(driver, McuBoard(mcu, SlotRecords(Disk(), folder / "state" / "slots")), folder, {"a": (), "b": ()})

    return make
